"""How long leases have been out, counted by steps (core.clocks): jumps of the server's clock end none early or late."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Update, bindparam, func, or_, select, update

from app.core.clocks import STEP_S
from app.store.schema import leases

_NEVER = -1.0

Clock = tuple[str, float | None]
"""Of a lease: its id, and when it was last counted."""


def due(conn: Connection, now: float) -> list[Clock]:
    """Of leases that are out, those whose time is to be counted (core.clocks.due)."""
    return [(row[0], row[1]) for row in conn.execute(_due(), {"now": now, "due": now - STEP_S})]


@cache
def _due() -> Select[Any]:
    at = leases.c.counted_at
    to_count = or_(at.is_(None), at > bindparam("now"), at <= bindparam("due"))
    return select(leases.c.id, at).where(leases.c.ended_at.is_(None), to_count).order_by(leases.c.id)


def count(conn: Connection, counted: Sequence[tuple[Clock, float]], now: float) -> None:
    """Count so many seconds of each, unless another conductor counted it or it was renewed meanwhile."""
    rows = [
        {"of_id": id, "of_at": _NEVER if at is None else at, "seconds": seconds, "to_at": now}
        for (id, at), seconds in counted
    ]
    if rows:
        conn.execute(_count(), rows)


@cache
def _count() -> Update:
    c = leases.c
    same = func.coalesce(c.counted_at, _NEVER) == bindparam("of_at")
    query = update(leases).where(c.id == bindparam("of_id"), c.ended_at.is_(None), same)
    values: dict[str, Any] = {"counted_s": c.counted_s + bindparam("seconds"), "counted_at": bindparam("to_at")}
    return query.values(**values)
