"""What all actions on a node share: refusing, and writing down who did what, in the action's own transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.core.actors import Actor
from app.core.errors import Invalid, NotPossible
from app.core.events import EventKind
from app.core.nodes import Node
from app.core.operations import Action
from app.store import audit, events
from app.store.database import Change


def need(reason: str, text: str) -> None:
    """Invalid, with this text, when no reason was given."""
    if not reason.strip():
        raise Invalid("reason", text)


def possible(found: NotPossible | None) -> None:
    """Raise the refusal, if there is one."""
    if found is not None:
        raise found


def done(
    change: Change,
    actor: Actor,
    action: Action,
    node: Node,
    kind: EventKind,
    text: str,
    reason: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    now: float,
) -> None:
    """An event of the node's history and the audit entry, for an action that is done without the node."""
    because = f": “{reason}”" if reason else ""
    events.append(
        change.conn,
        node_id=node.id,
        at=now,
        kind=kind,
        text=f"{text} by {actor.name}{because}",
        actor=actor.name,
    )
    record(change, actor, action, node, reason, before, after, now)
    change.touch(f"node:{node.id}", "nodes", "fleet", "events")


def record(
    change: Change,
    actor: Actor,
    action: Action,
    node: Node,
    reason: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    now: float,
) -> None:
    """The audit entry of an action on a node."""
    audit.append(change.conn, actor, f"node.{action.value}", f"node:{node.id}", reason, before, after, now)
