"""What ends when a node leaves the fleet, by an operator or because its machine joined anew."""

from __future__ import annotations

from app.core.nodes import Admission, Node
from app.services import leases as lease_service
from app.services.endings import end_operation
from app.services.orders import give_order
from app.store import leases, nodes, operations
from app.store.database import Change
from wire.messages import Result


def leave_fleet(change: Change, node: Node, why: str, author: str, now: float) -> None:
    """Its key is refused from now on, what it was doing ends, its lease is free. The caller holds its row."""
    for operation in operations.open_of(change.conn, node.id):
        end_operation(change, node, operation, Result.CANCELLED, why, now, actor=author)
    lease = leases.of_node(change.conn, node.id)
    if lease is not None:
        lease_service.give_back(change, lease, why, now)
    give_order(change, node, None)
    nodes.change(change.conn, node.id, {"admission": Admission.RETIRED.value, "retired_at": now})
    change.touch("joining", "nodes", "fleet", "events", f"node:{node.id}")
