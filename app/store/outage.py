"""Tell "the database is away, try again" from "the database refuses exactly this"."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_AWAY_CLASSES = ("08", "40", "53", "55", "57", "58")
"""PostgreSQL SQLSTATE classes: connection, serialisation and deadlock, resources, locks, intervention, system."""

_NO_TABLE = "42P01"
"""The tables are about to be made by a migration that another process runs."""
_SQLITE_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


def is_away(error: BaseException) -> bool:
    """Whether the same work may succeed later without any change: outage, restart, lock, full disk, deadlock."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return _sqlite_away(error.orig)
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        # libpq has none when no connection came about; with a statement the driver itself refuses it.
        return isinstance(error, OperationalError) and not error.statement
    return str(state)[:2] in _AWAY_CLASSES or state == _NO_TABLE


def _sqlite_away(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)  # absent where Python itself refuses: that never gets better
    if code == sqlite3.SQLITE_ERROR:
        return str(error).startswith("no such table")
    return code is not None and code & 0xFF in _SQLITE_AWAY
