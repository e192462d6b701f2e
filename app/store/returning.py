"""Replicas that nodes served until they went away and have not started again, from the time line of services."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, or_, select

from app.core.services import ChangeCause
from app.core.snapshot import ServiceKey
from app.store.schema import nodes, service_changes

_c = service_changes.c
_AWAY = [each.value for each in (ChangeCause.OPERATION, ChangeCause.OFFLINE, ChangeCause.REBOOT, ChangeCause.UNSEEN)]
"""Why a node as a whole lost what it serves: it starts that again when it is back."""


def owed(conn: Connection, since: float) -> dict[str, dict[ServiceKey, int]]:
    """Node id → service → replicas that were lost with the node since then and have not returned."""
    found: defaultdict[str, dict[ServiceKey, int]] = defaultdict(dict)
    for row in conn.execute(_owed(), {"since": since}):
        found[row[0]][(row[1], row[2])] = -int(row[3])
    return found


@cache
def _owed() -> Select[Any]:
    left = func.sum(_c.change)
    return (
        select(_c.node_id, _c.scope, _c.name, left)
        .where(_c.at >= bindparam("since"), _c.node_id.is_not(None), or_(_c.change > 0, _c.cause.in_(_AWAY)))
        .group_by(_c.node_id, _c.scope, _c.name)
        .having(left < 0)
    )


def connected_since(conn: Connection, at: float) -> set[str]:
    """Ids of the nodes whose connection is younger."""
    query = select(nodes.c.id).where(nodes.c.connection == "online", nodes.c.connected_at >= at)
    return set(conn.execute(query).scalars())
