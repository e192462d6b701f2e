"""Letting ways back go below floors, each an operator's own decision with a reason (rule 7).

A way back that the conductor sends stops at floors and, as every move, where nobody knows what runs on the node
(rule 3). Whoever knows better says so here, of one node or of a whole rollout, also when it is under way already.
Budgets hold in any case.
"""

from __future__ import annotations

from sqlalchemy import Connection

from app.core.actors import Actor
from app.core.errors import NotPossible
from app.core.events import EventKind
from app.core.nodes import Node, Operation
from app.core.operations import Action
from app.core.slots import ARMED
from app.services.acting import done, need
from app.services.orders import locked_node
from app.services.rollout_acting import RolloutEventKind, because, locked_rollout, not_ended, record, tell, touch
from app.store import floor_overrides as store
from app.store import rollouts
from app.store.database import Change, Database
from app.store.rollouts import Rollout
from wire.messages import OperationKind, Phase

WHY = "Say why services may fall below their floors: their users will ask."


def override_rollout(db: Database, actor: Actor, rollout_id: str, reason: str, now: float) -> None:
    """All ways back of the rollout, those that it will order too, go below floors, and where nobody knows what runs."""
    need(reason, WHY)
    with db.write() as change:
        rollout = locked_rollout(change, rollout_id)
        not_ended(rollout)
        if not rollout.leads_back:
            text = f"Rollout {rollout.number} does not lead back: floors hold. Roll it back to override them."
            raise NotPossible("leads-forth", text)
        if rollout.override_floor:
            raise NotPossible("no-change", f"That is so already with rollout {rollout.number}.")
        override_within(change, actor, rollout, reason, now)


def override_within(change: Change, actor: Actor, rollout: Rollout, reason: str, now: float) -> None:
    """The same of a rollout whose row is held, and that leads back from now on."""
    rollouts.change(change.conn, rollout.id, override_floor=True)
    orders = store.put_on_rollout(change.conn, rollout.id)
    text = f"Ways back may go below floors, by {actor.name}{because(reason)}"
    tell(change, rollout, RolloutEventKind.CHANGED, text, now, actor=actor.name)
    after = {"override_floor": True, "orders": orders}
    record(change, actor, "override-floor", rollout, reason, {"override_floor": rollout.override_floor}, after, now)
    change.touch("services")  # all is gathered anew, at once


def override_way_back(db: Database, actor: Actor, node_id: str, reason: str, now: float) -> str | None:
    """The order that is sending this node back goes below floors; its id. None: no such order waits, and the node may
    be given one. NotPossible where nothing holds it any more, or it was let before."""
    need(reason, WHY)
    with db.write() as change:
        node = locked_node(change, node_id)
        operation = order_back(change.conn, node)
        if operation is None:
            return None
        if not _may_be_held(operation):
            raise NotPossible("too-late", f"{node.name} is going back already, and no floor holds it.")
        if not store.put_on_order(change.conn, operation.id):
            raise NotPossible("no-change", f"{node.name} may go below floors already.")
        text = f"It may go back to {operation.target_version or 'the version before'} below floors,"
        before = {"operation": operation.id, "override_floor": False}
        after = before | {"override_floor": True}
        done(change, actor, Action.ROLL_BACK, node, EventKind.FLOOR_OVERRIDDEN, text, reason, before, after, now)
        _tell_rollout(change, actor, node, operation, reason, now)
        change.touch("operations")
    return operation.id


def order_back(conn: Connection, node: Node) -> Operation | None:
    """The node's open order, where that sends it back and has not moved it yet."""
    operation = node.operation
    if operation is None or not operation.open or operation.cancel_asked_at is not None:
        return None
    if operation.phase is Phase.SOAKING:
        return None
    back = operation.kind is OperationKind.ROLLBACK or store.is_way_back(conn, operation.id)
    return operation if back else None


def waiting_way_back(conn: Connection, node: Node) -> Operation | None:
    """The same, where an override would still change something."""
    operation = order_back(conn, node)
    if operation is None or operation.override_floor or not _may_be_held(operation):
        return None
    return operation


def held_way_back(conn: Connection, node: Node) -> Operation | None:
    """The order that is sending the node back, where a floor or an unknown placement holds it."""
    operation = waiting_way_back(conn, node)
    return operation if operation is not None and _floor_holds(operation) else None


def _may_be_held(operation: Operation) -> bool:
    """By a floor, now or later: with a lease only where the node asks again, and a floor holds what it asks for."""
    return operation.phase not in ARMED and (not operation.holds_lease or _floor_holds(operation))


def _floor_holds(operation: Operation) -> bool:
    return operation.hold is not None and operation.hold["code"] in store.FLOORS


def _tell_rollout(change: Change, actor: Actor, node: Node, operation: Operation, reason: str, now: float) -> None:
    rollout = rollouts.get(change.conn, operation.rollout_id) if operation.rollout_id is not None else None
    if rollout is not None:
        text = f"{node.name} may go back below floors, by {actor.name}{because(reason)}"
        tell(change, rollout, RolloutEventKind.CHANGED, text, now, actor=actor.name, node_id=node.id)
        touch(change, rollout.id)
