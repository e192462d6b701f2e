"""Bring a database to the newest tables. Safe when several processes start at once, and after a crash in it:
everything happens in one transaction that holds a lock which only migrations take."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

import app
from app.store.database import Database, open_database

_ADVISORY_LOCK = 0x7477696E
"""Any number that nobody else on this database uses: "twin" in ASCII."""


def migrate(database_url: str, revision: str = "head") -> None:
    """Upgrade the database to `revision`; does nothing when it is there already."""
    database = open_database(database_url)
    try:
        with database.write() as change:  # on SQLite this is BEGIN IMMEDIATE: the second process waits here
            _lock(change.conn)
            command.upgrade(config(change.conn), revision)
    finally:
        database.close()


def downgrade(database_url: str, revision: str) -> None:
    """Back to `revision` (`base`: no tables at all). Loses what the older tables cannot hold."""
    database = open_database(database_url)
    try:
        with database.write() as change:
            _lock(change.conn)
            command.downgrade(config(change.conn), revision)
    finally:
        database.close()


def missing_revisions(database: Database) -> int:
    """How many revisions the database is behind this program; SQLAlchemyError when it cannot be reached."""
    with database.read() as conn:
        scripts = ScriptDirectory.from_config(config(conn))
        here = MigrationContext.configure(conn).get_current_revision()
        return len(list(scripts.iterate_revisions("head", here or "base")))


def config(conn: Connection) -> Config:
    """Alembic's configuration for a connection of ours, from a checkout and from an installed wheel alike."""
    found = Config()
    found.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    found.set_main_option("path_separator", "os")
    found.attributes["connection"] = conn
    return found


def _scripts() -> Path:
    """`migrations` stands beside `app` in both."""
    assert app.__file__ is not None
    return Path(app.__file__).parents[1] / "migrations"


def _lock(conn: Connection) -> None:
    if conn.dialect.name == "postgresql":
        conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
