"""Nodes that something is about to move forth and that have not moved: what windows and freezes hold back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, exists, or_, select

from app.core.rollouts import TERMINAL, RolloutKind, RolloutNodeState, RolloutState
from app.store.schema import nodes, operations, rollout_nodes, rollouts
from wire.messages import OperationKind, Phase


@dataclass(frozen=True, slots=True)
class PendingMove:
    node_id: str
    name: str
    labels: Mapping[str, str]
    by: str
    """“rollout 2”, “the order of ana”."""
    group_id: str | None
    """The group that its rollout is about."""


_NOT_MOVED = (RolloutNodeState.WAITING.value, RolloutNodeState.ORDERED.value)
_FORTH = (OperationKind.ACTIVATE.value, OperationKind.REBOOT.value)
_UNARMED = (Phase.IDLE.value, Phase.STAGING.value, Phase.STAGED.value)


def _has_not_begun() -> ColumnElement[bool]:
    """Of a node's row in its rollout: it holds a lease and has not armed: who asks again is held back still."""
    unused = (
        operations.c.id == rollout_nodes.c.operation_id,
        operations.c.state == "open",
        operations.c.kind.in_(_FORTH),
        operations.c.phase.in_(_UNARMED),
        operations.c.cancel_asked_at.is_(None),
    )
    return and_(rollout_nodes.c.state == RolloutNodeState.MOVING.value, exists().where(*unused))


def pending_moves(conn: Connection, of: ColumnElement[bool]) -> list[PendingMove]:
    """Of the nodes for which the condition holds: by rollouts that were started and heed windows and freezes, and by
    orders of operators."""
    columns = nodes.c.id, nodes.c.name, nodes.c.labels
    over = [state.value for state in (*TERMINAL, RolloutState.DRAFT, RolloutState.ROLLING_BACK)]
    of_rollouts = (
        select(*columns, rollouts.c.number, rollouts.c.group_id)
        .join(rollout_nodes, rollout_nodes.c.node_id == nodes.c.id)
        .join(rollouts, rollouts.c.id == rollout_nodes.c.rollout_id)
        .where(
            of,
            or_(rollout_nodes.c.state.in_(_NOT_MOVED), _has_not_begun()),
            rollouts.c.state.not_in(over),
            rollouts.c.kind != RolloutKind.ROLLBACK.value,
            rollouts.c.break_glass.is_(False),
        )
        .order_by(nodes.c.name, rollouts.c.number)
    )
    of_operators = (
        select(*columns, operations.c.actor)
        .join(operations, operations.c.node_id == nodes.c.id)
        .where(
            of,
            operations.c.state == "open",
            operations.c.rollout_id.is_(None),
            operations.c.kind.in_(_FORTH),
            operations.c.phase.in_(_UNARMED),
            operations.c.cancel_asked_at.is_(None),
        )
        .order_by(nodes.c.name)
    )
    found = [
        PendingMove(row.id, row.name, row.labels, f"rollout {row.number}", row.group_id)
        for row in conn.execute(of_rollouts)
    ]
    orders = conn.execute(of_operators)
    return found + [PendingMove(row.id, row.name, row.labels, f"the order of {row.actor}", None) for row in orders]
