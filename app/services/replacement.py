"""A machine that joins again is a new node; the node it was is retired, so that its key opens nothing any more.

With a token that admits at once this happens in the join's transaction; otherwise when an operator approves the
new node: a token alone must not be able to take a node away.
"""

from __future__ import annotations

from app.core.actors import Actor
from app.core.events import EventKind
from app.core.nodes import Admission
from app.services.orders import locked_node
from app.services.retirement import leave_fleet
from app.store import audit, events, joins, nodes
from app.store.database import Change


def lock_with_replaced(change: Change, node_id: str) -> None:
    """Lock the node and the one that it replaces, in the order of their ids as intake does: no deadlock."""
    node = nodes.get(change.conn, node_id)  # whom it replaces never changes
    replaced = node.replaces_id if node is not None else None
    for each in sorted({node_id, replaced or node_id}):
        nodes.lock_row(change.conn, each)


def retire_replaced(change: Change, old_id: str, new_id: str, new_name: str, actor: Actor, now: float) -> None:
    """Retire the node `old_id` in favour of `new_id`; nothing when another node has replaced it already."""
    old = locked_node(change, old_id)
    if not joins.mark_replaced(change.conn, old_id, new_id):
        return
    if old.admission is not Admission.RETIRED:
        reason = f"its machine joined again as {new_name}"
        leave_fleet(change, old, reason, actor.name, now)
        before = {"admission": old.admission.value}
        after = {"admission": Admission.RETIRED.value, "replaced_by": new_id}
        audit.append(change.conn, actor, "node.retire", f"node:{old_id}", reason, before, after, now)
        kind, text = EventKind.RETIRED, f"Retired: {reason}"
        events.append(change.conn, node_id=old_id, at=now, kind=kind, text=text, actor=actor.name)
    change.touch(f"node:{old_id}")
