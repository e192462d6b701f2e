"""Saved views of the list of nodes: each person's own."""

from __future__ import annotations

from app.core.actors import Actor
from app.core.errors import Invalid, NotFound
from app.ids import new_id
from app.store import audit
from app.store import saved_views as store
from app.store.database import Database
from app.store.saved_views import SavedView

TOPIC = "views"
NAME_CHARS = 60
"""A chip, not a sentence."""
MOST = 50
"""For each person; more than anybody finds again."""
_ADDRESS_CHARS = 4_000
"""A filter at its longest, written as an address is."""


def save(db: Database, actor: Actor, name: str, address: str, now: float) -> str:
    """The id of the view; one that has this name already shows `address` from now on."""
    name = _checked(name)
    if len(address) > _ADDRESS_CHARS:
        raise Invalid("name", "This filter is too long to be saved. Nothing was changed.")
    with db.write() as change:
        conn = change.conn
        old = store.named(conn, actor.id, name)
        if old is None and store.count(conn, actor.id) >= MOST:
            raise Invalid("name", f"You have {MOST} saved views already; remove one first. Nothing was changed.")
        view = SavedView(old.id if old else new_id("view"), name, address)
        store.put(conn, actor.id, view, now)
        audit.append(conn, actor, "view.save", f"view:{view.id}", "", _said(old), _said(view), now)
        change.touch(TOPIC)
    return view.id


def remove(db: Database, actor: Actor, id: str, now: float) -> SavedView:
    """The view that was removed. NotFound for one that is not there or is another person's."""
    with db.write() as change:
        view = store.get(change.conn, actor.id, id)
        if view is None:
            raise NotFound("saved view", id)
        store.remove(change.conn, id)
        audit.append(change.conn, actor, "view.remove", f"view:{id}", "", _said(view), None, now)
        change.touch(TOPIC)
    return view


def _checked(name: str) -> str:
    name = " ".join(name.split())
    if not name or len(name) > NAME_CHARS or not name.isprintable():
        raise Invalid("name", f"A name needs 1 to {NAME_CHARS} printable characters. Nothing was changed.")
    return name


def _said(view: SavedView | None) -> dict[str, str] | None:
    return None if view is None else {"name": view.name, "address": view.address}
