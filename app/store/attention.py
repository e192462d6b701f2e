"""What needs a person: a fixed list of conditions, each with the nodes that it is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, Select, func, literal, select

from app.core.fleet import NodeState
from app.store.node_query import SEEN_AT, STATE
from app.store.schema import failed_versions, nodes

LONG_OFFLINE_S = 3600.0
"""An hour: reboots and network work are over by then. The linked filter says the same."""


class NeedKind(StrEnum):
    CONFLICT = "conflict"
    FAILED = "failed"
    UNHEALTHY = "unhealthy"
    PENDING = "pending"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Needing:
    node_id: str
    name: str
    at: float | None
    text: str
    """What the condition says of this node; empty where the kind says all."""
    version: str


@dataclass(frozen=True, slots=True)
class Need:
    kind: NeedKind
    count: int
    first: tuple[Needing, ...]
    """Some of the nodes, the newest first."""


def needs(conn: Connection, now: float, show: int = 3) -> list[Need]:
    """Only conditions that hold, the most urgent kind first."""
    found = []
    for kind, query in _QUERIES.items():
        asked = query(now)
        count = conn.execute(select(func.count()).select_from(asked.subquery())).scalar_one()
        if count:
            rows = conn.execute(asked.order_by(asked.selected_columns.at.desc(), nodes.c.id).limit(show))
            found.append(
                Need(kind, count, tuple(Needing(row.id, row.name, row.at, row.text, row.version) for row in rows))
            )
    return found


_Asked = Select[tuple[str, str, float | None, str, str]]


def _asked(at: ColumnElement[float | None], text: ColumnElement[str], version: ColumnElement[str]) -> _Asked:
    return select(nodes.c.id, nodes.c.name, at.label("at"), text.label("text"), version.label("version"))


def _conflicts(_now: float) -> _Asked:
    query = _asked(nodes.c.connected_at, literal(""), nodes.c.version)
    return query.where(nodes.c.conflict.is_not(None), nodes.c.admission != "retired")


def _failed(_now: float) -> _Asked:
    query = _asked(failed_versions.c.at, failed_versions.c.reason, failed_versions.c.version)
    return query.join(failed_versions, failed_versions.c.node_id == nodes.c.id).where(
        failed_versions.c.cleared_at.is_(None), nodes.c.admission == "admitted"
    )


def _unhealthy(_now: float) -> _Asked:
    query = _asked(nodes.c.last_seen_at, literal(""), nodes.c.version)
    return query.where(STATE.in_([NodeState.UNHEALTHY.value]))


def _pending(_now: float) -> _Asked:
    return _asked(nodes.c.joined_at, literal(""), nodes.c.version).where(nodes.c.admission == "pending")


def _offline(now: float) -> _Asked:
    query = _asked(nodes.c.last_seen_at, literal(""), nodes.c.version)
    return query.where(
        nodes.c.admission == "admitted",
        nodes.c.connection == "offline",
        (now - SEEN_AT) > LONG_OFFLINE_S,
    )


_QUERIES: dict[NeedKind, Callable[[float], _Asked]] = {
    NeedKind.CONFLICT: _conflicts,
    NeedKind.FAILED: _failed,
    NeedKind.UNHEALTHY: _unhealthy,
    NeedKind.PENDING: _pending,
    NeedKind.OFFLINE: _offline,
}
