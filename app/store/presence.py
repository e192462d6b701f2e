"""Who has gone offline lately, and how large the fleet is that they went from."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, select

from app.store.schema import leases, nodes

_MEMBER = nodes.c.admission == "admitted", nodes.c.lost_at.is_(None)


def gone_since(conn: Connection, since: float) -> list[tuple[str, Mapping[str, str], float]]:
    """Members that are offline and were last heard after then: id, labels, when."""
    return [(row[0], row[1], row[2]) for row in conn.execute(_GONE_SINCE, {"since": since})]


_GONE_SINCE = select(nodes.c.id, nodes.c.labels, nodes.c.last_seen_at).where(
    *_MEMBER, nodes.c.connection == "offline", nodes.c.last_seen_at > bindparam("since")
)


def reserved(conn: Connection) -> set[str]:
    """Nodes that hold a lease: they may be rebooting by our doing."""
    return set(conn.execute(select(leases.c.node_id).where(leases.c.ended_at.is_(None))).scalars())


def labels_of_members(conn: Connection) -> list[Mapping[str, str]]:
    """One for each member."""
    return list(conn.execute(select(nodes.c.labels).where(*_MEMBER)).scalars())
