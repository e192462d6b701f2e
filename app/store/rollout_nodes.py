"""The nodes of rollouts as the conductor moves them along. Pages read app.store.rollout_cells.

Every change is a conditional update by the state that was seen: any number of conductors may try.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, delete, exists, func, insert, or_, select, update

from app.core.rollout_ends import Tally
from app.core.rollouts import TERMINAL, RolloutKind, RolloutNodeState, RolloutState
from app.store.schema import nodes, rollout_events, rollout_nodes, rollouts
from wire.messages import Result

_c = rollout_nodes.c
_W, _O, _M = RolloutNodeState.WAITING.value, RolloutNodeState.ORDERED.value, RolloutNodeState.MOVING.value
UNDER_WAY = (_W, _O, _M)
"""In these a node has not come to its end."""


@dataclass(frozen=True, slots=True)
class RolloutNode:
    """A node in a rollout; see the columns of app.store.tables.rollouts."""

    rollout_id: str
    node_id: str
    name: str
    state: RolloutNodeState
    wave: int
    canary: bool
    operation_id: str | None
    back_operation_id: str | None
    result: Result | None
    text: str
    hold: dict[str, Any] | None
    old_version: str
    old_digest: str
    old_slot: str
    staged_at: float | None
    moving_at: float | None
    confirmed_at: float | None
    ended_at: float | None
    back_at: float | None
    back_ended_at: float | None


def _query() -> Select[Any]:
    return select(rollout_nodes, nodes.c.name).join_from(rollout_nodes, nodes, nodes.c.id == _c.node_id)


def add(conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Nodes that come in, as columns; all have the same."""
    if rows:
        conn.execute(insert(rollout_nodes), rows)


def add_new(conn: Connection, rows: Sequence[dict[str, Any]]) -> list[str]:
    """As `add`, without those that are in it already; the ids of those that came in. The rollout's row is locked by the
    caller, so that nobody else takes them in."""
    if not rows:
        return []
    rollout_id, ids = rows[0]["rollout_id"], [row["node_id"] for row in rows]
    known = set(conn.execute(select(_c.node_id).where(_c.rollout_id == rollout_id, _c.node_id.in_(ids))).scalars())
    fresh = [row for row in rows if row["node_id"] not in known]
    add(conn, fresh)
    return [row["node_id"] for row in fresh]


def remove_all(conn: Connection, rollout_id: str) -> None:
    """Of a draft: its nodes are chosen anew."""
    conn.execute(delete(rollout_nodes).where(_c.rollout_id == rollout_id))


def get(conn: Connection, rollout_id: str, node_id: str) -> RolloutNode | None:
    row = conn.execute(_query().where(_c.rollout_id == rollout_id, _c.node_id == node_id)).one_or_none()
    return None if row is None else rollout_node_of(row)


def of_node(conn: Connection, node_id: str) -> list[RolloutNode]:
    """The node in all its rollouts, the newest rollout first."""
    rows = conn.execute(_query().where(_c.node_id == node_id).order_by(_c.rollout_id.desc()))
    return [rollout_node_of(row) for row in rows]


def in_states(
    conn: Connection, rollout_id: str, states: Collection[RolloutNodeState], *, wave: int | None = None
) -> list[RolloutNode]:
    query = _query().where(_c.rollout_id == rollout_id, _c.state.in_([state.value for state in states]))
    if wave is not None:
        query = query.where(_c.wave == wave)
    return [rollout_node_of(row) for row in conn.execute(query.order_by(_c.wave, nodes.c.name, _c.node_id))]


def all_of(conn: Connection, rollout_id: str) -> list[RolloutNode]:
    return in_states(conn, rollout_id, tuple(RolloutNodeState))


def node_ids(conn: Connection, rollout_id: str) -> set[str]:
    return set(conn.execute(select(_c.node_id).where(_c.rollout_id == rollout_id)).scalars())


def counts(conn: Connection, rollout_id: str) -> dict[RolloutNodeState, int]:
    """Every state, also those without nodes."""
    rows = conn.execute(select(_c.state, func.count()).where(_c.rollout_id == rollout_id).group_by(_c.state))
    return dict.fromkeys(RolloutNodeState, 0) | {RolloutNodeState(state): count for state, count in rows}


