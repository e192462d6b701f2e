"""Nodes that leave a rollout before they moved, and canaries that take the place of those that did."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from app.core.actors import CONDUCTOR, Actor
from app.core.errors import NotPossible
from app.core.holds import Hold
from app.core.rollout_ends import END_WORDS
from app.core.rollout_entry import Targets
from app.core.rollouts import TERMINAL, RolloutNodeState, RolloutState
from app.core.slots import ARMED
from app.services.orders import locked_node, withdraw
from app.services.rollout_acting import RolloutEventKind, record, tell, touch
from app.store import canary_clocks, operations, rollout_facts, rollout_nodes, rollouts
from app.store.database import Change
from app.store.rollout_nodes import RolloutNode
from app.store.rollout_seen import Seen
from app.store.rollouts import Rollout
from wire.messages import Phase, Result

_STOPPED = TERMINAL | {RolloutState.ROLLING_BACK}
_LOOKED_AT = 200
"""Nodes that are thought of at once."""
_MOST_NAMED = 3
"""Nodes that leave at once, each with a line of its own: of more, one line says how many."""
_UNDER_WAY = (RolloutNodeState.WAITING, RolloutNodeState.ORDERED, RolloutNodeState.MOVING)


def leave(
    change: Change, actor: Actor, rollout: Rollout, row: RolloutNode, text: str, now: float, hold: Hold | None = None
) -> None:
    """The node leaves the locked rollout, its order is taken back; NotPossible when it is armed or at its end.

    `hold`: it comes in again when that is over.
    """
    if row.state not in _UNDER_WAY:
        words = {RolloutNodeState.LEFT: "has left the rollout already"}.get(row.state, f"is {row.state.value} already")
        raise NotPossible("at-its-end", f"{row.name} {words}.")
    _take_order(change, actor, row, text, now)
    values = {
        "state": RolloutNodeState.LEFT.value,
        "text": text,
        "hold": hold_json(hold),
        "canary": False,
        "ended_at": now,
    }
    if not rollout_nodes.change(change.conn, row, **values):
        raise NotPossible("changed", f"{row.name} got further at this moment; look again.")
    touch(change, rollout.id)
    if row.canary:
        promote(change, rollout, 1, now)


def tell_left(change: Change, rollout: Rollout, why: str, rows: Sequence[RolloutNode], now: float) -> None:
    """In its history: nodes that left for one reason, by name while they are few."""
    if len(rows) > _MOST_NAMED:
        text = f"{len(rows):,} nodes left, each because {why}"
        tell(change, rollout, RolloutEventKind.NODE_LEFT, text, now)
        return
    for row in rows:
        tell(change, rollout, RolloutEventKind.NODE_LEFT, f"{row.name} left: {why}", now, node_id=row.node_id)


def stopped_before(rollout: Rollout) -> str:
    """What is said of a node that was to move, and stays as it is because its rollout was stopped for good."""
    return f"{rollout.name} was stopped before it moved"


_SENT_BACK = "it was sent back before it had soaked"


def end_text(rollout: Rollout, seen: Seen, result: Result) -> str:
    """How its order ended, as its row says."""
    words = END_WORDS.get(result, "")
    if result is Result.CANCELLED and rollout.state in _STOPPED:
        if seen.row.confirmed_at is None and seen.phase is not Phase.SOAKING:
            return stopped_before(rollout)
        if seen.row.back_operation_id is not None:
            return _SENT_BACK
    return f"{words}: {seen.result_text}" if words and seen.result_text else words or seen.result_text


def tell_end(change: Change, rollout: Rollout, row: RolloutNode, text: str, now: float) -> None:
    """In its history: a node that left as its row says; who stays is counted by `tell_stayed`, who goes back did not
    leave."""
    if text not in (stopped_before(rollout), _SENT_BACK):
        tell_left(change, rollout, text, [row], now)


def tell_stayed(change: Change, rollout: Rollout, now: float) -> None:
    """In its history: how many these are, in one line that counts on while their orders are called back."""
    nodes = rollout_nodes.count_left(change.conn, rollout.id, stopped_before(rollout))
    text = f"{nodes:,} nodes left: {rollout.name} was stopped before they moved"
    if nodes == 1:
        text = f"1 node left: {stopped_before(rollout)}"
    rollouts.put_event(change.conn, rollout.id, RolloutEventKind.STAYED.value, text, now)
    touch(change, rollout.id)


def _take_order(change: Change, actor: Actor, row: RolloutNode, text: str, now: float) -> None:
    if row.operation_id is None:
        return
    node = locked_node(change, row.node_id)
    operation = operations.get(change.conn, row.operation_id, lock=True)
    if operation is None or not operation.open:
        return
    if operation.phase in ARMED or operation.phase is Phase.SOAKING or operation.holds_lease:
        raise NotPossible("too-late", f"{row.name} may reboot at any moment, or has: it finishes what it began.")
    if operation.cancel_asked_at is None:
        withdraw(change, actor, node, operation, text, now)


def replace_canaries(change: Change, rollout: Rollout, now: float, *, failed_too: bool = False) -> None:
    """Canaries that left without proving the version (with `failed_too`: or that failed, and an operator goes on)
    are none any more; others take their place, so that the gate stays shut until somebody has proved it. In a
    rollout that has stopped they stay what they were."""
    if rollout.state in _STOPPED:
        return
    gone = [row for row in rollout_nodes.canaries(change.conn, rollout.id) if _unproved(row, failed_too)]
    for row in gone:
        rollout_nodes.change(change.conn, row, canary=False)
    if gone:
        promote(change, rollout, len(gone), now)


def _unproved(row: RolloutNode, failed_too: bool) -> bool:
    if row.state is RolloutNodeState.LEFT:
        return failed_too or row.result is not Result.REFUSED  # a refusal is judged: it stops the rollout
    return failed_too and row.state is RolloutNodeState.FAILED


def promote(change: Change, rollout: Rollout, count: int, now: float) -> None:
    """So many more nodes are canaries, as far as there are any that have not moved; what has stopped needs none."""
    if rollout.state in _STOPPED:
        return
    chosen = _next(change.conn, rollout, count, now)
    for row in chosen:
        rollout_nodes.change(change.conn, row, canary=True)
        text = f"{row.name} is a canary now, instead of one that left"
        tell(change, rollout, RolloutEventKind.CANARY, text, now, node_id=row.node_id)
    if chosen:
        after = {"nodes": [row.node_id for row in chosen]}
        record(change, CONDUCTOR, "canaries", rollout, "instead of canaries that left", None, after, now)
    canary_clocks.stop(change.conn, rollout.id)


def _next(conn: Connection, rollout: Rollout, count: int, now: float) -> list[RolloutNode]:
    """Those that only a person could let move are passed over, as far as there are others: all would wait for them."""
    targets = rollout_facts.targets(conn, rollout.targets)
    entry = Targets(rollout.kind, targets, allow_downgrade=rollout.allow_downgrade)
    digests = [target.digest for target in targets]
    reader = rollout_facts.Reader(conn, digests, rollout.policy.absent_after_s, now)
    able: list[RolloutNode] = []
    first: list[RolloutNode] = []
    looked_at = 0
    while len(able) < count:
        rows = rollout_nodes.next_for_canary(conn, rollout.id, _LOOKED_AT, after=looked_at)
        barred = {one.id for one in reader.of([row.node_id for row in rows]) if entry.standing_hold(one) is not None}
        able += [row for row in rows if row.node_id not in barred]
        first = first or rows
        looked_at += len(rows)
        if len(rows) < _LOOKED_AT:
            break
    return (able or first)[:count]


def hold_json(hold: Hold | None) -> dict[str, object] | None:
    """A hold as rollout_nodes keep it."""
    if hold is None:
        return None
    return {"code": hold.code.value, "text": hold.text, "subject": hold.subject, "until": hold.until}
