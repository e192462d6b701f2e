"""Nodes: one with everything, its containers, and changes of desired state. Lists are in node_list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, bindparam, case, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from app.core.nodes import Admission, FailedHere, Node, Pin
from app.core.nodes import Connection as Standing
from app.store import failed_versions, operations
from app.store.schema import channels, gateways, images, nodes
from app.store.schema import containers as container_rows
from wire.messages import Activity, Health, Order, Slot

_IDS_AT_ONCE = 500
"""SQLite takes a bounded number of parameters."""

_PIN_CHANNEL = channels.alias("pin_channel")

LAST_SEEN: ColumnElement[float | None] = case(
    (
        (nodes.c.connection == Standing.ONLINE.value) & gateways.c.heartbeat_at.is_not(None),
        func.coalesce(gateways.c.heartbeat_at, nodes.c.last_seen_at),
    ),
    else_=nodes.c.last_seen_at,
)
"""While a node is connected, its gateway's own heartbeat counts (DESIGN §4); needs `nodes` joined with `gateways`."""


_ROWS = nodes.outerjoin(gateways, gateways.c.id == nodes.c.gateway_id).outerjoin(
    channels, channels.c.id == nodes.c.channel_id
)


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a node's placement."""

    id: str
    name: str
    image: str
    scope: str
    service: str
    state: str
    health: str
    started_at: float | None
    replicas: int | None
    per_node: bool


def get(conn: Connection, node_id: str, *, lock: bool = False) -> Node | None:
    """Everything about a node. `lock`: its row is ours until the end of the transaction; taken before all others."""
    if lock and not lock_row(conn, node_id):
        return None
    row = conn.execute(_one(), {"node_id": node_id}).one_or_none()
    return None if row is None else _node(conn, row)


@cache
def _one() -> Select[Any]:
    return _everything().where(nodes.c.id == bindparam("node_id"))


def lock_row(conn: Connection, node_id: str) -> bool:
    """Hold the node's row; whether there is one. Lock order of all transactions: fleet, node, operations, leases."""
    query = select(nodes.c.id).where(nodes.c.id == node_id).with_for_update(key_share=True)
    return conn.execute(query).one_or_none() is not None


def lock_rows(conn: Connection, node_ids: Sequence[str]) -> None:
    """Hold the rows of these nodes, which are sorted: all transactions take them in that order."""
    for start in range(0, len(node_ids), _ROWS_AT_ONCE):
        some = nodes.c.id.in_(node_ids[start : start + _ROWS_AT_ONCE])
        conn.execute(select(nodes.c.id).where(some).order_by(nodes.c.id).with_for_update(key_share=True)).all()


_ROWS_AT_ONCE = 500


def find(conn: Connection, name_or_id: str) -> str | None:
    """Id of the node with this id or, when exactly one node that is not retired has it, this name."""
    rows = (
        conn.execute(
            select(nodes.c.id).where(
                (nodes.c.id == name_or_id)
                | ((nodes.c.name == name_or_id) & (nodes.c.admission != Admission.RETIRED.value))
            )
        )
        .scalars()
        .all()
    )
    return rows[0] if len(rows) == 1 else None


def containers(conn: Connection, node_id: str) -> list[Container]:
    """A node's containers by service and name."""
    rows = conn.execute(
        select(container_rows)
        .where(container_rows.c.node_id == node_id)
        .order_by(container_rows.c.scope, container_rows.c.service, container_rows.c.name)
    )
    return [
        Container(
            row.container_id,
            row.name,
            row.image,
            row.scope,
            row.service,
            row.state,
            row.health,
            row.started_at,
            row.replicas,
            row.per_node,
        )
        for row in rows
    ]


def change(conn: Connection, node_id: str, values: Mapping[str, Any]) -> None:
    """Set columns of desired state."""
    conn.execute(update(nodes).where(nodes.c.id == node_id).values(**values))


def give_order(conn: Connection, node: Node, epoch: int, operation_id: str | None) -> Order | None:
    """Make this operation (None: nothing) what is desired, under the next order; None when another was faster."""
    order = Order(epoch=epoch, generation=node.order.generation + 1)
    given = conn.execute(
        update(nodes)
        .where(
            nodes.c.id == node.id,
            nodes.c.order_epoch == node.order.epoch,
            nodes.c.order_generation == node.order.generation,
        )
        .values(order_epoch=order.epoch, order_generation=order.generation, desired_operation_id=operation_id)
    )
    return order if given.rowcount == 1 else None


def forget_operation(conn: Connection, node_id: str, operation_id: str) -> None:
    """It has ended: nothing is desired any more, under the same order."""
    conn.execute(
        update(nodes)
        .where(nodes.c.id == node_id, nodes.c.desired_operation_id == operation_id)
        .values(desired_operation_id=None)
    )


def expired_pins(conn: Connection, now: float, limit: int) -> list[str]:
    """Nodes whose pin is over."""
    return list(conn.execute(_expired_pins(limit), {"now": now}).scalars())


