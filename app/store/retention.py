"""Removal of what has outlived its use, in pieces that no other transaction has to wait long for."""

from __future__ import annotations

from sqlalchemy import Column, Connection, Table, delete, func, select

from app.core.services import PEAK_DAYS
from app.store import fleet, gateways, service_rises, services
from app.store.schema import events, join_attempts, login_links, service_changes, sessions

_DAY_S = 86_400.0
EVENTS_S = 400 * _DAY_S
"""A little over a year: last year's incident can still be compared."""
JOIN_ATTEMPTS_S = 90 * _DAY_S
LOGIN_LINKS_S = 7 * _DAY_S
"""After they ended: an operator may still ask who used one."""
SESSIONS_S = _DAY_S
"""After they ended."""
SAMPLES_S = 400 * _DAY_S
GATEWAYS_S = 60 * _DAY_S
"""For how long a node was away is counted by who could have heard it; longer policies never call a node absent."""
SERVICE_CHANGES_S = 400 * _DAY_S
PEAKS_DAYS = 2 * PEAK_DAYS
EVENTS_OF_NODE = 10_000
"""Years of a node that behaves; one that floods its history loses its own oldest, and nobody else's."""
BATCH = 500


def remove_old(conn: Connection, now: float) -> int:
    """One piece of everything that is too old; how many rows it was. Call again while it is BATCH or more."""
    removed = _remove(conn, events, events.c.id, events.c.at, now - EVENTS_S)
    removed += _remove(conn, join_attempts, join_attempts.c.id, join_attempts.c.at, now - JOIN_ATTEMPTS_S)
    removed += _remove(conn, login_links, login_links.c.secret_hash, login_links.c.expires_at, now - LOGIN_LINKS_S)
    removed += _remove(conn, sessions, sessions.c.secret_hash, sessions.c.expires_at, now - SESSIONS_S)
    removed += _remove(conn, service_changes, service_changes.c.id, service_changes.c.at, now - SERVICE_CHANGES_S)
    removed += services.remove_peaks_before(conn, int(now // _DAY_S) - PEAKS_DAYS)
    removed += service_rises.remove_forgotten(conn)
    removed += _remove_flood(conn)
    removed += fleet.remove_samples_older(conn, now - SAMPLES_S)
    return removed + gateways.remove_older(conn, now - GATEWAYS_S, BATCH)


def _remove_flood(conn: Connection) -> int:
    """The oldest events of the node that has most of them, when those are too many."""
    count = func.count()
    query = select(events.c.node_id, count).where(events.c.node_id.is_not(None)).group_by(events.c.node_id)
    most = conn.execute(query.having(count > EVENTS_OF_NODE).order_by(count.desc()).limit(1)).one_or_none()
    if most is None:
        return 0
    excess = min(most[1] - EVENTS_OF_NODE, BATCH)
    oldest = select(events.c.id).where(events.c.node_id == most[0]).order_by(events.c.id).limit(excess)
    return conn.execute(delete(events).where(events.c.id.in_(oldest))).rowcount


def _remove(conn: Connection, table: Table, key: Column[str] | Column[int], at: Column[float], before: float) -> int:
    old = select(key).where(at < before).order_by(at).limit(BATCH)
    return conn.execute(delete(table).where(key.in_(old))).rowcount
