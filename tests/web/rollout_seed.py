"""Rollouts in every state on a seeded fleet, to look at pages and to test them."""

from __future__ import annotations

import random
from typing import Any

from sqlalchemy import Connection, select, update

from app.core.rollouts import RolloutNodeState as S
from app.store import schema
from app.store.database import Database
from tests import rollout_kit as kit
from tests import server_kit
from tests.web.seed import NEW, NOW_VERSION

SOAK_S, BOOT_S, STAGE_S = 600.0, 180.0, 240.0
CHECK = {
    "name": "required.d/10-ingress",
    "state": "failed",
    "text": "exit code 1",
    "output": "curl: (7) Failed to connect to localhost port 8443 after 0 ms: Couldn't connect to server",
}
POLICY = {
    "canaries": {"count": 2},
    "max_unavailable": {"share": 0.1},
    "failure_limit": {"count": 3},
    "domain_label": "zone",
    "max_per_domain": 4,
}
HOLDS = (
    ("service-floor", "shop/checkout", "waits: shop/checkout has 3 healthy replicas, its floor is 3"),
    ("service-floor", "shop/catalog", "waits: shop/catalog has 40 healthy replicas, its floor is 40"),
    ("group-budget", "", "waits: 4 of 4 nodes of web may be missing, and are"),
    ("single-replica", "shop/ledger", "shop/ledger has a single replica, and it is on this node"),
    ("offline", "", "is not connected; it goes on when it is back"),
)


FORECAST = {
    "at": 0.0,
    "nodes": 118,
    "waves": [2, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 8],
    "worst": [
        {"scope": "shop", "name": "checkout", "healthy_now": 24, "left": 23, "wave": 3, "floor": 23},
        {"scope": "shop", "name": "catalog", "healthy_now": 24, "left": 22, "wave": 5, "floor": 20},
    ],
}  # fmt: skip
"""As a start writes it down."""


def seed_rollouts(db: Database, now: float) -> dict[str, int]:
    """State → number of a rollout in it; `running` is half done. All of the fleet's admitted nodes are in each."""
    with db.write() as change:
        conn = change.conn
        group = kit.add_group(conn, policy=POLICY)
        images = list(conn.execute(select(schema.images.c.id).where(schema.images.c.version == NEW)).scalars())
        columns = schema.nodes.c.id, schema.nodes.c.name
        admitted = select(*columns).where(schema.nodes.c.admission == "admitted").order_by(schema.nodes.c.name)
        nodes = [tuple(row) for row in conn.execute(admitted)]
        numbers = {}
        for place, (state, share) in enumerate(_STATES):
            age = 3600.0 * (len(_STATES) - place) * 12 if state in _ENDED else 5400.0
            numbers[state] = _rollout(conn, (group, images), nodes, state, share, now, age)
        change.touch("rollouts", "fleet")
    return numbers


_ENDED = ("succeeded", "rolled-back", "aborted")
_STATES = (
    ("succeeded", 1.0),
    ("rolled-back", 0.4),
    ("aborted", 0.2),
    ("paused", 0.3),
    ("halted", 0.15),
    ("running", 0.5),
    ("rolling-back", 0.5),
    ("draft", 0.0),
)


