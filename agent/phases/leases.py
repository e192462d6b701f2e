"""From a lease to the reboot: drain, arm, look at the lease again, reboot."""

from __future__ import annotations

import msgspec

from agent.evidence import Expected
from agent.phases import drains, guard
from agent.phases.gates import in_place, slots_unclear
from agent.phases.inputs import WorkFailed
from agent.phases.model import Lease, Step, WorkKind, booted, lease_lives, passive
from agent.phases.turn import Turn
from agent.phases.words import asked
from wire.messages import OperationKind, Result

ARM_TRIES = 3
"""A tool that hangs for a moment is forgiven; one that refuses three times will refuse a fourth."""
LEASE_ENDED = "lease-ended"
"""Code of WorkFailed when the runner found the lease over directly before the work."""


def settle_draining(turn: Turn) -> None:
    """DRAINING: what forbids to go on ends it at once; when it is done, the slot is armed."""
    obstacle = _obstacle(turn, "draining was over")
    if obstacle or not in_place(turn.state):
        call_off(turn, obstacle or "the slot does not hold any more what was staged")
    elif not turn.state.work:
        begin_arming(turn)


def drain_failed(turn: Turn, given: WorkFailed) -> None:
    """DRAINING: the lease goes back; READY undrains, waits, and asks again."""
    over = given.code == LEASE_ENDED
    call_off(turn, "the lease ran out before draining" if over else f"draining failed: {given.text}")
    if not over:
        drains.note_failure(turn, given)


def begin_arming(turn: Turn) -> None:
    """The lease is in hand: note what the next boot must show, and who answers before it."""
    operation = turn.operation
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
        expected=expected,
        armed=False,
        witnesses={},
        rebooted_s=None,
        origin_confirmed=facts is not None and facts.confirmed,
    )
    turn.queue(WorkKind.PROBE)


def arm(turn: Turn) -> None:
    """ARMING: the witnesses are noted, then the slot is armed, then the lease is looked at once more."""
    state = turn.state
    if state.work:
        alive = lease_lives(state, turn.now_s)
        if not alive and (state.retry_s is not None or state.work[0].kind is WorkKind.PROBE):
            unarm(turn, "the lease ran out before arming")
        return
    if obstacle := _obstacle(turn, "the reboot"):
        unarm(turn, obstacle)
    elif not state.armed:
        _queue_arm(turn)
    else:
        turn.set(step=Step.REBOOTING, rebooted_s=None)
        turn.queue(WorkKind.REBOOT, not_after_s=_lease(turn).until_s)


def _obstacle(turn: Turn, what: str) -> str:
    """Why nothing may go on under the lease in hand; empty when it may."""
    state = turn.state
    if not lease_lives(state, turn.now_s):
        return f"the lease ran out before {what}"
    if state.inhibitors:
        return "reboots are inhibited on the node: " + ", ".join(state.inhibitors)
    objection = guard.objection(state)
    return slots_unclear(state) or (objection.text if objection is not None else "")


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
    call_off(turn, reason)
    turn.queue(WorkKind.DISARM)


def call_off(turn: Turn, reason: str) -> None:
    """Nothing was armed: the lease goes back, ready as before. What was drained is undrained there."""
    objection = guard.objection(turn.state)
    turn.return_lease(reason)
    turn.drop_work()
    turn.set(step=Step.READY, hold=objection, expected=None, armed=False, rebooted_s=None, asking=None, ask_s=None)


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