def last_wave(conn: Connection, rollout_id: str) -> int:
    found: int | None = conn.execute(select(func.max(_c.wave)).where(_c.rollout_id == rollout_id)).scalar_one()
    return found or 0


def change(conn: Connection, row: RolloutNode, **values: Any) -> bool:
    """Set columns, unless the node has got into another state meanwhile; whether this call set them."""
    changed = conn.execute(
        update(rollout_nodes)
        .where(
            _c.rollout_id == row.rollout_id,
            _c.node_id == row.node_id,
            _c.state == row.state.value,
            _c.operation_id.is_(None) if row.operation_id is None else _c.operation_id == row.operation_id,
            _c.back_operation_id.is_(None)
            if row.back_operation_id is None
            else _c.back_operation_id == row.back_operation_id,
        )
        .values(**values)
    )
    return changed.rowcount == 1


# --- what the conductor looks for ---------------------------------------------------------------------------

MOVED = or_(
    _c.state.in_((_M, RolloutNodeState.DONE.value, RolloutNodeState.FAILED.value)),
    and_(_c.state == RolloutNodeState.LEFT.value, _c.moving_at.is_not(None)),
)
"""It may run what the rollout led to: also one that left under its lease, as when another order took it on trial."""


def not_ended(conn: Connection, rollout_id: str) -> int:
    """Nodes that have not come to their end."""
    query = select(func.count()).select_from(rollout_nodes)
    return conn.execute(query.where(_c.rollout_id == rollout_id, _c.state.in_(UNDER_WAY))).scalar_one()


def to_send_back(conn: Connection, rollout_id: str, limit: int) -> list[RolloutNode]:
    """Nodes that moved and of which nobody has said yet that they are back or need not go; those that can be told now
    first, so that many who are away do not keep the others."""
    query = _query().where(
        _c.rollout_id == rollout_id, MOVED, _c.back_operation_id.is_(None), _c.back_ended_at.is_(None)
    )
    in_order = query.order_by(nodes.c.connection != "online", _c.moving_at.desc(), _c.node_id)
    return [rollout_node_of(row) for row in conn.execute(in_order.limit(limit))]


def moved(conn: Connection, rollout_id: str, *, wave: int | None = None) -> list[RolloutNode]:
    """Nodes that may run what the rollout led to."""
    query = _query().where(_c.rollout_id == rollout_id, MOVED)
    if wave is not None:
        query = query.where(_c.wave == wave)
    return [rollout_node_of(row) for row in conn.execute(query.order_by(_c.wave, nodes.c.name, _c.node_id))]


def forth_though_back(conn: Connection, operation_ids: Collection[str]) -> set[str]:
    """Those of these operations that would take a node forth in a rollout that is rolling back."""
    rolling_back = rollouts.c.state == RolloutState.ROLLING_BACK.value
    query = select(_c.operation_id).join(rollouts, rollouts.c.id == _c.rollout_id).where(rolling_back)
    return {row[0] for row in conn.execute(query.where(_c.operation_id.in_(operation_ids)))}


def going_back(conn: Connection, rollout_id: str) -> int:
    """Nodes that still have to come back."""
    query = select(func.count()).where(
        _c.rollout_id == rollout_id, _c.back_ended_at.is_(None), or_(MOVED, _c.back_operation_id.is_not(None))
    )
    return conn.execute(query).scalar_one()


def tally(conn: Connection, rollout_id: str, since: int | None) -> Tally:
    """What judging needs; failures that the history tells before its event `since` are forgiven. (Not by time, for the
    server's clock may be set back.)"""
    moved = (_c.moving_at.is_not(None)) | (_c.state == RolloutNodeState.FAILED.value)
    attempted = conn.execute(select(func.count()).where(_c.rollout_id == rollout_id, moved)).scalar_one()
    query = _query().where(
        _c.rollout_id == rollout_id,
        or_(
            _c.state == RolloutNodeState.FAILED.value,
            and_(_c.state == RolloutNodeState.LEFT.value, _c.canary, _c.result == Result.REFUSED.value),
        ),
    )
    if since is not None:
        told = rollout_events.c.rollout_id == rollout_id, rollout_events.c.node_id == _c.node_id
        query = query.where(exists().where(*told, rollout_events.c.id > since))
    ends = [rollout_node_of(row) for row in conn.execute(query.order_by(_c.ended_at.desc(), _c.node_id))]
    failed = [row for row in ends if row.state is RolloutNodeState.FAILED]
    unreachable = [row for row in failed if row.result is Result.UNREACHABLE]
    return Tally(
        attempted=attempted,
        failed=len(failed),
        canaries_failed=tuple(row.name for row in failed if row.canary and row not in unreachable),
        canaries_refused=tuple(row.name for row in ends if row.canary and row.state is RolloutNodeState.LEFT),
        first_failure=f"{failed[0].name}: {failed[0].text}" if failed else "",
        unreachable=len(unreachable),
        canaries_unreachable=tuple(row.name for row in unreachable if row.canary),
    )


