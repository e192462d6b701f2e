"""A fleet for the benchmarks of pages: alike at every size, so that only the size differs.

Three of five nodes are in zone `a` and three of five are degraded: each of these filters fills a page of the list
at a hundred nodes as well as at five thousand. Eight nodes are unhealthy whatever the size.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert

from app.services.channels import ensure_defaults
from app.store import channels, schema
from app.store.database import Database

UNHEALTHY = 8
_ZONES = ("a", "b", "a", "c", "a")
_HEALTH = ("degraded", "degraded", "healthy", "degraded", "healthy")
_VERSIONS = ("4081.2.0", "4081.2.1", "4081.2.1", "4152.2.0")
_SERVICES = ("checkout", "catalog", "envoy")


def fill(db: Database, nodes: int, now: float) -> list[str]:
    """Admitted, connected nodes with containers; their ids."""
    ensure_defaults(db, now)
    with db.write() as change:
        stable = channels.find(change.conn, "stable")
        assert stable is not None, "ensure_defaults makes it"
        gateway = {"id": "gw_bench", "started_at": now, "heartbeat_at": now, "connections": nodes}
        change.conn.execute(insert(schema.gateways), [gateway])
        rows = [_node(number, nodes, stable.id, now) for number in range(nodes)]
        change.conn.execute(insert(schema.nodes), rows)
        change.conn.execute(insert(schema.containers), [each for row in rows for each in _containers(row["id"], now)])
        change.touch("nodes", "fleet", "images", "labels")
    return [row["id"] for row in rows]


def _node(number: int, nodes: int, channel_id: str, now: float) -> dict[str, Any]:
    version, zone = _VERSIONS[number % 4], _ZONES[number % 5]
    health = "unhealthy" if number % (nodes // UNHEALTHY) == 1 and number < nodes - 4 else _HEALTH[number // 5 % 5]
    idle = number % 10 != 0
    return {
        "id": f"node_{number:026d}",
        "name": f"web-{zone}-{number:05d}",
        "public_key": f"key {number}",
        "machine_id": f"machine {number}",
        "hardware": f"sha256:{number}",
        "admission": "admitted",
        "admitted_at": now,
        "labels": {"zone": zone, "role": "web", "rack": str(number % 40)},
        "joined_at": now,
        "channel_id": channel_id,
        "os_id": "demo",
        "arch": "amd64",
        "driver": "files",
        "version": version,
        "booted_slot": "AB"[number % 2],
        "slots": _slots(number, version),
        "health_state": health,
        "health": {"state": health, "checks": [{"name": "disk", "state": "passed", "text": "61 % used"}]},
        "phase": "idle" if idle else "staging",
        "activity": {} if idle else {"phase": "staging", "target": _VERSIONS[-1], "progress": 0.43},
        "placement_known": True,
        "placement_told": True,
        "engine": "podman",
        "containers_running": len(_SERVICES),
        "connection": "online",
        "gateway_id": "gw_bench",
        "connection_id": f"connection {number}",
        "connected_at": now,
        "last_seen_at": now,
    }


def _slots(number: int, version: str) -> list[dict[str, Any]]:
    booted = number % 2
    return [
        {
            "name": name,
            "booted": place == booted,
            "next_boot": place == booted,
            "version": version if place == booted else _VERSIONS[0],
            "digest": "sha256:" + "ab"[place] * 64,
            "good": True,
        }
        for place, name in enumerate("AB")
    ]


def _containers(node_id: str, now: float) -> list[dict[str, Any]]:
    return [
        {
            "node_id": node_id,
            "container_id": f"{place:064x}",
            "name": f"{service}-1",
            "image": f"registry.example/{service}:1.4",
            "scope": "shop",
            "service": service,
            "state": "running",
            "health": "healthy",
            "started_at": now,
            "per_node": False,
        }
        for place, service in enumerate(_SERVICES)
    ]
