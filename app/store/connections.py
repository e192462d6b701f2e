"""Which connection speaks for which node: claimed and released by conditional updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Select, and_, bindparam, case, insert, select, union, update

from app.core.clocks import GATEWAY_FRESH_S
from app.store.schema import failed_versions, gateways, nodes, operations


@dataclass(frozen=True, slots=True)
class Identity:
    """What a gateway must know of a node before and while it is connected."""

    id: str
    name: str
    public_key: str
    machine_id: str
    hardware: str
    admission: str
    replaced: bool
    connection: str
    gateway_id: str | None
    connection_id: str | None
    conflict: Mapping[str, Any] | None
    order_epoch: int
    order_generation: int


_COLUMNS = (
    nodes.c.id,
    nodes.c.name,
    nodes.c.public_key,
    nodes.c.machine_id,
    nodes.c.hardware,
    nodes.c.admission,
    nodes.c.replaced_by_id.is_not(None),
    nodes.c.connection,
    nodes.c.gateway_id,
    nodes.c.connection_id,
    nodes.c.conflict,
    nodes.c.order_epoch,
    nodes.c.order_generation,
)


def identities(conn: Connection, node_ids: Sequence[str], *, lock: bool = False) -> dict[str, Identity]:
    """The nodes that exist; with `lock` their rows stay locked until the end of the transaction."""
    rows = conn.execute(_identities(lock=lock), {"node_ids": node_ids})
    return {row[0]: Identity(*row) for row in rows}


@cache
def _identities(*, lock: bool) -> Select[Any]:
    query = select(*_COLUMNS).where(nodes.c.id.in_(bindparam("node_ids", expanding=True))).order_by(nodes.c.id)
    return query.with_for_update() if lock else query


def with_something_to_do(conn: Connection, node_ids: Sequence[str]) -> set[str]:
    """Nodes with an open operation or a cleared failed version; for all others the desired state is only an order."""
    return set(conn.execute(_with_something_to_do(), {"node_ids": node_ids}).scalars())


@cache
def _with_something_to_do() -> CompoundSelect[Any]:
    ids: Any = bindparam("node_ids", expanding=True)
    at_work = select(operations.c.node_id).where(operations.c.state == "open", operations.c.node_id.in_(ids))
    cleared = select(failed_versions.c.node_id).where(
        failed_versions.c.cleared_at.is_not(None), failed_versions.c.node_id.in_(ids)
    )
    return union(at_work, cleared)


def live_gateways(conn: Connection, now: float) -> set[str]:
    """Gateways that are not stopped and whose heartbeat is fresh (core.clocks.GatewaySeen.fresh in SQL)."""
    fresh = gateways.c.heartbeat_at.between(now - GATEWAY_FRESH_S, now + GATEWAY_FRESH_S)
    rows = conn.execute(select(gateways.c.id).where(gateways.c.stopped_at.is_(None), fresh))
    return set(rows.scalars())


def set_online(conn: Connection, rows: Sequence[Mapping[str, Any]], now: float) -> None:
    """Give each node (`id`) to `connection_id` of `gateway_id`, reached from `remote`; it pins our `server_key`.

    What runs there was told over another connection, perhaps in another boot: nothing of it counts until it is told
    over this one.
    """
    if rows:
        statement = (
            update(nodes)
            .where(nodes.c.id == bindparam("of_id"))
            .values(
                connection="online",
                gateway_id=bindparam("to_gateway"),
                connection_id=bindparam("to_connection"),
                remote=bindparam("to_remote"),
                server_key=bindparam("to_server_key"),
                connected_at=now,
                last_seen_at=now,
                probe_at=None,
                placement_told=False,
            )
        )
        conn.execute(
            statement,
            [
                {
                    "of_id": row["id"],
                    "to_gateway": row["gateway_id"],
                    "to_connection": row["connection_id"],
                    "to_remote": row["remote"],
                    "to_server_key": row["server_key"],
                }
                for row in rows
            ],
        )


def release(conn: Connection, rows: Sequence[tuple[str, str, float]]) -> None:
    """End connections: (node id, connection id, last seen). A node that is on another connection by now stays."""
    if rows:
        statement = (
            update(nodes)
            .where(nodes.c.id == bindparam("of_id"), nodes.c.connection_id == bindparam("of_connection"))
            .values(gateway_id=None, connection_id=None, probe_at=None, last_seen_at=bindparam("to_seen"))
        )
        conn.execute(
            statement,
            [
                {"of_id": node_id, "of_connection": connection_id, "to_seen": seen}
                for node_id, connection_id, seen in sorted(rows)  # locked in one order, as by everybody
            ],
        )


def set_conflict(conn: Connection, node_id: str, conflict: Mapping[str, Any]) -> None:
    """From now on nobody is heard, so that what runs there is not known either until the node has come back."""
    values = {"conflict": dict(conflict), "probe_at": None, "placement_told": False}
    conn.execute(update(nodes).where(nodes.c.id == node_id).values(values))


def ask_probe(conn: Connection, node_ids: Sequence[str], now: float) -> None:
    """Leave word for the gateways that have these nodes; the first asking counts."""
    conn.execute(update(nodes).where(nodes.c.id.in_(node_ids), nodes.c.probe_at.is_(None)).values(probe_at=now))


def probes(conn: Connection, gateway_id: str) -> list[str]:
    """Nodes of this gateway of which another gateway asks whether their connection is alive."""
    rows = conn.execute(select(nodes.c.id).where(nodes.c.gateway_id == gateway_id, nodes.c.probe_at.is_not(None)))
    return list(rows.scalars())


def is_asked_about(conn: Connection, node_id: str, connection_id: str) -> bool:
    """Whether the node has this connection and another gateway asks whether it is alive."""
    this = nodes.c.id == node_id, nodes.c.connection_id == connection_id
    return conn.execute(select(nodes.c.id).where(*this, nodes.c.probe_at.is_not(None))).first() is not None


def turn_offline(conn: Connection, seen_before: float) -> list[str]:
    """Nodes without a connection that were last seen before then are offline now; their ids."""
    gone = and_(
        nodes.c.connection == "online",
        nodes.c.gateway_id.is_(None),
        nodes.c.last_seen_at < seen_before,
    )
    ids = list(conn.execute(select(nodes.c.id).where(gone).order_by(nodes.c.id).with_for_update()).scalars())
    if ids:
        conn.execute(update(nodes).where(gone, nodes.c.id.in_(ids)).values(connection="offline"))
    return ids


@dataclass(frozen=True, slots=True)
class Standing:
    """What a gateway compares with what it sent last."""

    id: str
    connection_id: str | None
    admission: str
    conflict: bool
    order: tuple[int, int]


def standings(conn: Connection, gateway_id: str) -> list[Standing]:
    """All nodes that the database says are connected to this gateway."""
    rows = conn.execute(
        select(
            nodes.c.id,
            nodes.c.connection_id,
            nodes.c.admission,
            nodes.c.conflict.is_not(None),
            nodes.c.order_epoch,
            nodes.c.order_generation,
        ).where(nodes.c.gateway_id == gateway_id)
    )
    return [Standing(row[0], row[1], row[2], bool(row[3]), (row[4], row[5])) for row in rows]


# --- gateways -----------------------------------------------------------------------------------------------


def start_gateway(conn: Connection, gateway_id: str, address: str, now: float) -> None:
    """A gateway listens at `address`. Whoever listened there before has ended, however it did."""
    conn.execute(
        update(gateways)
        .where(gateways.c.address == address, gateways.c.stopped_at.is_(None))
        .values(stopped_at=gateways.c.heartbeat_at)
    )
    conn.execute(insert(gateways).values(id=gateway_id, address=address, started_at=now, heartbeat_at=now))


def beat_gateway(conn: Connection, gateway_id: str, count: int, now: float) -> None:
    # A start in the future is from before our clock was set back.
    started_at = case((gateways.c.started_at > now, now), else_=gateways.c.started_at)
    conn.execute(
        update(gateways)
        .where(gateways.c.id == gateway_id)
        .values(heartbeat_at=now, started_at=started_at, connections=count)
    )


def stop_gateway(conn: Connection, gateway_id: str, now: float) -> None:
    conn.execute(
        update(gateways).where(gateways.c.id == gateway_id).values(heartbeat_at=now, stopped_at=now, connections=0)
    )
