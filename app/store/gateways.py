"""Gateways: which are up, and who could have been heard since when."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, select

from app.core.clocks import GatewaySeen
from app.store.schema import gateways, nodes


def all_seen(conn: Connection) -> dict[str, GatewaySeen]:
    return {row[0]: GatewaySeen(*row) for row in conn.execute(_SEEN)}


_SEEN = select(gateways.c.id, gateways.c.started_at, gateways.c.heartbeat_at, gateways.c.stopped_at)


def remove_older(conn: Connection, before: float, limit: int) -> int:
    """Forget gateways that are long gone and that no node's connection is written on."""
    last = func.coalesce(gateways.c.stopped_at, gateways.c.heartbeat_at)
    in_use = select(nodes.c.gateway_id).where(nodes.c.gateway_id.is_not(None))
    gone = select(gateways.c.id).where(last < before, gateways.c.id.not_in(in_use)).limit(limit)
    return conn.execute(delete(gateways).where(gateways.c.id.in_(gone.scalar_subquery()))).rowcount
