"""Set-based writing of what nodes report: one statement for all nodes of a batch and a section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Update, bindparam, delete, insert, select, update

from app.store.schema import containers, events, nodes

CONTAINER_COLUMNS = ("name", "image", "scope", "service", "state", "health", "started_at", "replicas", "per_node")
"""Columns of a container beside its key, in the order of `ContainerValues`."""

ContainerValues = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides whether a report may be stored."""

    connection_id: str | None
    last_seq: int
    conflict: bool


def lock(conn: Connection, node_ids: Sequence[str]) -> dict[str, Standing]:
    """The standing of the nodes, their rows locked until the end of the transaction (in one order for all)."""
    rows = conn.execute(_LOCK, {"node_ids": node_ids})
    return {row[0]: Standing(row[1], row[2], bool(row[3])) for row in rows}


_LOCK = (
    select(nodes.c.id, nodes.c.connection_id, nodes.c.last_seq, nodes.c.conflict.is_not(None))
    .where(nodes.c.id.in_(bindparam("node_ids", expanding=True)))
    .order_by(nodes.c.id)
    .with_for_update()
)


def update_nodes(conn: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Update node columns; every row has `id` and the same other columns."""
    if not rows:
        return
    columns = tuple(column for column in rows[0] if column != "id")
    conn.execute(
        _update(columns), [{"of_id": row["id"], **{f"to_{column}": row[column] for column in columns}} for row in rows]
    )


@cache  # a dozen sets of columns
def _update(columns: tuple[str, ...]) -> Update:
    statement = update(nodes).where(nodes.c.id == bindparam("of_id"))
    return statement.values({column: bindparam(f"to_{column}") for column in columns})


def containers_of(conn: Connection, node_ids: Sequence[str]) -> dict[str, dict[str, ContainerValues]]:
    """Stored containers: node id -> container id -> values."""
    found: dict[str, dict[str, ContainerValues]] = {node_id: {} for node_id in node_ids}
    columns = [containers.c[name] for name in CONTAINER_COLUMNS]
    rows = conn.execute(
        select(containers.c.node_id, containers.c.container_id, *columns).where(containers.c.node_id.in_(node_ids))
    )
    for row in rows:
        found[row[0]][row[1]] = tuple(row[2:])
    return found


def remove_containers(conn: Connection, keys: Sequence[tuple[str, str]]) -> None:
    """Delete containers by (node id, container id)."""
    if keys:
        conn.execute(
            delete(containers).where(
                containers.c.node_id == bindparam("of_node"), containers.c.container_id == bindparam("of_container")
            ),
            [{"of_node": node_id, "of_container": container_id} for node_id, container_id in keys],
        )


def add_containers(conn: Connection, rows: Sequence[tuple[str, str, ContainerValues]]) -> None:
    """Insert containers: node id, container id, values."""
    if rows:
        conn.execute(
            insert(containers),
            [
                {"node_id": node_id, "container_id": container_id, **dict(zip(CONTAINER_COLUMNS, values, strict=True))}
                for node_id, container_id, values in rows
            ],
        )


def add_events(conn: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert events of nodes, in order; the caller has left out what was stored before (`Standing.last_seq`)."""
    if rows:
        conn.execute(insert(events), list(rows))
