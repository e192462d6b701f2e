"""Fill a database with plausible nodes, to look at pages: `python -m tests.web.seed DATABASE_URL [NODES]`."""

from __future__ import annotations

import random
import sys
import time
from typing import Any

from sqlalchemy import Connection, insert

from app.services.channels import ensure_defaults
from app.services.fleet import ensure_fleet
from app.store import channels, schema
from app.store.database import Database, open_database
from app.store.migrate import migrate
from tests import server_kit as kit

ZONES = ("eu-west-1a", "eu-west-1b", "eu-west-1c", "lon")
ROLES = ("web", "db", "cache", "edge", "queue")
SERVICES = {
    "web": ("checkout", "catalog", "envoy"),
    "db": ("ledger", "backup"),
    "cache": ("redis", "envoy"),
    "edge": ("envoy", "tls-terminator-with-a-rather-long-name"),
    "queue": ("nats", "worker"),
}
OLD, NOW_VERSION, NEW = "4081.2.0", "4081.2.1", "4152.2.0"


def seed(db: Database, count: int, now: float, chance: int = 7) -> list[str]:
    """`count` nodes in every state, with containers, events, operations, samples; ids in order."""
    dice = random.Random(chance)
    ensure_defaults(db, now)
    with db.write() as change:
        conn = change.conn
        gateway = kit.add_gateway(conn, started_at=now - 86_400, heartbeat_at=now, connections=count)
        images = {version: kit.add_image(conn, version, created_at=now - 86_400) for version in (OLD, NOW_VERSION, NEW)}
        stable = channels.find(conn, "stable")
        assert stable is not None, "ensure_defaults makes it"
        channel = stable.id
        channels.point(conn, channel, "demo", "amd64", images[NEW], "mb", "monthly update", now - 7200)
        rows = [_node(number, dice, now, channel, gateway, images) for number in range(count)]
        columns = schema.nodes.c.keys()
        filled = [{column: row.get(column) for column in row if column in columns} for row in rows]
        ids = [kit.add_node(conn, **row) for row in filled]
        _containers(conn, rows, ids, now)
        _history(conn, rows, ids, now, images)
        _samples(conn, count, now)
        change.touch("fleet", "nodes", "events", "images", "operations")
    return ids


def _node(number: int, dice: random.Random, now: float, channel: str, gateway: str, images: dict[str, str]) -> Any:
    role, zone = ROLES[number % len(ROLES)], ZONES[dice.randrange(len(ZONES))]
    version = dice.choices((OLD, NOW_VERSION, NEW), (1, 12, 9))[0]
    row: dict[str, Any] = {
        "name": f"{role}-{zone}-{number // len(ROLES) + 1:02d}",
        "labels": {"zone": zone, "role": role} | ({"canary": "yes"} if number % 40 == 3 else {}),
        "version": version,
        "slots": kit.two_slots(version, OLD if version != OLD else None, passive_good=True),
        "os_id": "demo",
        "channel_id": channel,
        "gateway_id": gateway,
        "containers_running": len(SERVICES[role]),
        "joined_at": now - 40 * 86_400,
        "booted_at": now - dice.uniform(1, 60) * 86_400,
        "connected_at": now - 3600,
        "last_seen_at": now - 5,
        "kernel": "6.6.58",
        "engine": "podman",
        "health": {
            "state": "healthy",
            "checks": [
                {"name": "systemd units", "state": "passed", "text": "142 active", "duration_ms": 31},
                {"name": "disk", "state": "passed", "text": "61 % used", "duration_ms": 1},
                {"name": "required.d/10-ingress", "state": "passed", "text": "answers", "duration_ms": 12},
            ],
        },
    }
    return row | _trouble(number, dice, now, version, images)


