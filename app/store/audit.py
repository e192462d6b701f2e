"""The audit log: who changed what, when and why. Entries are only ever appended, in the change's own transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert

from app.core.actors import Actor
from app.store.schema import audit


def append(
    conn: Connection,
    actor: Actor,
    action: str,
    object: str,
    reason: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    now: float,
) -> None:
    """Record that `actor` did `action` (`node.update`) to `object` (`node:node_…`); JSON values before and after."""
    conn.execute(
        insert(audit).values(
            at=now,
            actor_kind=actor.kind.value,
            actor_id=actor.id,
            actor_name=actor.name,
            action=action,
            object=object,
            reason=reason,
            before=before,
            after=after,
        )
    )
