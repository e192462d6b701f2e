"""What operators say of a node that cannot say it itself: what runs on it, and that it is lost."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.actors import CONDUCTOR, Actor
from app.core.errors import Invalid, NotPossible
from app.core.events import EventKind
from app.core.nodes import Node
from app.core.operations import Action, refusal
from app.core.services import label_of
from app.core.snapshot import ServiceKey
from app.services.acting import done, need, possible
from app.services.orders import locked_node
from app.store import declared as store
from app.store import fleet, nodes
from app.store.database import Change, Database, Priority

MOST_SERVICES = 200
MOST_REPLICAS = 1_000
_BATCH = 200

Declared = Sequence[tuple[ServiceKey, int]]


def declare_placement(db: Database, actor: Actor, node_id: str, runs: Declared, reason: str, now: float) -> None:
    """This runs on the node (nothing: no service does) while its own placement is not known; it ends when it is."""
    need(reason, "Say how you know: rollouts rely on it.")
    here = _checked(runs)
    with db.write() as change:
        fleet.lock(change.conn)  # floors are what admission goes by
        node = locked_node(change, node_id)
        possible(refusal(Action.DECLARE, node))
        if node.placement_known:
            raise NotPossible("placement-known", f"{node.name} says itself what runs on it; nothing is declared.")
        before = store.of_node(change.conn, node.id)
        nodes.change(change.conn, node.id, {"declared": here, "declared_by": actor.name})
        words = ", ".join(f"{number} of {label_of(key)}" for key, number in runs) or "no service"
        text = f"What runs on it is declared: {words}"
        after = {"declared": here}
        done(change, actor, Action.DECLARE, node, EventKind.DECLARED, text, reason, _was(before), after, now)


def withdraw_declaration(db: Database, actor: Actor, node_id: str, reason: str, now: float) -> None:
    """What runs on the node is unknown again."""
    with db.write() as change:
        fleet.lock(change.conn)
        node = locked_node(change, node_id)
        possible(refusal(Action.DECLARE, node))
        before = store.of_node(change.conn, node.id)
        if before is None:
            raise NotPossible("not-declared", f"Nothing is declared of {node.name}.")
        _end(change, actor, node, before, "What was declared of it is withdrawn", reason, now)


def declare_lost(db: Database, actor: Actor, node_id: str, reason: str, now: float) -> None:
    """The node does not come back: it leaves size and budget of its groups, and is listed, until it is found."""
    need(reason, "Say what became of it: others meet its gap.")
    with db.write() as change:
        fleet.lock(change.conn)
        node = locked_node(change, node_id)
        possible(refusal(Action.LOST, node))
        if store.lost_at(change.conn, node.id) is not None:
            raise NotPossible("lost-already", f"{node.name} is declared lost already.")
        nodes.change(change.conn, node.id, {"lost_at": now, "lost_by": actor.name, "lost_reason": reason.strip()})
        done(change, actor, Action.LOST, node, EventKind.LOST, "Declared lost", reason, None, {"lost": True}, now)


def declare_found(db: Database, actor: Actor, node_id: str, reason: str, now: float) -> None:
    """It counts again."""
    with db.write() as change:
        fleet.lock(change.conn)
        node = locked_node(change, node_id)
        if store.lost_at(change.conn, node.id) is None:
            raise NotPossible("not-lost", f"{node.name} is not declared lost.")
        _found(change, actor, node, "Found again", reason, now)


def end_declarations(db: Database, now: float) -> int:
    """What was declared ends where the node says it itself, and a lost node that is connected is found."""
    with db.read() as conn:
        over, back = store.over(conn, _BATCH), store.back(conn, _BATCH)
    for node_id in over:
        with db.write(Priority.BACKGROUND) as change:
            node = nodes.get(change.conn, node_id, lock=True)
            before = store.of_node(change.conn, node_id)
            if node is not None and node.placement_known and before is not None:
                _end(change, CONDUCTOR, node, before, "What was declared of it is over", "it says itself", now)
    for node_id in back:
        with db.write(Priority.BACKGROUND) as change:
            node = nodes.get(change.conn, node_id, lock=True)
            if node is not None and node_id in store.back(change.conn, 1, node_id):
                _found(change, CONDUCTOR, node, "Not lost any more", "it is connected", now)
    return len(over) + len(back)


def _end(
    change: Change, actor: Actor, node: Node, before: list[list[str | int]], text: str, reason: str, now: float
) -> None:
    nodes.change(change.conn, node.id, {"declared": None, "declared_by": None})
    done(change, actor, Action.DECLARE, node, EventKind.DECLARED, text, reason, _was(before), None, now)


def _found(change: Change, actor: Actor, node: Node, text: str, reason: str, now: float) -> None:
    nodes.change(change.conn, node.id, {"lost_at": None, "lost_by": None, "lost_reason": None})
    done(change, actor, Action.LOST, node, EventKind.FOUND, text, reason, {"lost": True}, None, now)


def _was(before: list[list[str | int]] | None) -> dict[str, object] | None:
    return None if before is None else {"declared": before}


def _checked(runs: Declared) -> list[list[str | int]]:
    if len(runs) > MOST_SERVICES:
        raise Invalid("declared", f"At most {MOST_SERVICES} services; these are {len(runs)}.")
    seen = set()
    for (scope, name), replicas in runs:
        if not name.strip() or not f"{scope}{name}".isprintable():
            raise Invalid("declared", "Each service has a printable name.")
        if not 1 <= replicas <= MOST_REPLICAS:
            raise Invalid("declared", f"{label_of((scope, name))}: 1 to {MOST_REPLICAS} replicas, not {replicas}.")
        if (scope, name) in seen:
            raise Invalid("declared", f"{label_of((scope, name))} is named twice.")
        seen.add((scope, name))
    return [[scope, name, replicas] for (scope, name), replicas in runs]