def _trouble(number: int, dice: random.Random, now: float, version: str, images: dict[str, str]) -> dict[str, Any]:
    kind = {
        1: "trial",
        2: "staged",
        4: "degraded",
        5: "offline",
        6: "pinned",
        7: "fell-back",
        8: "pending",
        9: "staging",
    }
    chosen = kind.get(number) or (dice.choice(list(kind.values())) if dice.random() < 0.06 else "")
    if chosen == "trial":
        slots = [kit.slot("A", NOW_VERSION), kit.slot("B", NEW, booted=True, next_boot=True)]
        trial = {"confirmed": True, "left_s": 360.0, "text": "soaking, 6 of 10 min left"}
        return {
            "version": NEW, "slots": slots, "booted_slot": "B", "booted_at": now - 240, "on_trial": True,
            "phase": "soaking", "activity": {"phase": "soaking", "target": NEW, "trial": trial},
        }  # fmt: skip
    if chosen == "staged":
        hold = {"code": "lease", "text": "waits for cache-eu-west-1c-01, which is being updated"}
        return {
            "version": NOW_VERSION, "slots": kit.two_slots(NOW_VERSION, NEW), "phase": "staged",
            "activity": {"phase": "staged", "target": NEW, "holds": [hold]},
        }  # fmt: skip
    if chosen == "staging":
        return {
            "version": NOW_VERSION, "slots": kit.two_slots(NOW_VERSION, None), "phase": "staging",
            "activity": {"phase": "staging", "target": NEW, "progress": 0.43},
        }  # fmt: skip
    if chosen == "degraded":
        check = {
            "name": "wanted.d/20-metrics", "state": "failed", "required": False, "text": "exit code 1",
            "output": "curl: (7) Failed to connect to localhost port 9100", "duration_ms": 412,
        }  # fmt: skip
        return {
            "health_state": "degraded",
            "health": {"state": "degraded", "reasons": ["wanted.d/20-metrics failed"], "checks": [check]},
        }
    if chosen == "offline":
        return {"connection": "offline", "last_seen_at": now - dice.uniform(600, 90_000), "gateway_id": None}
    if chosen == "pinned":
        return {
            "version": OLD, "slots": kit.two_slots(OLD, None), "pin_image_id": images[OLD], "pin_actor": "mb",
            "pin_reason": "GPU driver", "pinned_at": now - 7200, "pin_until": now + 8 * 86_400,
        }  # fmt: skip
    if chosen == "fell-back":
        slots = [kit.slot("A", NOW_VERSION, booted=True, next_boot=True, good=True), kit.slot("B", NEW, good=False)]
        failed = {
            "name": "systemd units", "state": "failed", "text": "kubelet.service failed", "duration_ms": 80,
            "output": "kubelet.service: Main process exited, code=exited, status=1/FAILURE",
        }  # fmt: skip
        outcome = {
            "result": "fell-back", "operation_id": "op_seed", "at": now - 1800, "version": NEW,
            "reason": "kubelet.service failed", "failed_checks": [failed],
        }  # fmt: skip
        return {
            "version": NOW_VERSION, "slots": slots, "health_state": "degraded",
            "activity": {"phase": "idle", "outcome": outcome},
        }  # fmt: skip
    if chosen == "pending":
        return {"admission": "pending", "admitted_at": None}
    return {}


def _containers(conn: Connection, rows: list[Any], ids: list[str], now: float) -> None:
    values = [
        {
            "node_id": id, "container_id": f"{service}-{id}", "name": f"{service}-{number}", "scope": "shop",
            "image": f"registry.example/shop/{service}:8.14.2", "service": service, "state": "running",
            "health": "healthy", "started_at": now - 41 * 86_400, "per_node": service == "envoy",
        }
        for number, (row, id) in enumerate(zip(rows, ids, strict=True))
        for service in SERVICES[row["labels"]["role"]]
    ]  # fmt: skip
    conn.execute(insert(schema.containers), values)


def _history(conn: Connection, rows: list[Any], ids: list[str], now: float, images: dict[str, str]) -> None:
    def event(id: str, ago_s: float, kind: str, text: str, **more: Any) -> None:
        values: dict[str, Any] = {"node_id": id, "at": now - ago_s, "kind": kind, "text": text}
        conn.execute(insert(schema.events).values(values | more))

    for row, id in list(zip(rows, ids, strict=True))[:60]:
        event(id, 40 * 86_400, "joined", "Joined with a token, admitted at once")
        event(id, 20 * 86_400, "boot", f"Booted A, {row['version']}", cause="operation", actor="mb")
        event(id, 20 * 86_400 - 700, "confirmed", f"Confirmed {row['version']} on A after 10 min")
        if row.get("phase", "idle") != "idle":
            event(id, 400, "staged", f"Staged {NEW} into B, 391 MiB, verified")
            operation = kit.add_operation(
                conn, id, target_version=NEW, phase=row["phase"], image_id=images[NEW], created_at=now - 900,
                phase_at=now - 240, reason="monthly update", hold=(row["activity"].get("holds") or [None])[0],
            )  # fmt: skip
            where = schema.nodes.c.id == id
            conn.execute(schema.nodes.update().where(where).values(desired_operation_id=operation))
        if row.get("activity", {}).get("outcome"):
            checks = row["activity"]["outcome"]["failed_checks"]
            event(id, 1800, "fell-back", f"Fell back from {NEW}: kubelet.service failed", checks=checks)


def _samples(conn: Connection, count: int, now: float) -> None:
    values = []
    for hour in range(0, 30 * 24, 6):
        share = hour / (30 * 24)
        new = int(count * max(0.0, share - 0.6))
        middle = int(count * min(1.0, share * 2)) - new
        old = count - new - middle
        for version, number in ((OLD, old), (NOW_VERSION, middle), (NEW, new)):
            values.append({"at": now - (30 * 24 - hour) * 3600.0, "version": version, "nodes": max(0, number)})
    conn.execute(insert(schema.version_samples), values)


def main() -> None:
    url = sys.argv[1]
    migrate(url)
    db = open_database(url)
    now = time.time()
    ensure_fleet(db, now)
    seed(db, int(sys.argv[2]) if len(sys.argv) > 2 else 12, now)
    db.close()


if __name__ == "__main__":
    main()
