"""A freeze disarms: leases that were granted and not used are called back. A step of the conductor.

What leads back is not bound by freezes (rule 7), and neither is what an operator let pass (break-glass). Nodes of
rollouts wait again in theirs; an operator's order to one node is given once more in its place, and waits.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from app.core.actors import CONDUCTOR, Actor
from app.core.freezes import Freeze, freeze_hold
from app.core.nodes import Operation
from app.core.slots import ARMED
from app.services.groups import groups_of_node
from app.services.orders import Wish, begin, locked_node
from app.services.rollout_acting import record
from app.services.rollout_orders import take_order
from app.store import audit, freezes, nodes, operations, rollout_nodes, rollouts
from app.store.database import Change, Database, Priority
from wire.messages import Phase


def take_back_frozen(db: Database, now: float) -> int:
    """Call back unused leases of nodes that a freeze holds; how many."""
    with db.read() as conn:
        binding = freezes.active(conn, now)
        found = operations.with_unused_leases(conn) if binding else []
        due = [operation for operation in found if _frozen(conn, operation, binding, now)]
    taken = 0
    for operation in due:
        with db.write(Priority.BACKGROUND) as change:
            taken += _take_back(change, operation, now)
    return taken


def _frozen(conn: Connection, operation: Operation, binding: Sequence[Freeze], now: float) -> bool:
    if operation.rollout_id is not None:
        rollout = rollouts.get(conn, operation.rollout_id)
        if rollout is None or rollout.leads_back or rollout.break_glass:
            return False
    node = nodes.get(conn, operation.node_id)
    if node is None:
        return False
    return freeze_hold(binding, [group.id for group in groups_of_node(conn, node)], now) is not None


def _take_back(change: Change, found: Operation, now: float) -> bool:
    why = "a freeze began before it was armed"
    if found.rollout_id is not None:
        rollout = rollouts.get(change.conn, found.rollout_id, lock=True)
        row = rollout_nodes.get(change.conn, found.rollout_id, found.node_id)
        if rollout is None or row is None or row.operation_id != found.id:
            return False
        taken = take_order(change, rollout, row, why, now)
        if taken:
            record(change, CONDUCTOR, "take-back", rollout, why, None, {"nodes": [row.node_id]}, now)
        return taken
    node = locked_node(change, found.node_id)
    operation = operations.get(change.conn, found.id, lock=True)
    if operation is None or not operation.open or operation.cancel_asked_at is not None:
        return False
    if node.desired_operation_id != operation.id:
        return False  # another order is on its way already
    if operation.phase in ARMED or operation.phase is Phase.SOAKING:
        return False
    again = begin(change, _author(operation), node, _wish(operation), operation.reason, now)
    before, after = {"operation": operation.id}, {"operation": again.id, "reason": operation.reason}
    audit.append(change.conn, CONDUCTOR, "node.order-again", f"node:{node.id}", why, before, after, now)
    return True


def _author(operation: Operation) -> Actor:
    """Who gave the order, as histories of nodes say it."""
    return Actor(CONDUCTOR.kind, CONDUCTOR.id, operation.actor)


def _wish(operation: Operation) -> Wish:
    """The same order once more: an operator's, which nobody else would give again after the freeze."""
    return Wish(
        operation.kind,
        operation.image_id,
        operation.target_version,
        operation.target_digest,
        override_failed=operation.override_failed,
        override_floor=operation.override_floor,
    )
