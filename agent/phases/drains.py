"""Draining: the node's own executable moves services away before the reboot, and lets them come back after it.

What was begun is on disk before it begins (`State.drained`), and is undone in every step from which no reboot
follows, until that has succeeded: a node that stays drained serves nothing and nobody would notice.
"""

from __future__ import annotations

import msgspec

from agent.phases.inputs import WorkDone, WorkFailed
from agent.phases.model import Drained, Lease, WorkKind
from agent.phases.turn import Turn
from agent.phases.words import asked
from wire.messages import Check, Hold, OperationKind

ARMING_S = 15.0
"""Of a lease, kept free of draining: witnesses take up to 10 s, marking the slot a moment."""
UNDRAIN_LIMIT_S = 60.0
"""Undraining only tells the orchestrator; it keeps other work waiting, also on a node that soaks."""
WAY_BACK = frozenset({OperationKind.ROLLBACK, OperationKind.DISARM, OperationKind.RESCUE})
"""A node that cannot be undrained begins nothing else than these (rule 7)."""


def wanted(turn: Turn) -> bool:
    """Whether to drain now: not while another executable's draining could not be undone."""
    left, script = turn.state.drained, turn.operation.drain
    return bool(script) and (left is None or left.script == script)


def time_left_s(turn: Turn, lease: Lease) -> float:
    """How long draining may take under this lease; 0 or less: it must not begin."""
    return min(turn.operation.drain_s, lease.until_s - turn.now_s - ARMING_S)


def begin(turn: Turn, lease: Lease) -> None:
    """Run the operation's executable, within its limit and within the lease."""
    operation = turn.operation
    drained = Drained(script=operation.drain, limit_s=operation.drain_s, operation_id=operation.id)
    turn.set(drained=drained)
    limit_s = time_left_s(turn, lease)
    turn.queue(WorkKind.DRAIN, script=operation.drain, limit_s=limit_s, not_after_s=lease.until_s - ARMING_S)


def drained(turn: Turn, given: WorkDone) -> None:
    """It has succeeded."""
    turn.set(drain_tries=0)
    turn.event("drained", f"Drained by {_worded(turn.operation.drain)} for the {asked(turn.state)}", checks=_of(given))


def note_failure(turn: Turn, given: WorkFailed) -> None:
    """Say why, and when it is tried again. The lease and what was begun are somebody else's."""
    tries = turn.state.drain_tries + 1
    turn.event("drain-failed", f"Could not drain for the {asked(turn.state)}: {given.text}", checks=_of(given))
    turn.set(drain_tries=tries, ask_s=turn.now_s + _backoff_s(turn, tries), hold=_hold(given.text))


def refuse_short(turn: Turn, lease: Lease) -> None:
    """The lease leaves no time to drain: the same as a failure, without an event each time."""
    tries = turn.state.drain_tries + 1
    length_s = lease.until_s - turn.now_s
    text = (
        f"{_worded(turn.operation.drain)} has no time: {turn.operation.drain_s:.0f} s, in a lease of {length_s:.0f} s"
    )
    turn.set(drain_tries=tries, ask_s=turn.now_s + _backoff_s(turn, tries), hold=_hold(text))


def unwind(turn: Turn) -> bool:
    """Undrain when that is due; whether the step has to wait for it.

    Not while a person has to look at the booted slot: nothing should come back to that.
    """
    state = turn.state
    left = state.drained
    if left is None or state.work or (state.booted is not None and state.booted.stuck):
        return False
    if left.again_s is None or turn.now_s >= left.again_s:
        turn.queue(WorkKind.UNDRAIN, script=left.script, limit_s=min(left.limit_s, UNDRAIN_LIMIT_S))
        return True
    return state.operation is not None and state.operation.kind not in WAY_BACK


def undrained(turn: Turn, given: WorkDone) -> None:
    left = turn.state.drained
    if left is not None:
        turn.set(drained=None)
        text = f"Undrained by {_worded(left.script)}"
        turn.event("undrained", text, operation_id=left.operation_id, checks=_of(given))


def undrain_failed(turn: Turn, given: WorkFailed) -> None:
    """Tried again for ever, and shown; the history keeps the first time."""
    turn.set(work=turn.state.work[1:], retry_s=None, work_error="")
    left = turn.state.drained
    if left is None:
        return
    if not left.failed:
        text = f"Could not undrain: {given.text}"
        turn.event("undrain-failed", text, operation_id=left.operation_id, checks=_of(given))
    again_s = turn.now_s + _backoff_s(turn, left.failed + 1)
    turn.set(drained=msgspec.structs.replace(left, failed=left.failed + 1, error=given.text, again_s=again_s))


def _hold(text: str) -> Hold:
    return Hold(code="drain-failed", text=f"could not drain: {text}; tried again later")


def _backoff_s(turn: Turn, tries: int) -> float:
    return min(turn.limits.drain_backoff_s * 2.0 ** min(tries - 1, 16), turn.limits.drain_backoff_most_s)


def _worded(script: str) -> str:
    return f"drain.d/{script}"


def _of(given: WorkDone | WorkFailed) -> list[Check]:
    return [given.check] if given.check is not None else []
