"""Services of which more replicas than ever are healthy: what has to last before it counts (core.services.rising)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, bindparam, delete, exists, insert, select, update

from app.core.services import Rise
from app.core.snapshot import ServiceKey
from app.store.schema import service_peaks, service_rises
from app.store.services import Keys, by_key

_ALL = select(service_rises)


def of(conn: Connection, keys: Keys = None) -> dict[ServiceKey, Rise]:
    """Of each service that was seen."""
    rows = by_key(conn, _ALL, service_rises.c.scope, service_rises.c.name, keys)
    return {(row.scope, row.name): Rise(row.seen_at, row.healthy, row.since) for row in rows}


def under_way(conn: Connection) -> list[ServiceKey]:
    """Services of which more than ever are healthy."""
    query = select(service_rises.c.scope, service_rises.c.name).where(service_rises.c.healthy > 0)
    return [(row[0], row[1]) for row in conn.execute(query.order_by(service_rises.c.scope, service_rises.c.name))]


def keep(conn: Connection, rises: Mapping[ServiceKey, Rise], known: Collection[ServiceKey]) -> None:
    """Remember these; `known`: services that have a row."""
    new = [_row(key, rise) for key, rise in rises.items() if key not in known]
    other = [_row(key, rise) for key, rise in rises.items() if key in known]
    if new:
        conn.execute(insert(service_rises), [{name.removeprefix("to_"): row[name] for name in row} for row in new])
    if other:
        statement = update(service_rises).where(
            service_rises.c.scope == bindparam("to_scope"), service_rises.c.name == bindparam("to_name")
        )
        columns = ("seen_at", "healthy", "since")
        conn.execute(statement.values({name: bindparam(f"to_{name}") for name in columns}), other)


def _row(key: ServiceKey, rise: Rise) -> dict[str, object]:
    return {
        "to_scope": key[0],
        "to_name": key[1],
        "to_seen_at": rise.seen_at,
        "to_healthy": rise.healthy,
        "to_since": rise.since,
    }


def remove_forgotten(conn: Connection) -> int:
    """Those of services that nobody has seen for as long as peaks are kept: they begin anew."""
    seen = exists().where(service_peaks.c.scope == service_rises.c.scope, service_peaks.c.name == service_rises.c.name)
    return conn.execute(delete(service_rises).where(~seen)).rowcount
