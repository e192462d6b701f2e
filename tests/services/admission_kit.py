"""A fleet whose nodes ask for leases, for tests of admission."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, select, update

from app.core.planner import Standing, admit
from app.services.admission import gathered
from app.services.admission_apply import Applied, Chosen, apply
from app.services.desired import lease_answer
from app.services.node_views import Setting
from app.services.operations import ask_lease
from app.services.service_watch import ServiceWatch
from app.store import leases, schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW
from wire.messages import LeaseGrant, LeaseRequest, LeaseWait, OperationKind

GATEWAY = "gateway_live"


def gateway(db: Database, now: float = NOW) -> None:
    with db.write() as change:
        kit.add_gateway(change.conn, id=GATEWAY, heartbeat_at=now, started_at=now - 3600)


def node(db: Database, name: str, runs: Sequence[str | tuple[str, dict[str, Any]]] = (), **given: Any) -> str:
    """A connected node; `runs`: services (scope `shop`) that have a healthy container on it. Returns its id."""
    with db.write() as change:
        values = {"gateway_id": GATEWAY, "boot_id": f"boot-{name}"} | given
        node_id = kit.add_node(change.conn, name, **values)
        for each in runs:
            service, more = (each, {}) if isinstance(each, str) else each
            kit.add_container(change.conn, node_id, service, **({"scope": "shop"} | more))
    return node_id


def asks(db: Database, node_id: str, now: float = NOW, nonce: str = "n1", **given: Any) -> str:
    """The node's staged update asks for a lease; returns the operation."""
    operation_id = f"op_{node_id}"
    with db.write() as change:
        if change.conn.execute(select(schema.operations.c.id).where(schema.operations.c.id == operation_id)).first():
            pass
        else:
            kit.add_operation(change.conn, node_id, id=operation_id, phase="staged", **given)
            set_node(change.conn, node_id, desired_operation_id=operation_id)
        ask_lease(change, node_id, LeaseRequest(operation_id=operation_id, nonce=nonce), now)
    return operation_id


def set_node(conn: Any, node_id: str, **values: Any) -> None:
    conn.execute(update(schema.nodes).where(schema.nodes.c.id == node_id).values(**values))


def change_node(db: Database, node_id: str, **values: Any) -> None:
    with db.write() as change:
        set_node(change.conn, node_id, **values)
        change.touch(f"node:{node_id}", "nodes")


def group(db: Database, name: str = "all", selector: str = "*", **policy: Any) -> str:
    """A group; `policy`: its fields as JSON. Three nodes may be missing unless it says otherwise."""
    group_id = f"group_{name}"
    with db.write() as change:
        change.conn.execute(
            insert(schema.groups).values(
                id=group_id,
                name=name,
                selector=selector,
                precedence=0,
                policy={"max_unavailable": {"count": 3}} | policy,
                created_by="test",
                created_at=NOW,
            )
        )
        change.touch("groups")
    return group_id


def holders(db: Database) -> set[str]:
    """Names of the nodes that hold a lease."""
    with db.read() as conn:
        return {held.node_name for held in leases.all_held(conn)}


def answer(db: Database, node_id: str) -> LeaseGrant | LeaseWait | None:
    with db.read() as conn:
        return lease_answer(conn, node_id)


def told(db: Database, node_id: str) -> str:
    """Code of the hold that the node's request was answered with."""
    found = answer(db, node_id)
    assert isinstance(found, LeaseWait), found
    return found.hold.code


def choose(db: Database, now: float) -> tuple[Setting, list[Chosen]]:
    """What a conductor would grant now, before it does."""
    with db.read() as conn:
        view = gathered(conn, now)
    standing = Standing.of(view.snapshot())
    chosen = []
    for place in admit(standing).admitted:
        candidate = standing.candidates[place]
        asking, rollout = view.asking[candidate.operation_id], standing.rollouts[candidate.rollout]
        chosen.append(
            Chosen(
                asking.operation_id,
                asking.node_id,
                None if rollout.direct else rollout.id,
                OperationKind(asking.kind),
                candidate.canary,
            )
        )
    return view.setting, chosen


def grant(db: Database, seen: tuple[Setting, list[Chosen]], now: float) -> Applied:
    return apply(db, *seen, now)


THREE = ("a", "b", "c")


def three_asking(db: Database) -> list[str]:
    """Three nodes with a replica of shop/web each, all of them asking; the group's budget alone would let all go."""
    gateway(db)
    group(db)
    ids = [node(db, name, ["web"]) for name in THREE]
    ServiceWatch().step(db, NOW)
    for node_id in ids:
        asks(db, node_id)
    return ids
