"""Ready: ask for a lease, hear the answer, and use it or give it back."""

from __future__ import annotations

from agent.phases import drains, guard
from agent.phases.gates import in_place, slots_unclear
from agent.phases.leases import begin_arming
from agent.phases.model import Asking, Lease, Step
from agent.phases.orders import give_way
from agent.phases.turn import Turn
from wire.messages import Hold, LeaseGrant, LeaseRequest, LeaseWait

RETRY_LEAST_S, RETRY_MOST_S = 1.0, 3600.0
ASKED_KEPT = 8
"""Unanswered requests: answers that take longer than eight times `lease_answer_s` are answers to nobody."""


def ask(turn: Turn) -> None:
    """READY: ask for a lease when nothing of ours forbids it; ask again when no answer came."""
    state = turn.state
    if state.work:
        return
    if state.pending is not None:
        give_way(turn)
        return
    if slots_unclear(state) or not in_place(state):
        turn.set(step=Step.HELD, hold=None, asking=None, ask_s=None)
        return
    if drains.unwind(turn):
        turn.set(asking=None)
        return
    if state.inhibitors:
        text = "reboots are inhibited on the node: " + ", ".join(state.inhibitors)
        turn.set(asking=None, hold=Hold(code="inhibited", text=text))
        return
    if state.hold is not None and state.hold.code == "inhibited":
        turn.set(hold=None, ask_s=None)
    if not state.linked:
        turn.set(asking=None, ask_s=None)
        return
    _ask_when_due(turn)


def _ask_when_due(turn: Turn) -> None:
    asking, due_s = turn.state.asking, turn.state.ask_s
    if asking is not None and turn.now_s - asking.sent_s < turn.limits.lease_answer_s:
        return
    if asking is None and due_s is not None and turn.now_s < due_s:
        return
    # The state goes to disk before the request goes out, so the lease is counted from a moment before sending.
    turn.set(
        asking=Asking(nonce=turn.moment.nonce, sent_s=turn.now_s, earlier=_unanswered(asking)),
        ask_s=None,
        relied=guard.least(turn.state.relied, turn.state.serving),
    )
    turn.say(LeaseRequest(operation_id=turn.operation.id, nonce=turn.moment.nonce))


def _unanswered(asking: Asking | None) -> dict[str, float]:
    """What the next request remembers: without it a server that always answers late would never be heard."""
    if asking is None:
        return {}
    return dict([*asking.earlier.items(), (asking.nonce, asking.sent_s)][1 - ASKED_KEPT :])


def wait_for_lease(turn: Turn, given: LeaseWait) -> None:
    """Not now: show why, ask again later; an answer to an earlier request leaves the present one out. Said again to a
    node that waits already, it can only call it earlier: its turn has come."""
    asking, due_s = turn.state.asking, turn.state.ask_s
    if asking is None and due_s is not None and given.operation_id == turn.operation.id:
        turn.set(ask_s=min(due_s, turn.now_s + given.retry_s))
        return
    if asking is None or asking.sent_with(given.nonce) is None:
        return
    if given.nonce != asking.nonce:
        turn.set(hold=given.hold)
        return
    retry_s = min(max(given.retry_s, RETRY_LEAST_S), RETRY_MOST_S)
    turn.set(asking=None, ask_s=turn.now_s + retry_s, hold=given.hold, relied=None)


def take_lease(turn: Turn, given: LeaseGrant) -> None:
    """READY: a grant that has not run out leads on. It counts from sending the request that it answers."""
    asking = turn.state.asking
    if given.operation_id != turn.operation.id or asking is None:
        return_stray(turn, given)
        return
    sent_s = asking.sent_with(given.nonce)
    late = given.nonce != asking.nonce and (sent_s is None or sent_s + given.duration_s <= turn.now_s)
    if sent_s is None or late:
        # An answer to a request that was given up, or too late. The present one may be answered with the same
        # lease, so giving this one back could take away what is on its way.
        return
    until_s = sent_s + given.duration_s
    turn.set(asking=None)
    if until_s <= turn.now_s or not in_place(turn.state) or turn.state.work:
        return_stray(turn, given)
        return
    _use(turn, Lease(id=given.lease_id, operation_id=given.operation_id, until_s=until_s, boot_id=turn.state.boot_id))


def _use(turn: Turn, lease: Lease) -> None:
    """Drain or arm under it, or give it back: containers moved here meanwhile, or it is too short to drain."""
    drain = drains.wanted(turn)
    objection = guard.objection(turn.state)
    # The server may renew a lease whose return it never got: from now on it is in use.
    turn.set(returned=[entry for entry in turn.state.returned if entry.message.lease_id != lease.id], lease=lease)
    if objection is not None:
        turn.return_lease(objection.text)
        turn.set(hold=objection)  # and asked for anew at once: the server knows the newest placement
    elif drain and drains.time_left_s(turn, lease) <= 0:
        turn.return_lease("too short to drain")
        drains.refuse_short(turn, lease)
    elif drain:
        turn.set(step=Step.DRAINING, hold=None)
        drains.begin(turn, lease)
    else:
        begin_arming(turn)


def return_stray(turn: Turn, given: LeaseGrant) -> None:
    """A lease that nothing waits for goes back, unless it is a repetition of the one in hand or of the one used."""
    held = turn.state.lease
    if (held is not None and held.id == given.lease_id) or _rebooted_under(turn, given):
        return
    stray = Lease(
        id=given.lease_id,
        operation_id=given.operation_id,
        until_s=turn.now_s + given.duration_s,
        boot_id=turn.state.boot_id,
    )
    turn.give_back(stray, "not wanted any more")


def _rebooted_under(turn: Turn, given: LeaseGrant) -> bool:
    """The gateway says again what brought this boot about: giving that back would say that nothing was started."""
    expected = turn.state.expected
    if expected is None or expected.operation_id != given.operation_id:
        return False
    return expected.old_boot_id != turn.state.boot_id
