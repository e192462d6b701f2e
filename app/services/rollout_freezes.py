"""A freeze disarms: leases that were granted and not used are called back; so are those of nodes that left the group
which their rollout is about, for its windows and freezes bind them no longer. A step of the conductor.

What leads back is not bound by freezes (rule 7), and neither is what an operator let pass (break-glass). Nodes of
rollouts wait again in theirs; an operator's order to one node is given once more in its place, and waits.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from app.core.actors import CONDUCTOR, Actor
from app.core.freezes import Freeze, freeze_hold
from app.core.groups import Grouping
from app.core.nodes import Operation
from app.core.slots import ARMED
from app.services.orders import Wish, begin, locked_node
from app.services.rollout_acting import record
from app.services.rollout_groups import outside
from app.services.rollout_orders import take_order
from app.store import audit, freezes, groups, nodes, operations, rollout_nodes, rollouts
from app.store.database import Change, Database, Priority
from wire.messages import Phase


def take_back_frozen(db: Database, now: float) -> int:
    """Call back unused leases of nodes that a freeze holds, or that are not of the group of their rollout any more; how
    many."""
    with db.read() as conn:
        binding = freezes.active(conn, now)
        found = operations.with_unused_leases(conn)
        grouping = Grouping(groups.all_groups(conn) if found else ())
        due = [(operation, _stopped(conn, operation, grouping, binding, now)) for operation in found]
    taken = 0
    for operation, why in due:
        if why:
            with db.write(Priority.BACKGROUND) as change:
                taken += _take_back(change, operation, why, now)
    return taken


def _stopped(conn: Connection, operation: Operation, grouping: Grouping, binding: Sequence[Freeze], now: float) -> str:
    """Why it may not go on; empty: it may."""
    rollout = rollouts.get(conn, operation.rollout_id) if operation.rollout_id is not None else None
    node = nodes.get(conn, operation.node_id)
    if node is None or (operation.rollout_id is not None and (rollout is None or rollout.leads_back)):
        return ""
    group_ids = [group.id for group in grouping.of(node.labels)]
    if rollout is not None and outside(rollout, group_ids):
        return "it left the group before it was armed"
    passes = rollout is not None and rollout.break_glass
    frozen = not passes and freeze_hold(binding, group_ids, now) is not None
    return "a freeze began before it was armed" if frozen else ""


def _take_back(change: Change, found: Operation, why: str, now: float) -> bool:
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
