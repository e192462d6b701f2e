"""Builders of rows in any state, for all tests of the server. Whatever is not given gets a plausible value."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

from sqlalchemy import Connection, insert, text

from app.core.actors import Actor, ActorKind
from app.store import schema
from app.store.database import Database
from wire.identity import new_private_key, public_key

NOW = 1_750_000_000.0
"""A moment that tests count from."""

OPERATOR = Actor(ActorKind.PERSON, "mb", "mb")

_count = itertools.count(1)


def digest_of(version: str) -> str:
    """The digest that images and slots of `version` have in tests."""
    return "sha256:" + hashlib.sha256(version.encode()).hexdigest()


def slot(name: str, version: str | None, **given: Any) -> dict[str, Any]:
    """A slot as the nodes row keeps it."""
    values: dict[str, Any] = {"name": name, "booted": False, "next_boot": False}
    if version is not None:
        values |= {"version": version, "digest": digest_of(version)}
    return values | given


def two_slots(
    booted: str = "1.0", passive: str | None = None, *, passive_good: bool | None = None
) -> list[dict[str, Any]]:
    """A is booted and next boot; B is passive."""
    first = slot("A", booted, booted=True, next_boot=True, good=True)
    second = slot("B", passive)
    if passive_good is not None:
        second["good"] = passive_good
    return [first, second]


def add_node(conn: Connection, name: str | None = None, **given: Any) -> str:
    """An admitted, online, healthy, idle node on version 1.0 in slot A; returns its id. `given` are columns."""
    number = next(_count)
    version = given.get("version", "1.0")
    values: dict[str, Any] = {
        "id": f"node_{number:026d}",
        "name": name or f"node-{number}",
        "public_key": public_key(new_private_key()),
        "machine_id": f"machine-{number}",
        "hardware": f"sha256:{number:064x}",
        "admission": "admitted",
        "labels": {},
        "joined_at": NOW - 86_400,
        "admitted_at": NOW - 86_400,
        "agent_version": "0.1.0",
        "agent_mode": "agent",
        "evidence": "agent with slots and placement",
        "os_id": "demo",
        "os_name": "Demo OS",
        "os_version": version,
        "arch": "amd64",
        "driver": "files",
        "boot_id": f"boot-{number}",
        "booted_at": NOW - 3600,
        "booted_slot": "A",
        "booted_digest": digest_of(version),
        "version": version,
        "slots": two_slots(version),
        "health_state": "healthy",
        "health": {"state": "healthy"},
        "phase": "idle",
        "activity": {"phase": "idle"},
        "placement_known": True,
        "placement_told": True,
        "connection": "online",
        "connected_at": NOW - 600,
        "last_seen_at": NOW,
    }
    conn.execute(insert(schema.nodes).values(values | given))
    return str((values | given)["id"])


def add_image(conn: Connection, version: str = "2.0", **given: Any) -> str:
    """An image of our own store for Demo OS on amd64; returns its id."""
    number = next(_count)
    values: dict[str, Any] = {
        "id": f"image_{number:026d}",
        "os": "demo",
        "arch": "amd64",
        "version": version,
        "digest": digest_of(version),
        "size": 1024,
        "stored": True,
        "signature": "",
        "key_id": "",
        "created_by": "test",
        "created_at": NOW - 3600,
    }
    conn.execute(insert(schema.images).values(values | given))
    return str((values | given)["id"])


def add_channel(conn: Connection, name: str = "stable", image_id: str | None = None, **given: Any) -> str:
    """A channel; with `image_id` it points at that image for Demo OS on amd64. Returns its id."""
    number = next(_count)
    values = {"id": f"channel_{number:026d}", "name": name, "created_at": NOW - 7200} | given
    conn.execute(insert(schema.channels).values(values))
    if image_id is not None:
        conn.execute(
            insert(schema.channel_moves).values(
                channel_id=values["id"],
                os="demo",
                arch="amd64",
                image_id=image_id,
                actor="test",
                reason="test",
                at=NOW - 3600,
            )
        )
    return str(values["id"])


def add_container(conn: Connection, node_id: str, name: str, **given: Any) -> None:
    values: dict[str, Any] = {
        "node_id": node_id,
        "container_id": f"c{next(_count):063x}",
        "name": name,
        "image": f"registry.example/{name}:1",
        "scope": "",
        "service": name,
        "state": "running",
        "health": "healthy",
        "started_at": NOW - 600,
        "per_node": False,
    }
    conn.execute(insert(schema.containers).values(values | given))


def add_gateway(conn: Connection, **given: Any) -> str:
    """A gateway that has been up for an hour; returns its id."""
    values: dict[str, Any] = {
        "id": f"gateway_{next(_count):026d}",
        "started_at": NOW - 3600,
        "heartbeat_at": NOW,
        "connections": 1,
    }
    conn.execute(insert(schema.gateways).values(values | given))
    return str((values | given)["id"])


def add_operation(conn: Connection, node_id: str, kind: str = "activate", **given: Any) -> str:
    """An open operation of the node towards version 2.0, in phase idle; returns its id. Not made desired."""
    number = next(_count)
    target = given.get("target_version", "2.0")
    values: dict[str, Any] = {
        "id": f"op_{number:026d}",
        "node_id": node_id,
        "kind": kind,
        "target_version": target,
        "target_digest": digest_of(target),
        "order_epoch": 1,
        "order_generation": 1,
        "state": "open",
        "phase": "idle",
        "actor": "mb",
        "reason": "test",
        "policy": {},
        "old_boot_id": "boot-old",
        "old_slot": "A",
        "old_version": "1.0",
        "old_digest": digest_of("1.0"),
        "created_at": NOW,
        "phase_at": NOW,
    }
    conn.execute(insert(schema.operations).values(values | given))
    return str((values | given)["id"])


def add_server_key(conn: Connection, public: str) -> None:
    """A key of the server that nodes may join under; its private half is nobody's. May be there already."""
    row = {"public_key": public, "at": NOW - 86_400}
    conn.execute(
        text(
            "INSERT INTO server_keys (public_key, sealed_private_key, created_at) VALUES (:public_key, '', :at)"
            " ON CONFLICT DO NOTHING"
        ),
        row,
    )


def count_rows(db: Database, table: Any) -> int:
    """How many rows a table has."""
    with db.read() as conn:
        return len(conn.execute(table.select()).all())


def revisions(db: Database) -> dict[str, int]:
    """Topic → revision, of all that ever changed."""
    with db.read() as conn:
        return {row.topic: row.revision for row in conn.execute(schema.revisions.select())}
