"""From ready to the reboot: ask for a lease, arm under it, look at it again, reboot."""

from __future__ import annotations

import msgspec

from agent.evidence import Expected
from agent.phases.gates import in_place, slots_unclear
from agent.phases.inputs import WorkFailed
from agent.phases.model import Asking, Lease, Step, WorkKind, booted, lease_lives, passive
from agent.phases.orders import give_way
from agent.phases.turn import Turn
from agent.phases.words import asked
from wire.messages import Hold, LeaseGrant, LeaseRequest, LeaseWait, OperationKind, Result

ARM_TRIES = 3
"""A tool that hangs for a moment is forgiven; one that refuses three times will refuse a fourth."""
RETRY_LEAST_S, RETRY_MOST_S = 1.0, 3600.0
ASKED_KEPT = 8
"""Unanswered requests: answers that take longer than eight times `lease_answer_s` are answers to nobody."""
LEASE_ENDED = "lease-ended"
"""Code of WorkFailed when the runner found the lease over directly before the work."""


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
    turn.set(asking=Asking(nonce=turn.moment.nonce, sent_s=turn.now_s, earlier=_unanswered(asking)), ask_s=None)
    turn.say(LeaseRequest(operation_id=turn.operation.id, nonce=turn.moment.nonce))


def _unanswered(asking: Asking | None) -> dict[str, float]:
    """What the next request remembers: without it a server that always answers late would never be heard."""
    if asking is None:
        return {}
    return dict([*asking.earlier.items(), (asking.nonce, asking.sent_s)][1 - ASKED_KEPT :])


def wait_for_lease(turn: Turn, given: LeaseWait) -> None:
    """Not now: show why, ask again later; an answer to an earlier request leaves the present one out."""
    asking = turn.state.asking
    if asking is None or asking.sent_with(given.nonce) is None:
        return
    if given.nonce != asking.nonce:
        turn.set(hold=given.hold)
        return
    retry_s = min(max(given.retry_s, RETRY_LEAST_S), RETRY_MOST_S)
    turn.set(asking=None, ask_s=turn.now_s + retry_s, hold=given.hold)


def take_lease(turn: Turn, given: LeaseGrant) -> None:
    """READY: a grant that has not run out leads to arming. It counts from sending the request that it answers."""
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
    lease = Lease(id=given.lease_id, operation_id=given.operation_id, until_s=until_s, boot_id=turn.state.boot_id)
    _begin_arming(turn, lease)


def _begin_arming(turn: Turn, lease: Lease) -> None:
    operation = turn.operation
    # The server may renew a lease whose return it never got: from now on it is in use.
    turn.set(returned=[entry for entry in turn.state.returned if entry.message.lease_id != lease.id])
    same_slot = operation.kind is OperationKind.REBOOT
    slot = booted(turn.state) if same_slot else passive(turn.state)
    assert slot is not None, "the gates ask for the slot"
    image = None if same_slot else operation.image
    expected = Expected(
        slot=slot.name,
        digest=image.digest if image else slot.digest,
        version=image.version if image else slot.version or "",
        old_boot_id=turn.state.boot_id,
        operation_id=operation.id,
        kind=operation.kind,
    )
    facts = turn.state.booted
    turn.set(
        step=Step.ARMING,
        hold=None,
        lease=lease,
        expected=expected,
        armed=False,
        witnesses={},
        rebooted_s=None,
        origin_confirmed=facts is not None and facts.confirmed,
    )
    turn.queue(WorkKind.PROBE)


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


def arm(turn: Turn) -> None:
    """ARMING: the witnesses are noted, then the slot is armed, then the lease is looked at once more."""
    state = turn.state
    alive = lease_lives(state, turn.now_s)
    if state.work:
        if not alive and (state.retry_s is not None or state.work[0].kind is WorkKind.PROBE):
            unarm(turn, "the lease ran out before arming")
        return
    if not alive:
        unarm(turn, "the lease ran out before the reboot")
    elif state.inhibitors:
        unarm(turn, "reboots are inhibited on the node: " + ", ".join(state.inhibitors))
    elif unclear := slots_unclear(state):
        unarm(turn, unclear)
    elif not state.armed:
        _queue_arm(turn)
    else:
        turn.set(step=Step.REBOOTING, rebooted_s=None)
        turn.queue(WorkKind.REBOOT, not_after_s=_lease(turn).until_s)


def _queue_arm(turn: Turn) -> None:
    assert turn.state.expected is not None, "noted before arming"
    if turn.operation.kind is OperationKind.REBOOT:
        # The booted slot stays: arming it could cost it its standing.
        turn.queue(WorkKind.DISARM)
    else:
        until_s = _lease(turn).until_s
        turn.queue(WorkKind.ARM, slot=turn.state.expected.slot, not_after_s=until_s)


def watch_reboot(turn: Turn) -> None:
    """REBOOTING: a reboot that never happens, or may not begin any more, is undone."""
    state = turn.state
    if state.work:
        if state.retry_s is not None and not lease_lives(state, turn.now_s):
            unarm(turn, f"the machine did not reboot: {state.work_error}")
        return
    if state.rebooted_s is None or turn.now_s - state.rebooted_s > turn.limits.reboot_s:
        unarm(turn, "the machine did not reboot")


def unarm(turn: Turn, reason: str) -> None:
    """Nothing was rebooted: the booted slot is next boot again, the lease goes back, ready as before."""
    if turn.state.armed:
        turn.event("disarmed", f"Called off the {asked(turn.state)}: {reason}")
    turn.return_lease(reason)
    turn.drop_work()
    turn.set(step=Step.READY, expected=None, armed=False, rebooted_s=None, asking=None, ask_s=None)
    turn.queue(WorkKind.DISARM)


def arm_failed(turn: Turn, given: WorkFailed) -> None:
    """ARMING: a few tries under the lease, then the operation ends without having switched."""
    if given.code == LEASE_ENDED or turn.state.pending is not None:
        unarm(turn, _why_not(given, "arming"))
        return
    if turn.state.work[0].tries < ARM_TRIES - 1:
        try_again(turn, given)
        return
    reason = f"could not arm: {given.text}"
    turn.return_lease(reason)
    turn.drop_work()
    turn.end(Result.NEVER_SWITCHED, reason)
    turn.queue(WorkKind.DISARM)


def reboot_failed(turn: Turn, given: WorkFailed) -> None:
    """REBOOTING: again while the lease lives and nothing newer waits."""
    if given.code == LEASE_ENDED or turn.state.pending is not None:
        unarm(turn, _why_not(given, "the reboot"))
    else:
        try_again(turn, given)


def _why_not(given: WorkFailed, what: str) -> str:
    return f"the lease ran out before {what}" if given.code == LEASE_ENDED else f"{what} failed: {given.text}"


def try_again(turn: Turn, given: WorkFailed) -> None:
    """Failed work stays first and is tried again, at growing distances: nothing goes on before it is done."""
    first, *rest = turn.state.work
    tries = first.tries + 1
    wait_s = turn.limits.work_retry_s * min(2 ** (tries - 1), 16)
    again = msgspec.structs.replace(first, tries=tries)
    text = f"{first.kind.value} failed: {given.text}"
    turn.set(work=[again, *rest], retry_s=turn.now_s + wait_s, work_error=text)


def _lease(turn: Turn) -> Lease:
    assert turn.state.lease is not None, "arming needs a lease"
    return turn.state.lease
