"""Saved views: what an operator named, by its address."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, text

from app.store.schema import saved_views


@dataclass(frozen=True, slots=True)
class SavedView:
    id: str
    name: str
    address: str
    """What follows `?` in the list's address; empty: the whole list."""


_COLUMNS = (saved_views.c.id, saved_views.c.name, saved_views.c.address)


def of(conn: Connection, owner: str) -> list[SavedView]:
    """By name."""
    rows = conn.execute(select(*_COLUMNS).where(saved_views.c.owner == owner))
    return sorted((SavedView(*row) for row in rows), key=lambda view: (view.name.lower(), view.name))


def get(conn: Connection, owner: str, id: str) -> SavedView | None:
    row = conn.execute(select(*_COLUMNS).where(saved_views.c.owner == owner, saved_views.c.id == id)).one_or_none()
    return None if row is None else SavedView(*row)


def named(conn: Connection, owner: str, name: str) -> SavedView | None:
    row = conn.execute(select(*_COLUMNS).where(saved_views.c.owner == owner, saved_views.c.name == name)).one_or_none()
    return None if row is None else SavedView(*row)


def count(conn: Connection, owner: str) -> int:
    return conn.execute(select(func.count()).where(saved_views.c.owner == owner)).scalar_one()


def put(conn: Connection, owner: str, view: SavedView, now: float) -> None:
    """Add it, or let the one of this name show something else."""
    conn.execute(
        text(
            "INSERT INTO saved_views (id, owner, name, address, saved_at) VALUES (:id, :owner, :name, :address, :at)"
            " ON CONFLICT (owner, name) DO UPDATE SET address = excluded.address, saved_at = excluded.saved_at"
        ),
        {"id": view.id, "owner": owner, "name": view.name, "address": view.address, "at": now},
    )


def remove(conn: Connection, id: str) -> None:
    conn.execute(delete(saved_views).where(saved_views.c.id == id))