def _rollout(
    conn: Connection, of: tuple[str, list[str]], nodes: list[Any], state: str, share: float, now: float, age: float
) -> int:
    group, images = of
    started = now - age
    given: dict[str, Any] = {
        "state": state, "group_id": group, "targets": images, "version": NEW, "policy": POLICY,
        "created_at": started - 600,
        "forecast": None if state == "draft" else FORECAST,
        "started_at": None if state == "draft" else started, "moved_at": None if state == "draft" else now - 40,
        "state_text": _TEXTS.get(state, ""),
    }  # fmt: skip
    if state in _ENDED:
        given["ended_at"] = started + 5400
    id = kit.add_rollout(conn, **given)
    number: int = conn.execute(select(schema.rollouts.c.number).where(schema.rollouts.c.id == id)).scalar_one()
    if state == "draft":
        return number
    dice, wave_size = random.Random(5), max(1, len(nodes) // 12)
    ended = started + 5400 if state in _ENDED else now
    for place, (node_id, _) in enumerate(nodes):
        wave = 0 if place < 2 else 1 + (place - 2) // wave_size
        row = _passage(place, len(nodes), share, started, ended, state, dice)
        if row["state"] is S.FAILED:
            row["operation_id"] = server_kit.add_operation(conn, node_id, state="ended", failed_checks=[CHECK])
        kit.add_rollout_node(conn, id, node_id, wave=wave, old_version=NOW_VERSION, added_at=started, **row)
    for kind, text, at in (
        ("started", f"Started: {len(nodes)} nodes to {NEW}, 2 canaries first", started),
        ("canaries-soaked", "Both canaries have soaked", started + 1200),
        ("halted", _TEXTS["halted"], now - 300) if state == "halted" else ("done", "Wave 1 is through", started + 2000),
    ):
        kit.add_rollout_event(conn, id, kind, text, at=at, actor="mb" if kind == "started" else None)
    if state in ("rolled-back", "rolling-back"):
        where = schema.rollout_nodes.c.rollout_id == id, schema.rollout_nodes.c.ended_at.is_not(None)
        conn.execute(update(schema.rollout_nodes).where(*where).values(back_at=ended - 900))
        if state == "rolled-back":
            conn.execute(update(schema.rollout_nodes).where(*where).values(back_ended_at=ended - 100))
    return number


_TEXTS = {
    "halted": "4 of 41 nodes failed, and 3 may, the last: edge-lon-03: fell back",
    "paused": "Paused by mb: checking the new kernel's logs",
    "aborted": "Aborted by mb: superseded by 4153",
    "rolling-back": "Rolling back since 10 min: by mb, “latency doubled”",
}


def _passage(
    place: int, size: int, share: float, started: float, ended: float, state: str, dice: random.Random
) -> dict[str, Any]:
    """Of the node at this place: those before `share` of all are through, those around it are on the way."""
    at = place / max(1, size * share) if share else 2.0
    ordered = started + 5 + place % 20
    staged = ordered + STAGE_S * dice.uniform(0.5, 1.5)
    moving = max(staged + 10, started + (ended - started - SOAK_S - BOOT_S) * at)
    way: dict[str, Any] = {"ordered_at": ordered, "staged_at": staged}
    if at < 0.85 or (at <= 1 and state in _ENDED):
        way |= {"moving_at": moving, "confirmed_at": moving + BOOT_S, "ended_at": moving + BOOT_S + SOAK_S}
        failed = place % 37 == 11 or (state == "halted" and place > size * share * 0.5 and place % 3 == 0)
        ending = {"state": S.FAILED, "result": "fell-back", "text": "required.d/10-ingress failed: exit code 1"}
        return way | (ending if failed else {"state": S.DONE})
    if at < 0.95:
        return way | {"state": S.MOVING, "moving_at": ended - 400, "confirmed_at": ended - 200}
    if at <= 1:
        return way | {"state": S.MOVING, "moving_at": ended - 100}
    if state in _ENDED:
        return {"state": S.LEFT, "ended_at": ended, "text": "the rollout ended before its turn"}
    if at < 1.4:
        return way | {"state": S.ORDERED, "hold": _hold(HOLDS[place % 3])}
    if place % 17 == 0:
        return {"state": S.WAITING, "hold": _hold(HOLDS[3 + place % 2])}
    return {"state": S.WAITING} if place % 2 else {"state": S.ORDERED, "ordered_at": ordered}


def _hold(hold: tuple[str, str, str]) -> dict[str, Any]:
    code, subject, text = hold
    return {"code": code, "subject": subject, "text": text, "until": None}
