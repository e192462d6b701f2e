"""What nodes that came back moments ago have not started yet.

Containers come seconds or minutes after the boot, and the node is confirmed in between: a plan that took their replicas
for lost would say of a healthy rollout that it never ends. Admission is not told: it counts what serves now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection

from app.core.snapshot import NodeView, ServiceKey, Snapshot
from app.store import returning as store
from app.store import service_changes

STARTS_WITHIN_S = 300.0
"""What has not started so long after its node connected is not expected any more, unless the node still soaks."""
_WENT_WITHIN_S = 7200.0
"""Between the loss and now: longer than a reboot may take, with its soak."""


def with_returning(conn: Connection, snapshot: Snapshot) -> Snapshot:
    """The fleet with what its nodes are about to serve again."""
    recent = store.connected_since(conn, snapshot.now - STARTS_WITHIN_S)
    came = {node.id: node for node in snapshot.nodes if node.up and (_under_way(node) or node.id in recent)}
    owed = store.owed(conn, sorted(came), snapshot.now - _WENT_WITHIN_S)
    back = {id for id, node in came.items() if id in owed or not node.placement_known or _under_way(node)}
    if not back:
        return snapshot
    told = service_changes.told(conn, sorted(back))
    places = {view.key: place for place, view in enumerate(snapshot.services)}
    nodes = []
    for node in snapshot.nodes:
        if node.id in back:
            served = dict(owed.get(node.id, {}))
            for key, known in told.get(node.id, {}).items():
                served[key] = served.get(key, 0) + known.healthy
            node = replace(node, returning=_missing(node, served, places))
        nodes.append(node)
    return replace(snapshot, nodes=tuple(nodes))


def _under_way(node: NodeView) -> bool:
    return node.soaking or bool(node.exposed_to)


def _missing(
    node: NodeView, served: Mapping[ServiceKey, int], places: Mapping[ServiceKey, int]
) -> tuple[tuple[int, int], ...]:
    """Of what it served, all that it does not serve now."""
    here = dict(node.placements)
    missing = {places[key]: number - here.get(places[key], 0) for key, number in served.items() if key in places}
    return tuple((place, number) for place, number in sorted(missing.items()) if number > 0)
