"""Forms that were sent already, by their nonce: a double click does a thing once."""

from __future__ import annotations

from sqlalchemy import Connection, delete, text

from app.store.schema import form_posts

_KEEP_S = 24 * 3600.0
"""A page left open over night is sent once more at most."""


def claim(conn: Connection, nonce: str, now: float) -> bool:
    """True for the first that sends this form; call inside a write transaction. Old ones are dropped."""
    conn.execute(delete(form_posts).where(form_posts.c.at < now - _KEEP_S))
    claimed = conn.execute(
        text("INSERT INTO form_posts (nonce, at) VALUES (:nonce, :at) ON CONFLICT (nonce) DO NOTHING"),
        {"nonce": nonce, "at": now},
    )
    return claimed.rowcount == 1


def release(conn: Connection, nonce: str) -> None:
    conn.execute(delete(form_posts).where(form_posts.c.nonce == nonce))
