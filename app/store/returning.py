"""Replicas that nodes served until they went away and have not started again, from the time line of services."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, or_, select

from app.core.services import ChangeCause
from app.core.snapshot import ServiceKey
from app.store.schema import nodes, service_changes

_c = service_changes.c
_AWAY = [each.value for each in (ChangeCause.OPERATION, ChangeCause.OFFLINE, ChangeCause.REBOOT, ChangeCause.UNSEEN)]
"""Why a node as a whole lost what it serves: it starts that again when it is back."""
_IDS_AT_ONCE = 500


def owed(conn: Connection, node_ids: Sequence[str], since: float) -> dict[str, dict[ServiceKey, int]]:
    """Node id → service → replicas that were lost with the node since then and have not returned."""
    found: defaultdict[str, defaultdict[ServiceKey, int]] = defaultdict(lambda: defaultdict(int))
    for start in range(0, len(node_ids), _IDS_AT_ONCE):
        some = node_ids[start : start + _IDS_AT_ONCE]
        for node_id, scope, name, change in conn.execute(_lost_and_returned(), {"ids": some, "since": since}):
            here = found[node_id]
            here[scope, name] = max(0, here[scope, name] - change)  # what came before it was lost pays for nothing
    return {id: left for id, here in found.items() if (left := {key: number for key, number in here.items() if number})}


@cache
def _lost_and_returned() -> Select[Any]:
    return (
        select(_c.node_id, _c.scope, _c.name, _c.change)
        .where(_c.node_id.in_(bindparam("ids", expanding=True)), _c.at >= bindparam("since"))
        .where(or_(_c.change > 0, _c.cause.in_(_AWAY)))
        .order_by(_c.id)
    )


def connected_since(conn: Connection, at: float) -> set[str]:
    """Ids of the nodes whose connection is younger."""
    query = select(nodes.c.id).where(nodes.c.connection == "online", nodes.c.connected_at >= at)
    return set(conn.execute(query).scalars())
