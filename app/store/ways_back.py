"""Which operations lead a node back: an order to roll back, one of a reverse rollout, or one that sends a node back."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, Connection, exists, or_, select

from app.core.rollouts import RolloutKind
from app.store.schema import operations, rollout_nodes, rollouts
from wire.messages import OperationKind

_o, _r = operations.c, rollout_nodes.c


def leads_back() -> ColumnElement[bool]:
    """In a query of `operations`."""
    by_reverse = exists().where(rollouts.c.id == _o.rollout_id, rollouts.c.kind == RolloutKind.ROLLBACK.value)
    sent_back = exists().where(_r.node_id == _o.node_id, _r.back_operation_id == _o.id)
    return or_(_o.kind == OperationKind.ROLLBACK.value, by_reverse, sent_back)


def among(conn: Connection, operation_ids: Collection[str]) -> set[str]:
    """Those of these operations that lead back."""
    return set(conn.execute(select(_o.id).where(_o.id.in_(operation_ids), leads_back())).scalars())
