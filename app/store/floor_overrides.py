"""Ways back that an operator lets go below floors: their orders, and which of them wait."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, or_, select, update

from app.core.nodes import OperationState
from app.core.rollouts import RolloutKind
from app.store.schema import operations, rollout_nodes, rollouts

_c = rollout_nodes.c


def _leads_back() -> ColumnElement[bool]:
    """Of an operation joined with its node's row in its rollout: it sends the node back."""
    return or_(_c.back_operation_id == operations.c.id, rollouts.c.kind == RolloutKind.ROLLBACK.value)


def is_way_back(conn: Connection, operation_id: str) -> bool:
    """Whether a rollout sends its node back by this order."""
    query = (
        select(operations.c.id)
        .join(rollouts, rollouts.c.id == operations.c.rollout_id)
        .join(rollout_nodes, and_(_c.rollout_id == rollouts.c.id, _c.node_id == operations.c.node_id))
        .where(operations.c.id == operation_id, _leads_back())
    )
    return conn.execute(query).first() is not None


def put_on_order(conn: Connection, operation_id: str) -> bool:
    """Whether the order is open and was not let go below floors before."""
    given = conn.execute(
        update(operations)
        .where(
            operations.c.id == operation_id,
            operations.c.state == OperationState.OPEN.value,
            ~operations.c.override_floor,
        )
        .values(override_floor=True)
    )
    return given.rowcount == 1


def put_on_rollout(conn: Connection, rollout_id: str) -> int:
    """On its open orders that send nodes back; how many. Its row is held by the caller, so that none is added."""
    query = (
        select(operations.c.id)
        .join(rollouts, rollouts.c.id == operations.c.rollout_id)
        .join(rollout_nodes, and_(_c.rollout_id == rollouts.c.id, _c.node_id == operations.c.node_id))
        .where(
            operations.c.rollout_id == rollout_id,
            operations.c.state == OperationState.OPEN.value,
            ~operations.c.override_floor,
            _leads_back(),
        )
        .order_by(operations.c.id)
    )
    found = list(conn.execute(query.with_for_update(of=operations, key_share=True)).scalars())
    if found:
        conn.execute(update(operations).where(operations.c.id.in_(found)).values(override_floor=True))
    return len(found)
