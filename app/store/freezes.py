"""Freezes: rows that are never removed while their group lives; over is what was lifted or has ended."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, insert, or_, select, update

from app.core.freezes import Freeze
from app.store.schema import freezes, groups

_FREEZES: Select[Any] = select(freezes, groups.c.name.label("group_name")).select_from(
    freezes.outerjoin(groups, groups.c.id == freezes.c.group_id)
)


def not_over(conn: Connection, now: float) -> list[Freeze]:
    """Those that hold now or will; the first to start first."""
    return [_freeze(row) for row in conn.execute(_NOT_OVER, {"now": now})]


_NOT_OVER = _FREEZES.where(
    freezes.c.lifted_at.is_(None), or_(freezes.c.ends_at.is_(None), freezes.c.ends_at > bindparam("now"))
).order_by(freezes.c.starts_at, freezes.c.id)


def active(conn: Connection, now: float) -> list[Freeze]:
    """Those that hold now."""
    return [each for each in not_over(conn, now) if each.holds_at(now)]


def all_freezes(conn: Connection, limit: int = 200) -> list[Freeze]:
    """Also those that are over; the newest first."""
    rows = conn.execute(_FREEZES.order_by(freezes.c.starts_at.desc(), freezes.c.id.desc()).limit(limit))
    return [_freeze(row) for row in rows]


def get(conn: Connection, freeze_id: str) -> Freeze | None:
    row = conn.execute(_FREEZES.where(freezes.c.id == freeze_id)).one_or_none()
    return None if row is None else _freeze(row)


def add(
    conn: Connection,
    freeze_id: str,
    *,
    group_id: str | None,
    actor: str,
    reason: str,
    starts_at: float,
    ends_at: float | None,
) -> None:
    """`group_id` None: the whole fleet; `ends_at` None: until it is lifted."""
    conn.execute(
        insert(freezes).values(
            id=freeze_id, group_id=group_id, actor=actor, reason=reason, starts_at=starts_at, ends_at=ends_at
        )
    )


def lift(conn: Connection, freeze_id: str, actor: str, reason: str, now: float) -> bool:
    """End it now; False when it was lifted or had ended already."""
    return _change(conn, freeze_id, now, lifted_at=now, lifted_by=actor, lifted_reason=reason)


def change_end(conn: Connection, freeze_id: str, ends_at: float | None, now: float) -> bool:
    """End it then instead; None: when it is lifted. False when it was lifted or had ended already."""
    return _change(conn, freeze_id, now, ends_at=ends_at)


def _change(conn: Connection, freeze_id: str, now: float, **values: Any) -> bool:
    """False, and nothing is changed, where it is over."""
    not_over = or_(freezes.c.ends_at.is_(None), freezes.c.ends_at > now)
    changed = conn.execute(
        update(freezes).where(freezes.c.id == freeze_id, freezes.c.lifted_at.is_(None), not_over).values(**values)
    )
    return changed.rowcount == 1


def _freeze(row: Row[Any]) -> Freeze:
    return Freeze(
        id=row.id,
        group_id=row.group_id,
        group_name=row.group_name or "",
        actor=row.actor,
        reason=row.reason,
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        lifted_at=row.lifted_at,
        lifted_by=row.lifted_by,
        lifted_reason=row.lifted_reason,
    )
