"""Replicas as the time line of services was last told, and the time line itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, case, delete, exists, func, insert, or_, select, update

from app.core.services import ChangeCause
from app.core.snapshot import ServiceKey
from app.store.schema import containers, events, leases, nodes, operations, replicas, rollouts, service_changes
from app.store.services import Keys, by_key
from app.store.snapshot import ON_TRIAL, RESERVED, Ids, of_ids


@dataclass(frozen=True, slots=True)
class Told:
    """What the time line knows of a service on a node."""

    healthy: int
    boot_id: str
    labelled: int | None
    per_node: bool


@cache
def _watched() -> Select[Any]:
    return select(
        nodes.c.id,
        nodes.c.name,
        nodes.c.labels,
        nodes.c.boot_id,
        and_(nodes.c.admission == "admitted", nodes.c.lost_at.is_(None)).label("member"),
        (nodes.c.connection == "online").label("online"),
        ON_TRIAL.label("trial"),
        nodes.c.placement_known,
        nodes.c.declared,
        RESERVED.label("reserved"),
    ).order_by(nodes.c.id)


def watched(conn: Connection, ids: Ids = None) -> list[Any]:
    """What of nodes decides whether their replicas serve: columns id, name, labels, boot_id, member, online, trial,
    placement_known, declared, reserved; of all nodes that ever joined."""
    query = _watched()
    return of_ids(conn, query, nodes.c.id, ids)


def labels_of_hosts(conn: Connection) -> list[tuple[str, Mapping[str, str]]]:
    """Nodes with containers that name no scope, and their labels; by id."""
    scopeless = exists().where(containers.c.node_id == nodes.c.id, containers.c.scope == "")
    rows = conn.execute(select(nodes.c.id, nodes.c.labels).where(scopeless).order_by(nodes.c.id))
    return [(row[0], row[1]) for row in rows]


def claim(conn: Connection, node_ids: Sequence[str]) -> list[str]:
    """Those of at most a few hundred nodes that nobody else is changing, held until the end of the transaction."""
    query = select(nodes.c.id).where(nodes.c.id.in_(node_ids)).order_by(nodes.c.id)
    return list(conn.execute(query.with_for_update(skip_locked=True, key_share=True)).scalars())


def told(conn: Connection, ids: Ids = None) -> dict[str, dict[ServiceKey, Told]]:
    """Node id → service → what the time line knows."""
    found: dict[str, dict[ServiceKey, Told]] = {}
    for row in of_ids(conn, _TOLD, replicas.c.node_id, ids):
        known = Told(row.healthy, row.boot_id, row.labelled, row.per_node)
        found.setdefault(row.node_id, {})[(row.scope, row.name)] = known
    return found


_TOLD = select(replicas)


def tell(
    conn: Connection,
    changed: Mapping[tuple[str, ServiceKey], Told],
    new: Mapping[tuple[str, ServiceKey], Told],
    gone: Iterable[tuple[str, ServiceKey]],
) -> None:
    """Keep what is known now, by (node id, service)."""
    this = (
        replicas.c.node_id == bindparam("of_node"),
        replicas.c.scope == bindparam("of_scope"),
        replicas.c.name == bindparam("of_name"),
    )
    removed = [_key(node_id, key) for node_id, key in gone]
    if removed:
        conn.execute(delete(replicas).where(*this), removed)
    if changed:
        columns = ("healthy", "boot_id", "labelled", "per_node")
        statement = update(replicas).where(*this).values({name: bindparam(f"to_{name}") for name in columns})
        conn.execute(
            statement,
            [
                {**_key(node_id, key), **{f"to_{name}": getattr(known, name) for name in columns}}
                for (node_id, key), known in changed.items()
            ],
        )
    if new:
        conn.execute(
            insert(replicas),
            [
                {
                    "node_id": node_id,
                    "scope": key[0],
                    "name": key[1],
                    "healthy": known.healthy,
                    "boot_id": known.boot_id,
                    "labelled": known.labelled,
                    "per_node": known.per_node,
                }
                for (node_id, key), known in new.items()
            ],
        )


def _key(node_id: str, key: ServiceKey) -> dict[str, str]:
    return {"of_node": node_id, "of_scope": key[0], "of_name": key[1]}


@dataclass(frozen=True, slots=True)
class Total:
    """A service over the whole fleet, as the time line was last told."""

    key: ServiceKey
    healthy: int
    nodes: int
    """On so many it has containers, healthy or not."""
    labelled: int | None
    per_node: bool


def totals(conn: Connection, keys: Keys = None) -> list[Total]:
    """By scope and name."""
    query = (
        select(
            replicas.c.scope,
            replicas.c.name,
            func.sum(replicas.c.healthy),
            func.count(),
            func.max(replicas.c.labelled),
            func.min(case((replicas.c.per_node, 1), else_=0)),
        )
        .group_by(replicas.c.scope, replicas.c.name)
        .order_by(replicas.c.scope, replicas.c.name)
    )
    return [
        Total((row[0], row[1]), int(row[2]), row[3], row[4], bool(row[5]))
        for row in by_key(conn, query, replicas.c.scope, replicas.c.name, keys)
    ]


def on_nodes(conn: Connection, node_ids: Sequence[str]) -> dict[ServiceKey, int]:
    """Healthy replicas of each service on these nodes together."""
    found: dict[ServiceKey, int] = {}
    for here in told(conn, sorted(set(node_ids))).values():
        for key, known in here.items():
            found[key] = found.get(key, 0) + known.healthy
    return found


def nodes_of(conn: Connection, key: ServiceKey) -> list[tuple[str, str, int]]:
    """Where it runs: node id, name, healthy replicas there; by name."""
    rows = conn.execute(
        select(replicas.c.node_id, nodes.c.name, replicas.c.healthy)
        .join(nodes, nodes.c.id == replicas.c.node_id)
        .where(replicas.c.scope == key[0], replicas.c.name == key[1])
        .order_by(nodes.c.name, nodes.c.id)
    )
    return [(row[0], row[1], row[2]) for row in rows]


# --- causes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Order:
    """An operation as a cause."""

    id: str
    kind: str
    target_version: str
    actor: str
    rollout_id: str | None
    rollout_number: int | None


def boots(conn: Connection, node_ids: Sequence[str]) -> dict[str, tuple[str, str | None]]:
    """Node id → (cause, operation) that its newest boot event tells, where that is of the boot that it is in."""
    newest = (
        select(func.max(events.c.id))
        .join(nodes, and_(nodes.c.id == events.c.node_id, nodes.c.boot_id == events.c.boot_id))
        .where(events.c.node_id.in_(node_ids), events.c.kind.in_(("boot", "boot-unknown")))
        .group_by(events.c.node_id)
    )
    rows = conn.execute(select(events.c.node_id, events.c.cause, events.c.operation_id).where(events.c.id.in_(newest)))
    return {row[0]: (row[1] or "", row[2]) for row in rows}


def reserved_for(conn: Connection, node_ids: Sequence[str]) -> dict[str, str]:
    """Node id → the operation that its lease is out for."""
    query = select(leases.c.node_id, leases.c.operation_id).where(
        leases.c.node_id.in_(node_ids), leases.c.ended_at.is_(None)
    )
    return {row[0]: row[1] for row in conn.execute(query)}


def orders(conn: Connection, operation_ids: Iterable[str]) -> dict[str, Order]:
    query = (
        select(
            operations.c.id,
            operations.c.kind,
            operations.c.target_version,
            operations.c.actor,
            operations.c.rollout_id,
            rollouts.c.number,
        )
        .outerjoin(rollouts, rollouts.c.id == operations.c.rollout_id)
        .where(operations.c.id.in_(sorted(set(operation_ids))))
    )
    return {row[0]: Order(*row) for row in conn.execute(query)}


def last_losses(conn: Connection, node_ids: Sequence[str]) -> dict[str, tuple[ChangeCause, str | None]]:
    """Node id → why replicas were last lost there, and by which operation."""
    newest = (
        select(func.max(service_changes.c.id))
        .where(service_changes.c.node_id.in_(node_ids), service_changes.c.change < 0)
        .group_by(service_changes.c.node_id)
    )
    rows = conn.execute(
        select(service_changes.c.node_id, service_changes.c.cause, service_changes.c.operation_id).where(
            service_changes.c.id.in_(newest)
        )
    )
    return {row[0]: (ChangeCause(row[1]), row[2]) for row in rows}


# --- the time line ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServiceChange:
    """Replicas lost (below 0) or returned. `healthy`: in the fleet, after it."""

    id: int
    at: float
    key: ServiceKey
    node_id: str | None
    """None: not of one node."""
    node_name: str
    change: int
    healthy: int
    cause: ChangeCause
    text: str
    operation_id: str | None
    rollout_id: str | None


def add(conn: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        conn.execute(insert(service_changes), list(rows))


def line(conn: Connection, key: ServiceKey, *, before_id: int | None = None, limit: int = 100) -> list[ServiceChange]:
    """Newest first; `before_id` continues a page."""
    query = (
        select(service_changes, func.coalesce(nodes.c.name, "").label("node_name"))
        .outerjoin(nodes, nodes.c.id == service_changes.c.node_id)
        .where(service_changes.c.scope == key[0], service_changes.c.name == key[1])
    )
    if before_id is not None:
        query = query.where(service_changes.c.id < before_id)
    return [
        ServiceChange(
            row.id,
            row.at,
            (row.scope, row.name),
            row.node_id,
            row.node_name,
            row.change,
            row.healthy,
            ChangeCause(row.cause),
            row.text,
            row.operation_id,
            row.rollout_id,
        )
        for row in conn.execute(query.order_by(service_changes.c.id.desc()).limit(limit))
    ]


def first_at(conn: Connection, key: ServiceKey, replicas: int) -> int | None:
    """The id of the first change before or after which so many were healthy; None: never, as far as is remembered."""
    c = service_changes.c
    so_many = or_(c.healthy >= replicas, c.healthy - c.change >= replicas)
    found: int | None = conn.execute(
        select(func.min(c.id)).where(c.scope == key[0], c.name == key[1], so_many)
    ).scalar_one()
    return found


def any_told(conn: Connection) -> bool:
    """Whether anything was ever told: a fleet that is new here has no losses yet, only a beginning."""
    return bool(conn.execute(_ANY_TOLD).scalar_one())


_ANY_TOLD = select(exists().select_from(replicas))
