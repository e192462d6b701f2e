"""What operators declared of nodes: placements that nobody can see, and nodes that are lost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, select

from app.store.schema import nodes


@dataclass(frozen=True, slots=True)
class Standing:
    """All that is declared of one node."""

    runs: tuple[tuple[str, str, int], ...] | None
    """(scope, name, replicas); None: nothing was declared."""
    runs_by: str
    lost_at: float | None
    lost_by: str
    lost_reason: str


def standing(conn: Connection, node_id: str) -> Standing:
    columns = nodes.c.declared, nodes.c.declared_by, nodes.c.lost_at, nodes.c.lost_by, nodes.c.lost_reason
    row = conn.execute(select(*columns).where(nodes.c.id == node_id)).one()
    runs = None if row.declared is None else tuple((scope, name, replicas) for scope, name, replicas in row.declared)
    return Standing(runs, row.declared_by or "", row.lost_at, row.lost_by or "", row.lost_reason or "")


def of_node(conn: Connection, node_id: str) -> list[list[Any]] | None:
    """[[scope, name, replicas], …]; None: nothing was declared."""
    found: list[list[Any]] | None = conn.execute(select(nodes.c.declared).where(nodes.c.id == node_id)).scalar_one()
    return found


def lost_at(conn: Connection, node_id: str) -> float | None:
    found: float | None = conn.execute(select(nodes.c.lost_at).where(nodes.c.id == node_id)).scalar_one()
    return found


def over(conn: Connection, limit: int) -> list[str]:
    """Nodes that say themselves by now what was declared of them."""
    return list(conn.execute(_over(limit)).scalars())


@cache
def _over(limit: int) -> Select[Any]:
    query = select(nodes.c.id).where(nodes.c.declared.is_not(None), nodes.c.placement_known)
    return query.order_by(nodes.c.id).limit(limit)


def back(conn: Connection, limit: int, node_id: str | None = None) -> list[str]:
    """Nodes that were declared lost and have connected since."""
    query = _back(limit)
    return list(conn.execute(query if node_id is None else query.where(nodes.c.id == node_id)).scalars())


@cache
def _back(limit: int) -> Select[Any]:
    query = select(nodes.c.id).where(
        nodes.c.lost_at.is_not(None), nodes.c.connection == "online", nodes.c.connected_at > nodes.c.lost_at
    )
    return query.order_by(nodes.c.id).limit(limit)


def lost(conn: Connection) -> list[tuple[str, str, float, str, str]]:
    """Members that are declared lost: id, name, since when, by whom, why."""
    query = select(nodes.c.id, nodes.c.name, nodes.c.lost_at, nodes.c.lost_by, nodes.c.lost_reason)
    rows = conn.execute(
        query.where(nodes.c.lost_at.is_not(None), nodes.c.admission == "admitted").order_by(nodes.c.lost_at)
    )
    return [(row[0], row[1], row[2], row[3] or "", row[4] or "") for row in rows]
