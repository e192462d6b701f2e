"""Canaries that are through, as they are now, while the others of their rollouts still wait after them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, exists, func, or_, select

from app.core.rollouts import RolloutNodeState
from app.store.schema import nodes, operations, rollout_nodes
from app.store.snapshot import ON_TRIAL
from wire.messages import OperationKind, Result


def through(conn: Connection, rollout_ids: Sequence[str]) -> list[Row[Any]]:
    """Of these rollouts, by name: rollout_id, node_id, name, admission, lost_at, connection, gateway_id, last_seen_at,
    booted_digest, version, health_state, trial, and `led_on`: another order moved it since."""
    return list(conn.execute(_through(), {"rollouts": list(rollout_ids)})) if rollout_ids else []


@cache
def _through() -> Select[Any]:
    own, later = operations.alias("own"), operations.alias("later")
    moved_on = exists().where(
        later.c.node_id == nodes.c.id,
        own.c.id == rollout_nodes.c.operation_id,
        later.c.id != own.c.id,
        later.c.kind.in_([OperationKind.ACTIVATE.value, OperationKind.ROLLBACK.value]),
        or_(
            later.c.order_epoch > own.c.order_epoch,
            and_(later.c.order_epoch == own.c.order_epoch, later.c.order_generation > own.c.order_generation),
        ),
        func.coalesce(later.c.result, "") != Result.CANCELLED.value,
    )
    return (
        select(
            rollout_nodes.c.rollout_id,
            nodes.c.id.label("node_id"),
            nodes.c.name,
            nodes.c.admission,
            nodes.c.lost_at,
            nodes.c.connection,
            nodes.c.gateway_id,
            nodes.c.last_seen_at,
            nodes.c.booted_digest,
            nodes.c.version,
            nodes.c.health_state,
            ON_TRIAL.label("trial"),
            moved_on.label("led_on"),
        )
        .join(nodes, nodes.c.id == rollout_nodes.c.node_id)
        .where(
            and_(rollout_nodes.c.canary, rollout_nodes.c.state == RolloutNodeState.DONE.value),
            rollout_nodes.c.rollout_id.in_(bindparam("rollouts", expanding=True)),
        )
        .order_by(nodes.c.name, nodes.c.id)
    )