def canaries(conn: Connection, rollout_id: str) -> list[RolloutNode]:
    query = _query().where(_c.rollout_id == rollout_id, _c.canary)
    return [rollout_node_of(row) for row in conn.execute(query.order_by(nodes.c.name, _c.node_id))]


def next_for_canary(conn: Connection, rollout_id: str, limit: int, *, after: int = 0) -> list[RolloutNode]:
    """Nodes that can take the place of a canary that left: those that are connected first, then by wave. One that is
    not connected is better than none, which would open the gate to all. `after`: without so many of the first."""
    query = _query().where(_c.rollout_id == rollout_id, ~_c.canary, _c.state.in_((_W, _O)))
    in_order = query.order_by(nodes.c.connection != "online", _c.wave, nodes.c.name, _c.node_id)
    return [rollout_node_of(row) for row in conn.execute(in_order.limit(limit).offset(after))]


def under_way_back(conn: Connection) -> dict[str, int]:
    """Node id → number of the rollout that was made to send it back and has not done so yet."""
    query = (
        select(_c.node_id, rollouts.c.number)
        .join(rollouts, rollouts.c.id == _c.rollout_id)
        .where(
            rollouts.c.kind == RolloutKind.ROLLBACK.value,
            rollouts.c.state.not_in([state.value for state in TERMINAL]),
            _c.state.in_(UNDER_WAY),
        )
    )
    return {row[0]: row[1] for row in conn.execute(query)}


def leave_waiting(conn: Connection, rollout_id: str, text: str, now: float) -> int:
    """All that wait and have no order leave; how many."""
    left = conn.execute(
        update(rollout_nodes)
        .where(_c.rollout_id == rollout_id, _c.state == _W, _c.operation_id.is_(None))
        .values(state=RolloutNodeState.LEFT.value, text=text, hold=None, ended_at=now)
    )
    return left.rowcount


def count_left(conn: Connection, rollout_id: str, text: str) -> int:
    """Nodes that left it with these words."""
    left = _c.state == RolloutNodeState.LEFT.value
    return conn.execute(select(func.count()).where(_c.rollout_id == rollout_id, left, _c.text == text)).scalar_one()


def write_holds(conn: Connection, rollout_id: str, holds: Iterable[tuple[str, dict[str, Any] | None]]) -> None:
    """Why nodes wait: (node id, hold as JSON), for nodes that have not been ordered."""
    for node_id, hold in holds:
        conn.execute(
            update(rollout_nodes)
            .where(_c.rollout_id == rollout_id, _c.node_id == node_id, _c.state == _W)
            .values(hold=hold)
        )


def rollout_node_of(row: Row[Any]) -> RolloutNode:
    return RolloutNode(
        rollout_id=row.rollout_id,
        node_id=row.node_id,
        name=row.name,
        state=RolloutNodeState(row.state),
        wave=row.wave,
        canary=row.canary,
        operation_id=row.operation_id,
        back_operation_id=row.back_operation_id,
        result=None if row.result is None else Result(row.result),
        text=row.text,
        hold=row.hold,
        old_version=row.old_version,
        old_digest=row.old_digest,
        old_slot=row.old_slot,
        staged_at=row.staged_at,
        moving_at=row.moving_at,
        confirmed_at=row.confirmed_at,
        ended_at=row.ended_at,
        back_at=row.back_at,
        back_ended_at=row.back_ended_at,
    )
