"""The clocks of open operations: how long each was in its phase while its node could be heard (core.clocks)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, Update, and_, bindparam, func, not_, or_, select, update

from app.core.clocks import STEP_S
from app.core.nodes import Operation, OperationState
from app.core.policy import Policy
from app.core.slots import ARMED
from app.store.operations import every, operation_of
from app.store.schema import nodes, operations
from wire.messages import Phase


def due(conn: Connection, asked_since: float, now: float) -> list[Operation]:
    """Open operations whose time is to be counted (core.clocks.due), oldest first, without those that wait for an
    answer of ours: unarmed, not soaking, not to be cancelled, and their node asked for its lease after `asked_since`,
    and before now plus as long."""
    span = {"first": asked_since, "last": 2 * now - asked_since, "now": now, "due": now - STEP_S}
    return [operation_of(row) for row in conn.execute(_due(), span)]


def maybe_overdue(conn: Connection, asked_since: float, now: float) -> list[Operation]:
    """As `due`, those that have been in their phase for longer than the shortest of all deadlines."""
    span = {"first": asked_since, "last": 2 * now - asked_since}
    return [operation_of(row) for row in conn.execute(_maybe_overdue(), span)]


@cache
def _due() -> Select[Any]:
    at = operations.c.clock_at
    return _counting().where(or_(at.is_(None), at > bindparam("now"), at <= bindparam("due")))


@cache
def _maybe_overdue() -> Select[Any]:
    """Whatever the phase, its deadline is one of these two or longer (core.clocks.deadline_s)."""
    shortest = [
        func.coalesce(operations.c.policy[name].as_float(), default)
        for name, default in (
            ("stage_deadline_s", Policy().stage_deadline_s),
            ("reboot_deadline_s", Policy().reboot_deadline_s),
        )
    ]
    return _counting().where(or_(*(operations.c.heard_s > limit for limit in shortest)))


UNBEGUN = (Phase.IDLE, Phase.STAGED)
_OURS = ("lease", "gateway-away")
"""Holds of nodes that wait for us."""


_IDS_AT_ONCE = 500
"""SQLite takes a bounded number of parameters."""


def held_by_nodes(conn: Connection, waiting: Sequence[Operation]) -> set[str]:
    """Ids of those whose connected nodes say, before they begin or before they ask for a lease, what holds them
    themselves: a way back that is kept, an inhibitor. Not of those that wait for us."""
    ids = [one.id for one in waiting if one.phase in UNBEGUN and one.cancel_asked_at is None]
    found = set()
    for start in range(0, len(ids), _IDS_AT_ONCE):
        rows = conn.execute(_HELD, {"ids": ids[start : start + _IDS_AT_ONCE]})
        found |= {row.id for row in rows if own_words(row) is not None}
    return found


def own_words(row: Row[Any]) -> str | None:
    """What holds the order `row.id` on its node, which says `row.activity`; None: nothing of its own."""
    if row.activity.get("operation_id") != row.id:
        return None
    return next((hold["text"] for hold in row.activity.get("holds") or () if hold["code"] not in _OURS), None)


_HELD: Select[Any] = (
    select(operations.c.id, nodes.c.activity)
    .join(nodes, nodes.c.id == operations.c.node_id)
    .where(operations.c.id.in_(bindparam("ids", expanding=True)), nodes.c.connection == "online")
)


def asks() -> ColumnElement[bool]:
    """Its node asked for its lease lately (see `due`): it waits for an answer of ours."""
    return and_(
        operations.c.phase.not_in([phase.value for phase in (*ARMED, Phase.SOAKING)]),
        operations.c.lease_nonce_at.is_not(None),
        operations.c.cancel_asked_at.is_(None),
        operations.c.lease_nonce_at.between(bindparam("first"), bindparam("last")),
    )


def _counting() -> Select[Any]:
    query = every().where(operations.c.state == OperationState.OPEN.value, not_(asks()))
    return query.order_by(operations.c.created_at, operations.c.id)


def advance(conn: Connection, heard: Sequence[tuple[Operation, float]], now: float) -> None:
    """Count time: (operation, seconds heard in all). Whom another conductor counted, or who moved on, stays."""
    rows = [
        {"of_id": one.id, "of_phase": one.phase.value, "of_clock_at": _or_never(one.clock_at), "to_heard_s": heard_s}
        for one, heard_s in heard
    ]
    if rows:
        conn.execute(_advance(), [row | {"to_clock_at": now} for row in rows])


@cache
def _advance() -> Update:
    c = operations.c
    same_clock = func.coalesce(c.clock_at, _NEVER) == bindparam("of_clock_at")
    here = c.id == bindparam("of_id"), c.state == OperationState.OPEN.value, c.phase == bindparam("of_phase")
    values: dict[str, Any] = {"heard_s": bindparam("to_heard_s"), "clock_at": bindparam("to_clock_at")}
    return update(operations).where(*here, same_clock).values(**values)


_NEVER = -1.0


def _or_never(at: float | None) -> float:
    return _NEVER if at is None else at