@cache
def _expired_pins(limit: int) -> Select[Any]:
    return select(nodes.c.id).where(nodes.c.pin_until <= bindparam("now")).order_by(nodes.c.pin_until).limit(limit)


def online_on(conn: Connection, gateway_ids: Sequence[str], limit: int) -> list[tuple[str, str]]:
    """Nodes written as online on one of these gateways: (node id, gateway id)."""
    rows = conn.execute(
        select(nodes.c.id, nodes.c.gateway_id)
        .where(nodes.c.connection == Standing.ONLINE.value, nodes.c.gateway_id.in_(gateway_ids))
        .order_by(nodes.c.id)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in rows]


def gateways_in_use(conn: Connection) -> list[str]:
    """Gateways that some node's connection is written on."""
    return [gateway_id for gateway_id in conn.execute(_IN_USE).scalars() if gateway_id is not None]


_IN_USE = (
    select(nodes.c.gateway_id)
    .where(nodes.c.gateway_id.is_not(None), nodes.c.connection == Standing.ONLINE.value)
    .distinct()
)


def gateway_of(conn: Connection, node_ids: Sequence[str]) -> dict[str, str | None]:
    """Node id → the gateway that its connection is written on."""
    found: dict[str, str | None] = {}
    for start in range(0, len(node_ids), _IDS_AT_ONCE):
        piece = node_ids[start : start + _IDS_AT_ONCE]
        rows = conn.execute(select(nodes.c.id, nodes.c.gateway_id).where(nodes.c.id.in_(piece)))
        found.update({row[0]: row[1] for row in rows})
    return found


def turn_offline(conn: Connection, node_id: str, gateway_id: str, seen_at: float) -> bool:
    """The node did not come back after its gateway died; not when it is on another connection by now."""
    turned = conn.execute(
        update(nodes)
        .where(
            nodes.c.id == node_id,
            nodes.c.gateway_id == gateway_id,
            nodes.c.connection == Standing.ONLINE.value,
        )
        .values(
            connection=Standing.OFFLINE.value, gateway_id=None, connection_id=None, probe_at=None, last_seen_at=seen_at
        )
    )
    return turned.rowcount == 1


def _everything() -> Select[Any]:
    return select(
        nodes,
        LAST_SEEN.label("seen_at"),
        gateways.c.heartbeat_at.label("gateway_heartbeat_at"),
        channels.c.name.label("channel_name"),
        _PIN_CHANNEL.c.name.label("pin_channel_name"),
        images.c.version.label("pin_version"),
    ).select_from(
        _ROWS.outerjoin(_PIN_CHANNEL, _PIN_CHANNEL.c.id == nodes.c.pin_channel_id).outerjoin(
            images, images.c.id == nodes.c.pin_image_id
        )
    )


def _pin(row: Row[Any]) -> Pin | None:
    if row.pinned_at is None:
        return None
    return Pin(
        channel_id=row.pin_channel_id,
        channel_name=row.pin_channel_name,
        image_id=row.pin_image_id,
        version=row.pin_version,
        actor=row.pin_actor or "",
        reason=row.pin_reason or "",
        at=row.pinned_at,
        until=row.pin_until,
    )


def _node(conn: Connection, row: Row[Any]) -> Node:
    open_ones = operations.open_of(conn, row.id)
    desired = next((one for one in open_ones if one.id == row.desired_operation_id), None)
    failed: tuple[FailedHere, ...] = tuple(failed_versions.of_node(conn, row.id))
    return Node(
        **{name: row._mapping[name] for name in _AS_STORED},
        admission=Admission(row.admission),
        order=Order(epoch=row.order_epoch, generation=row.order_generation),
        operation=desired or (open_ones[-1] if open_ones else None),
        pin=_pin(row),
        slots=tuple(msgspec.convert(row.slots, list[Slot])),
        health=msgspec.convert(row.health or {"state": row.health_state}, Health),
        activity=msgspec.convert(row.activity or {}, Activity),
        connection=Standing(row.connection),
        last_seen_at=row.seen_at,
        previous=operations.previous_of(conn, row.id, row.booted_digest),
        failed=failed,
    )


_AS_STORED = (
    "id",
    "name",
    "labels",
    "machine_id",
    "hardware",
    "replaces_id",
    "replaced_by_id",
    "joined_at",
    "admitted_at",
    "retired_at",
    "desired_operation_id",
    "channel_id",
    "channel_name",
    "agent_version",
    "agent_mode",
    "evidence",
    "os_id",
    "os_name",
    "os_version",
    "kernel",
    "arch",
    "driver",
    "boot_id",
    "booted_at",
    "booted_slot",
    "booted_digest",
    "version",
    "health_state",
    "phase",
    "on_trial",
    "placement_known",
    "placement_reason",
    "engine",
    "containers_running",
    "gateway_id",
    "gateway_heartbeat_at",
    "remote",
    "connected_at",
    "conflict",
)
"""Columns that a node has under the same name, as they are."""
