"""What a tick of admission costs at 10,000 nodes with 100,000 containers of 1,000 services and a rollout over all of
them, half of it waiting for its leases: when nothing changed, and when one node in a hundred did.

On SQLite, with the nudges that the writes of gateways cause. Median of many ticks; the nodes that change are others
each time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, insert, update

from app.core.group_policy import GroupPolicy
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services.admission import Admission
from app.services.fleet import ensure_fleet
from app.services.service_watch import ServiceWatch
from app.store import rollouts, schema
from app.store.database import Database, open_database
from app.store.migrate import migrate
from bench.fleet_rows import fill

NODES = 10_000
CONTAINERS = 10
"""On each node, beside the three that every node of the benchmarks has."""
SERVICES = 1_000
CHANGED = NODES // 100
TICKS = 20
GOAL_UNCHANGED_MS = 5.0
GOAL_CHANGED_MS = 50.0


def run() -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'tick.db'}"
        migrate(url)
        db = open_database(url)
        try:
            return _measure(db)
        finally:
            db.close()


def _measure(db: Database) -> list[dict[str, object]]:
    now = time.time()
    ensure_fleet(db, now)
    ids = fill(db, NODES, now)
    _settle(db, ids, now)
    ServiceWatch().step(db, now)
    admission = Admission()
    db.nudges.subscribe(admission.note)
    for second in range(3):
        admission.tick(db, now + second)
    unchanged = [_timed(lambda: admission.tick(db, now + 3)) for _ in range(TICKS)]
    changed = []
    for number in range(TICKS):
        _change(db, ids[number * CHANGED : (number + 1) * CHANGED], number)
        changed.append(_timed(lambda at=now + 4 + number / 10: admission.tick(db, at)))  # type: ignore[misc]
    return [
        _figure("tick-unchanged-ms", statistics.median(unchanged), GOAL_UNCHANGED_MS),
        _figure("tick-1pct-ms", statistics.median(changed), GOAL_CHANGED_MS),
    ]


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _figure(name: str, value: float, goal: float) -> dict[str, object]:
    return {"name": name, "value": round(value, 2), "unit": "ms", "goal": f"<= {goal:g}", "met": value <= goal}


def _settle(db: Database, ids: list[str], now: float) -> None:
    """One group, one rollout that is running, its nodes staged and told to wait."""
    hold = {"code": "group-budget", "text": "waits", "retry_s": 60.0, "nonce": "n"}
    with db.write() as change:
        conn = change.conn
        group = {"id": "group_all", "name": "all", "selector": "*", "precedence": 0, "policy": {}, "created_by": "b"}
        conn.execute(insert(schema.groups).values(created_at=now, **group))
        conn.execute(
            insert(schema.containers), [row for number, id in enumerate(ids) for row in _runs(number, id, now)]
        )
        conn.execute(insert(schema.rollouts).values(_rollout(now)))
        conn.execute(insert(schema.operations), [_operation(id, now, hold) for id in ids[: NODES // 2]])
        conn.execute(insert(schema.rollout_nodes), [_member(id, number, now) for number, id in enumerate(ids)])
        desired = update(schema.nodes).where(schema.nodes.c.id == bindparam("of_id"))
        conn.execute(
            desired.values(desired_operation_id=bindparam("to_op"), health_state="healthy"),
            [{"of_id": id, "to_op": f"op_{id}"} for id in ids[: NODES // 2]],
        )


def _runs(number: int, node_id: str, now: float) -> list[dict[str, Any]]:
    return [
        {
            "node_id": node_id,
            "container_id": f"t{place}",
            "name": f"s{place}",
            "image": "registry.example/s:1",
            "scope": "tick",
            "service": f"s{(number * CONTAINERS + place) % SERVICES}",
            "state": "running",
            "health": "healthy",
            "started_at": now,
            "per_node": False,
        }
        for place in range(CONTAINERS)
    ]


def _rollout(now: float) -> dict[str, Any]:
    return {
        "id": "rollout_tick",
        "number": 1,
        "kind": "reboot",
        "state": RolloutState.RUNNING.value,
        "targets": [],
        "policy": rollouts.policy_json(GroupPolicy()),
        "allowances": [],
        "left_out": [],
        "actor": "bench",
        "reason": "",
        "created_at": now,
        "started_at": now,
    }


def _operation(node_id: str, now: float, hold: dict[str, object]) -> dict[str, Any]:
    return {
        "id": f"op_{node_id}",
        "node_id": node_id,
        "kind": "reboot",
        "order_epoch": 1,
        "order_generation": 1,
        "state": "open",
        "phase": "staged",
        "actor": "bench",
        "reason": "",
        "rollout_id": "rollout_tick",
        "policy": {},
        "lease_nonce": "n",
        "lease_nonce_at": now,
        "lease_asked_at": now,
        "hold": hold,
        "created_at": now,
    }


def _member(node_id: str, number: int, now: float) -> dict[str, Any]:
    state = RolloutNodeState.ORDERED if number < NODES // 2 else RolloutNodeState.WAITING
    return {
        "rollout_id": "rollout_tick",
        "node_id": node_id,
        "state": state.value,
        "wave": 1,
        "canary": False,
        "operation_id": f"op_{node_id}" if number < NODES // 2 else None,
        "added_at": now,
    }


def _change(db: Database, ids: list[str], number: int) -> None:
    """What a gateway writes when nodes tell other health and other containers."""
    with db.write() as change:
        state = ("degraded", "healthy")[number % 2]
        health = {"health_state": state, "health": {"state": state}}
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id.in_(ids)).values(**health))
        first = schema.containers.c.node_id.in_(ids), schema.containers.c.container_id == "t0"
        change.conn.execute(update(schema.containers).where(*first).values(health="unhealthy"))
        change.touch("nodes", "fleet", *(f"node:{node_id}" for node_id in ids))
