"""The history of nodes: appended by whoever saw or did something, read by pages, aged out by the conductor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, insert, select

from app.core.events import EventKind
from app.store.schema import events, nodes, operations


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the history. `at` is the server's clock, `node_at` the node's own where it told the event."""

    id: int
    node_id: str | None
    node_name: str | None
    at: float
    node_at: float | None
    kind: str
    text: str
    cause: str | None
    actor: str | None
    operation_id: str | None
    boot_id: str | None
    checks: list[dict[str, Any]]
    result: str | None
    """Of the operation, where this tells its end (wire Result)."""


def append(
    conn: Connection,
    *,
    node_id: str | None,
    at: float,
    kind: str,
    text: str,
    actor: str | None = None,
    operation_id: str | None = None,
    boot_id: str | None = None,
    cause: str | None = None,
    checks: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Add an event that the server itself saw or caused."""
    conn.execute(
        insert(events).values(
            node_id=node_id,
            at=at,
            kind=kind,
            text=text,
            actor=actor,
            operation_id=operation_id,
            boot_id=boot_id,
            cause=cause,
            checks=list(checks) if checks else None,
        )
    )


def recent(
    conn: Connection,
    *,
    node_id: str | None = None,
    kinds: Sequence[str] = (),
    before_id: int | None = None,
    limit: int = 50,
) -> list[Event]:
    """Newest first; `before_id` continues a page."""
    ended = and_(events.c.kind == EventKind.OPERATION_ENDED.value, operations.c.id == events.c.operation_id)
    wanted = (
        select(events, nodes.c.name.label("node_name"), operations.c.result)
        .outerjoin(nodes, nodes.c.id == events.c.node_id)
        .outerjoin(operations, ended)
    )
    if node_id is not None:
        wanted = wanted.where(events.c.node_id == node_id)
    if kinds:
        wanted = wanted.where(events.c.kind.in_(kinds))
    if before_id is not None:
        wanted = wanted.where(events.c.id < before_id)
    return [
        Event(
            row.id,
            row.node_id,
            row.node_name,
            row.at,
            row.node_at,
            row.kind,
            row.text,
            row.cause,
            row.actor,
            row.operation_id,
            row.boot_id,
            row.checks or [],
            row.result,
        )
        for row in conn.execute(wanted.order_by(events.c.id.desc()).limit(limit))
    ]
