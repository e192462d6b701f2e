"""Removal of what is too old, a piece at a time so that nobody waits for it."""

from __future__ import annotations

from app.store import retention
from app.store.database import Database, Priority

_MOST_PIECES = 20
"""Ten thousand rows a round; the rest comes with the next."""


def remove_old(db: Database, now: float) -> int:
    """How many rows were removed."""
    removed = 0
    for _ in range(_MOST_PIECES):
        with db.write(Priority.BACKGROUND) as change:
            piece = retention.remove_old(change.conn, now)
        removed += piece
        if piece < retention.BATCH:
            break
    return removed
