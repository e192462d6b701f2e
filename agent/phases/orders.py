"""Desired states: the newest wins, nothing is run twice, and nothing armed is torn away."""

from __future__ import annotations

import msgspec

from agent.phases.inputs import Instructed
from agent.phases.model import Ended, Remaining, State, Step, WorkKind
from agent.phases.turn import Turn
from wire.messages import Desired, Operation, OperationKind, OperationReport, Result

AT_ONCE = frozenset({OperationKind.ROLLBACK, OperationKind.DISARM, OperationKind.RESCUE})
"""Taken while another operation soaks; all others wait until its soak is over."""


def take_now(turn: Turn, given: Instructed) -> None:
    """Nothing is under way: begin."""
    if _admit(turn, given):
        begin(turn, given.desired, given.distrust)


def supersede(turn: Turn, given: Instructed) -> None:
    """The current operation has armed nothing: it gives way at once."""
    if not _admit(turn, given):
        return
    _cancel(turn, given.desired.operation)
    begin(turn, given.desired, given.distrust)


def supersede_unless_armed(turn: Turn, given: Instructed) -> None:
    """While the witnesses are noted nothing is armed yet; after that the current operation finishes first."""
    unarmed = not turn.state.armed and all(work.kind is WorkKind.PROBE for work in turn.state.work)
    (supersede if unarmed else wait)(turn, given)


def supersede_soak(turn: Turn, given: Instructed) -> None:
    """Going back, disarming and rescuing do not wait for the end of a soak."""
    operation = given.desired.operation
    if operation is not None and _at_once(turn.state, operation) and not _ended(turn.state, operation.id):
        if _admit(turn, given):
            _protect_unsoaked(turn)
            _cancel(turn, operation)
            begin(turn, given.desired, given.distrust)
    else:
        wait(turn, given)


def wait(turn: Turn, given: Instructed) -> None:
    """The current operation finishes first; only the newest desired state is kept."""
    if _admit(turn, given):
        turn.set(pending=given.desired, pending_distrust=given.distrust)


def take_pending(turn: Turn) -> None:
    """The operation before has ended: begin what waited for that."""
    desired, distrust = turn.state.pending, turn.state.pending_distrust
    if desired is not None and not turn.state.work:
        begin(turn, desired, distrust)


def take_pending_at_once(turn: Turn) -> None:
    """A soak has begun: what need not wait for its end is taken now."""
    operation = turn.state.pending.operation if turn.state.pending is not None else None
    if operation is not None and _at_once(turn.state, operation) and _ended(turn.state, operation.id) is None:
        give_way(turn)


def rescue_waits(state: State) -> bool:
    """Whether a person has confirmed the slot on trial as it is: it is marked good, whatever checks say."""
    operation = state.pending.operation if state.pending is not None else None
    return operation is not None and operation.kind is OperationKind.RESCUE and _ended(state, operation.id) is None


def give_way(turn: Turn) -> None:
    """The current operation ends, what waits is begun."""
    desired, distrust = turn.state.pending, turn.state.pending_distrust
    assert desired is not None, "something waits"
    _protect_unsoaked(turn)
    _cancel(turn, desired.operation)
    begin(turn, desired, distrust)


def _at_once(state: State, operation: Operation) -> bool:
    """Whether it takes the place of a soak. A way back that was withdrawn is needed until the soak is over."""
    way_back = state.way_back
    named = operation.image is not None and way_back is not None and operation.image.digest == way_back.digest
    return operation.kind in AT_ONCE and not (operation.kind is OperationKind.DISARM and named)


def begin(turn: Turn, desired: Desired, distrust: str) -> None:
    """Take the operation, unless there is none or it has ended here; what waited is older and forgotten."""
    turn.set(pending=None, pending_distrust="")
    operation = desired.operation
    if operation is None:
        return
    ended = _ended(turn.state, operation.id)
    if ended is not None:
        _report_again(turn, ended)
        return
    turn.set(operation=operation, order=desired.order, distrust=distrust, step=Step.HELD, hold=None)


def _admit(turn: Turn, given: Instructed) -> bool:
    """Whether this is news: newer than all before, and another operation than the current one."""
    desired, newest = given.desired, turn.state.newest
    if newest is not None and desired.order < newest:
        _refuse(turn, desired)
        return False
    fresh = newest is None or desired.order > newest
    if fresh:  # said again, it may have failed again since
        _clear(turn, desired.cleared_digests)
    turn.set(newest=desired.order)
    current, operation = turn.state.operation, desired.operation
    if current is not None and operation is not None and operation.id == current.id:
        _refresh(turn, current, operation)
        turn.set(order=desired.order, pending=None, pending_distrust="")
        return False
    if not fresh:
        ended = _ended(turn.state, operation.id) if operation is not None else None
        if ended is not None:
            _report_again(turn, ended)
    return fresh


def _refuse(turn: Turn, desired: Desired) -> None:
    if turn.state.refused == desired.order:
        return
    turn.set(refused=desired.order)
    newest = turn.state.newest
    assert newest is not None
    turn.event(
        "order-refused",
        f"Refused an order ({desired.order.epoch}.{desired.order.generation}): it is older than the newest seen here "
        f"({newest.epoch}.{newest.generation})",
        operation_id=desired.operation.id if desired.operation else None,
    )


def _refresh(turn: Turn, current: Operation, again: Operation) -> None:
    """The operation stays as it is; where its image comes from, and how fast, counts as said last."""
    ways = {"mirrors": again.mirrors, "bandwidth_bytes_s": again.bandwidth_bytes_s}
    current = msgspec.structs.replace(current, **ways)
    turn.set(operation=current)
    if current.image is None or again.image is None or current.image.digest != again.image.digest:
        return
    if current.image.url != again.image.url:
        image = msgspec.structs.replace(current.image, url=again.image.url)
        turn.set(operation=msgspec.structs.replace(current, image=image))
        if turn.state.step is Step.RETRYING:
            turn.set(retry_s=turn.now_s)


def _clear(turn: Turn, digests: list[str]) -> None:
    if digests:
        turn.set(failed=[failed for failed in turn.state.failed if failed.digest not in digests])


def _ended(state: State, operation_id: str) -> Ended | None:
    return next((ended for ended in state.ended if ended.operation_id == operation_id), None)


def _report_again(turn: Turn, ended: Ended) -> None:
    """The server asks for what has ended here: say so again, unless that is already on its way."""
    waiting = any(
        isinstance(item, OperationReport) and item.operation_id == ended.operation_id for item in turn.state.outbox
    )
    if not waiting:
        turn.report(ended)


def _cancel(turn: Turn, successor: Operation | None) -> None:
    reason = "cancelled by the control plane" if successor is None else f"superseded by {successor.id}"
    touched = turn.state.step not in (Step.HELD, Step.CONFIRMING, Step.SOAKING)
    turn.return_lease(reason)
    turn.drop_work()
    turn.end(Result.CANCELLED, reason)
    if touched:
        turn.queue(WorkKind.DISARM)


def _protect_unsoaked(turn: Turn) -> None:
    """A soak that is cut short, or never begun, still counts before the way back may be written."""
    way_back, trial, operation = turn.state.way_back, turn.state.trial, turn.operation
    if way_back is None or trial is None or operation.kind is OperationKind.REBOOT:
        return
    begun = turn.state.step is Step.SOAKING
    soak_s = max(0.0, trial.until_s - turn.now_s) if begun else operation.soak_s
    left = Remaining(left_s=soak_s + operation.keep_way_back_s, as_of_s=turn.now_s)
    turn.set(way_back=msgspec.structs.replace(way_back, left=left))
