"""Values that nodes have, with how many of them do: what a filter's word could become."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, distinct, func, select

from app.core.query import Field
from app.core.versions import in_order
from app.store.node_query import CHANNEL_ID, Condition, column_of, label
from app.store.schema import channels, containers, nodes

Counted = list[tuple[str, int]]

_LABELS_OF = 2_000
"""Keys of labels stand in JSON: so many nodes are read for them, the newest first."""


def values(conn: Connection, where: Condition, field: Field, text: str, limit: int) -> Counted:
    """Values of a field that contain `text` (lower case), with their nodes: beginnings first, then the most frequent.

    Versions: the newest first.
    """
    if field is Field.SERVICE:
        name, number = containers.c.service, func.count(distinct(containers.c.node_id))
        joined = nodes.join(containers, containers.c.node_id == nodes.c.id)
        return _counted(conn, where, name, text, limit, number, joined)
    if field is Field.CHANNEL:
        joined = nodes.join(channels, channels.c.id == CHANNEL_ID)
        return _counted(conn, where, channels.c.name, text, limit, func.count(), joined)
    if field is Field.VERSION:
        rows = dict(_counted(conn, where, nodes.c.version, text, None, func.count(), nodes))
        newest = list(reversed(in_order(set(rows))))
        newest.sort(key=lambda version: not version.lower().startswith(text))
        return [(version, rows[version]) for version in newest[:limit]]
    return _counted(conn, where, column_of(field), text, limit, func.count(), nodes)


def label_values(conn: Connection, where: Condition, key: str, text: str, limit: int) -> Counted:
    return _counted(conn, where, label(key), text, limit, func.count(), nodes)


def label_keys(conn: Connection, where: Condition, text: str, limit: int) -> list[tuple[str, int | None]]:
    """Without numbers where not all nodes could be read."""
    rows = conn.execute(select(nodes.c.labels).where(where).order_by(nodes.c.id.desc()).limit(_LABELS_OF))
    read = list(rows.scalars())
    counter = Counter(key for labels in read for key in labels if text in key.lower())
    order = sorted(counter.items(), key=lambda item: (not item[0].lower().startswith(text), -item[1], item[0]))
    return [(key, None if len(read) == _LABELS_OF else number) for key, number in order[:limit]]


def _counted(
    conn: Connection,
    where: Condition,
    value: ColumnElement[str],
    text: str,
    limit: int | None,
    number: ColumnElement[int],
    source: Any,
) -> Counted:
    lowered = func.lower(value)
    begins = case((lowered.startswith(text, autoescape=True), 0), else_=1)
    rows = conn.execute(
        select(value, number)
        .select_from(source)
        .where(where, value != "", lowered.contains(text, autoescape=True))
        .group_by(value)
        .order_by(begins, number.desc(), value)
        .limit(limit)
    )
    return [(found, many) for found, many in rows]
