"""Nodes of rollouts beside what their operations show: where rows lag behind, and which orders can be called back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, exists, func, or_, select

from app.core.nodes import OperationState
from app.core.rollouts import RolloutNodeState, RolloutState
from app.core.slots import ARMED
from app.store.rollout_nodes import UNDER_WAY, RolloutNode, rollout_node_of
from app.store.schema import leases, nodes, operations, rollout_nodes, rollouts
from wire.messages import Phase, Result

_c = rollout_nodes.c
_W, _O, _M = RolloutNodeState.WAITING.value, RolloutNodeState.ORDERED.value, RolloutNodeState.MOVING.value
UNARMED = tuple(phase.value for phase in (Phase.IDLE, Phase.STAGING, Phase.STAGED))
"""Nothing is armed: an order can be taken back."""
_BEYOND = tuple(phase.value for phase in (*ARMED, Phase.SOAKING))
_STAGED = tuple(phase.value for phase in (Phase.STAGED, *ARMED, Phase.SOAKING))


@dataclass(frozen=True, slots=True)
class Seen:
    """A node of a rollout with what its operation shows now."""

    row: RolloutNode
    open: bool
    phase: Phase
    result: Result | None
    result_text: str
    cancel_asked: bool
    holds_lease: bool
    granted_at: float | None
    ended_at: float | None
    phase_at: float | None
    asked: bool
    """For a lease, at any time."""
    online: bool


_HOLDS_LEASE = exists().where(leases.c.operation_id == operations.c.id, leases.c.ended_at.is_(None))
_GRANTED_AT = select(func.max(leases.c.granted_at)).where(leases.c.operation_id == operations.c.id).scalar_subquery()
_OPEN = operations.c.state == OperationState.OPEN.value


def _seen_query(link: ColumnElement[str | None]) -> Select[Any]:
    return (
        select(
            rollout_nodes,
            nodes.c.name,
            operations.c.state.label("op_state"),
            operations.c.phase,
            operations.c.result.label("op_result"),
            operations.c.result_text,
            operations.c.cancel_asked_at,
            operations.c.ended_at.label("op_ended_at"),
            operations.c.phase_at,
            operations.c.lease_asked_at,
            nodes.c.connection,
            _HOLDS_LEASE.label("holds_lease"),
            _GRANTED_AT.label("granted_at"),
        )
        .join_from(rollout_nodes, nodes, nodes.c.id == _c.node_id)
        .join(operations, operations.c.id == link)
    )


def behind(conn: Connection, limit: int) -> list[Seen]:
    """Nodes whose rows do not say yet what their operations show, of all rollouts: what `observe` writes down."""
    return [_seen(row) for row in conn.execute(_behind(limit))]


@cache
def _behind(limit: int) -> Select[Any]:
    moved = and_(_OPEN, or_(_HOLDS_LEASE, operations.c.phase.in_(_BEYOND)))
    differs = or_(
        ~_OPEN,
        and_(_c.state == _W, operations.c.phase.in_(_BEYOND)),
        and_(_c.state == _O, moved),
        and_(_c.state == _M, _OPEN, ~_HOLDS_LEASE, operations.c.phase.in_(UNARMED)),
        and_(_c.state == _O, _c.staged_at.is_(None), operations.c.phase.in_(_STAGED)),
        and_(_c.state == _M, _c.confirmed_at.is_(None), operations.c.phase == Phase.SOAKING.value),
        and_(_c.state == _M, _c.confirmed_at.is_not(None), operations.c.phase == Phase.CONFIRMING.value),
    )
    query = _seen_query(_c.operation_id).where(_c.state.in_(UNDER_WAY), differs)
    return query.order_by(operations.c.id).limit(limit)


def back_ended(conn: Connection, limit: int) -> list[Seen]:
    """Nodes whose way back has ended and whose rows do not say so yet."""
    return [_seen(row) for row in conn.execute(_back_ended(limit))]


@cache
def _back_ended(limit: int) -> Select[Any]:
    query = _seen_query(_c.back_operation_id).where(_c.back_ended_at.is_(None), ~_OPEN)
    return query.order_by(operations.c.id).limit(limit)


def back_to_take_back(conn: Connection, limit: int) -> list[Seen]:
    """Nodes whose rollout was aborted while it sent them back, and whose orders to go back have armed nothing and have
    not been called back."""
    return [_seen(row) for row in conn.execute(_back_to_take_back(limit))]


@cache
def _back_to_take_back(limit: int) -> Select[Any]:
    aborted = exists().where(rollouts.c.id == _c.rollout_id, rollouts.c.state == RolloutState.ABORTED.value)
    query = _seen_query(_c.back_operation_id).where(
        _c.back_ended_at.is_(None),
        aborted,
        _OPEN,
        operations.c.phase.in_(UNARMED),
        operations.c.cancel_asked_at.is_(None),
    )
    return query.order_by(operations.c.id).limit(limit)


def to_take_back(conn: Connection, rollout_id: str, *, unused_leases_only: bool, limit: int) -> list[Seen]:
    """Nodes whose orders have armed nothing and have not been called back; those with a lease first."""
    query = _seen_query(_c.operation_id).where(
        _c.rollout_id == rollout_id,
        _c.state.in_(UNDER_WAY),
        _OPEN,
        operations.c.phase.in_(UNARMED),
        operations.c.cancel_asked_at.is_(None),
    )
    if unused_leases_only:
        query = query.where(_HOLDS_LEASE)
    return [_seen(row) for row in conn.execute(query.order_by(_HOLDS_LEASE.desc(), operations.c.id).limit(limit))]


def under_way(conn: Connection, rollout_id: str) -> list[Seen]:
    """Nodes with an open operation, by name."""
    query = _seen_query(_c.operation_id).where(_c.rollout_id == rollout_id, _c.state.in_(UNDER_WAY), _OPEN)
    return [_seen(row) for row in conn.execute(query.order_by(nodes.c.name, _c.node_id))]


def under_way_back(conn: Connection, rollout_id: str) -> list[Seen]:
    """Nodes with an open order to go back, by name."""
    query = _seen_query(_c.back_operation_id).where(_c.rollout_id == rollout_id, _c.back_ended_at.is_(None), _OPEN)
    return [_seen(row) for row in conn.execute(query.order_by(nodes.c.name, _c.node_id))]


def downloading(conn: Connection, rollout_id: str, since: float) -> int:
    """Orders that stage now: staging, or given since then and not begun."""
    query = (
        select(func.count())
        .select_from(rollout_nodes.join(operations, operations.c.id == _c.operation_id))
        .where(
            _c.rollout_id == rollout_id,
            _c.state == _O,
            _OPEN,
            or_(
                operations.c.phase == Phase.STAGING.value,
                and_(operations.c.phase == Phase.IDLE.value, operations.c.created_at >= since),
            ),
        )
    )
    return conn.execute(query).scalar_one()


def _seen(row: Row[Any]) -> Seen:
    return Seen(
        row=rollout_node_of(row),
        open=row.op_state == OperationState.OPEN.value,
        phase=Phase(row.phase),
        result=None if row.op_result is None else Result(row.op_result),
        result_text=row.result_text,
        cancel_asked=row.cancel_asked_at is not None,
        holds_lease=bool(row.holds_lease),
        granted_at=row.granted_at,
        ended_at=row.op_ended_at,
        phase_at=row.phase_at,
        asked=row.lease_asked_at is not None,
        online=row.connection == "online",
    )
