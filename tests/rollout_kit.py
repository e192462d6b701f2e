"""Builders of rollouts, groups and their rows. Whatever is not given gets a plausible value."""

from __future__ import annotations

import itertools
from typing import Any

from sqlalchemy import Connection, insert

from app.store import schema
from tests.server_kit import NOW, digest_of

_count = itertools.count(1)


def add_group(conn: Connection, name: str = "web", **given: Any) -> str:
    """A group of the nodes with role=web under the default policy; returns its id."""
    values: dict[str, Any] = {
        "id": f"group_{next(_count):026d}",
        "name": name,
        "selector": "role=web",
        "precedence": 10,
        "policy": {},
        "created_by": "mb",
        "created_at": NOW - 86_400,
    }
    conn.execute(insert(schema.groups).values(values | given))
    return str((values | given)["id"])


def add_rollout(conn: Connection, **given: Any) -> str:
    """A running update to 2.0, started at NOW; returns its id. `given` are columns."""
    number = next(_count)
    values: dict[str, Any] = {
        "id": f"rollout_{number:026d}",
        "number": number,
        "kind": "update",
        "state": "running",
        "group_name": "web",
        "selector": "role=web",
        "targets": [],
        "version": "2.0",
        "policy": {},
        "allowances": [],
        "left_out": [],
        "actor": "mb",
        "reason": "monthly update",
        "created_at": NOW - 60,
        "started_at": NOW,
    }
    conn.execute(insert(schema.rollouts).values(values | given))
    return str((values | given)["id"])


def add_rollout_node(conn: Connection, rollout_id: str, node_id: str, **given: Any) -> None:
    """The node in the rollout: waiting in wave 1 since the start."""
    values: dict[str, Any] = {
        "rollout_id": rollout_id,
        "node_id": node_id,
        "state": "waiting",
        "wave": 1,
        "canary": given.get("wave") == 0,
        "old_version": "1.0",
        "old_digest": digest_of(given.get("old_version", "1.0")),
        "added_at": NOW,
    }
    conn.execute(insert(schema.rollout_nodes).values(values | given))


def add_rollout_event(conn: Connection, rollout_id: str, kind: str, text: str, **given: Any) -> None:
    values: dict[str, Any] = {"rollout_id": rollout_id, "at": NOW, "kind": kind, "text": text}
    conn.execute(insert(schema.rollout_events).values(values | given))
