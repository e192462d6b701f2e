"""Canaries that say themselves why they do not begin: others take their place. A step of the conductor.

They go on as ordinary nodes of their rollout when their own hold is over, which may be never: one that went through a
bad update keeps its way back without end.
"""

from __future__ import annotations

from sqlalchemy import Connection

from app.core.actors import CONDUCTOR
from app.core.holds import HoldCode
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services.rollout_acting import RolloutEventKind, record, tell
from app.services.rollout_waiting import UNTIL_ITS_END
from app.store import canary_clocks, operation_clocks, operations, rollout_nodes, rollouts
from app.store.database import Change, Database, Priority
from app.store.rollout_nodes import RolloutNode
from app.store.rollouts import Rollout

_PATIENCE_S = 120.0
"""An order that has not begun by then is held: most begin within seconds, and a slot is confirmed within a minute."""
_LOOKED_AT = 200
"""Nodes that are thought of as the next canary at once; where all of these are held, so many more."""
_LASTING = UNTIL_ITS_END | {
    HoldCode.NOT_COMMANDABLE,
    HoldCode.OFFLINE,
    HoldCode.OTHER_ROLLOUT,
    HoldCode.KEEPING_WAY_BACK,
}
"""No better than the hold of the canary whose place it would take."""


def replace_held(db: Database, now: float) -> int:
    """Canaries of running rollouts that are held on the node itself give their place to nodes that are not, as far as
    there are any: no gate opens for want of a canary. How many did."""
    with db.read() as conn:
        due = [one for one in rollouts.in_states(conn, (RolloutState.RUNNING,)) if _held_canaries(conn, one, now)]
    return sum(_replace(db, rollout.id, now) for rollout in due)


def _replace(db: Database, rollout_id: str, now: float) -> int:
    with db.write(Priority.BACKGROUND) as change:
        rollout = rollouts.get(change.conn, rollout_id, lock=True)
        if rollout is None or rollout.state is not RolloutState.RUNNING:
            return 0
        held = _held_canaries(change.conn, rollout, now)
        able = _able(change.conn, rollout, len(held))
        pairs = list(zip(held, able, strict=False))
        for row, other in pairs:
            _swap(change, rollout, row, other, now)
        if pairs:
            canary_clocks.stop(change.conn, rollout.id)
            before, after = ({"canaries": [pair[side].node_id for pair in pairs]} for side in (0, 1))
            record(change, CONDUCTOR, "canaries", rollout, "", before, after, now)
        return len(pairs)


def _held_canaries(conn: Connection, rollout: Rollout, now: float) -> list[RolloutNode]:
    ordered = [row for row in rollout_nodes.canaries(conn, rollout.id) if row.state is RolloutNodeState.ORDERED]
    return _held(conn, ordered, now)


def _held(conn: Connection, rows: list[RolloutNode], now: float | None) -> list[RolloutNode]:
    """Those whose nodes hold their orders; with `now`: that were given some time ago."""
    given = {row.operation_id: row for row in rows if row.operation_id is not None}
    found = [one for id in given if (one := operations.get(conn, id)) is not None and one.open]
    if now is not None:
        found = [one for one in found if now - one.created_at > _PATIENCE_S]
    held = operation_clocks.held_by_nodes(conn, found)
    return [row for operation_id, row in given.items() if operation_id in held]


def _able(conn: Connection, rollout: Rollout, count: int) -> list[RolloutNode]:
    """Nodes that nothing is known to hold, those that are to be preferred first; no more than `count`."""
    able: list[RolloutNode] = []
    looked_at = 0
    while len(able) < count:
        rows = rollout_nodes.next_for_canary(conn, rollout.id, _LOOKED_AT, after=looked_at)
        found = [row for row in rows if row.hold is None or row.hold["code"] not in _LASTING]
        held = {row.node_id for row in _held(conn, found, None)}
        able += [row for row in found if row.node_id not in held]
        looked_at += len(rows)
        if len(rows) < _LOOKED_AT:
            break
    return able[:count]


def _swap(change: Change, rollout: Rollout, row: RolloutNode, other: RolloutNode, now: float) -> None:
    rollout_nodes.change(change.conn, row, canary=False)
    rollout_nodes.change(change.conn, other, canary=True)
    text = f"{other.name} is a canary now, instead of {row.name}, which is held on the node itself"
    tell(change, rollout, RolloutEventKind.CANARY, text, now, node_id=other.node_id)
