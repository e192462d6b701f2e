"""The database as the rest of the program sees it: `read()`, `write()`, revisions, and nudges after commit.

SQLite: WAL; every write transaction is BEGIN IMMEDIATE through one process-wide lock, operators first, so that
nobody ever meets "database is locked" and a click never waits behind a queue of status batches.
PostgreSQL: plain transactions; whoever admits locks the fleet row (see store.leases).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text

from app.store.nudges import PATIENCE, Nudges, nudges_for

_SQLITE_BUSY_MS = 10_000
"""Another process (a command beside `twinroot up`) may hold the lock for a batch, never for long."""


class Priority(IntEnum):
    OPERATOR = 0
    BACKGROUND = 1


class Change:
    """One write transaction: the connection, and the topics whose pages it makes stale."""

    __slots__ = ("conn", "topics")

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.topics: set[str] = set()

    def touch(self, *topics: str) -> None:
        """Mark topics (`node:…`, `nodes`, `fleet`, `events`, `images`, `joining`, …) as changed."""
        self.topics.update(topics)


class Database:
    """Use `open_database`. Safe to share between threads."""

    def __init__(self, engine: Engine, nudges: Nudges) -> None:
        self.engine = engine
        self.nudges = nudges
        self._turn = _Turnstile()
        self._is_sqlite = engine.dialect.name == "sqlite"

    @property
    def is_sqlite(self) -> bool:
        return self._is_sqlite

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection with one consistent view; nothing written through it is kept."""
        with self.engine.connect() as conn:
            if self.is_sqlite:
                conn.exec_driver_sql("BEGIN")
            yield conn  # closing it rolls back, once; saying so here would make it twice

    @contextmanager
    def write(self, priority: Priority = Priority.OPERATOR) -> Iterator[Change]:
        """One transaction; commits at the end, bumps the touched revisions in it, and nudges after it."""
        if self.is_sqlite:
            with self._turn.hold(priority), self.engine.connect() as conn:
                yield from self._run(conn)
        else:
            with self.engine.connect() as conn:
                yield from self._run(conn)

    def _run(self, conn: Connection) -> Iterator[Change]:
        with conn.begin():
            if self.is_sqlite:
                conn.exec_driver_sql("BEGIN IMMEDIATE")
            change = Change(conn)
            yield change
            _bump(conn, change.topics)
        if change.topics:
            self.nudges.publish(change.topics)

    def close(self) -> None:
        self.nudges.close()
        self.engine.dispose()


def open_database(url: str) -> Database:
    """Connect lazily; no query runs here. `sqlite:///PATH` or `postgresql://…`."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"check_same_thread": False, "timeout": _SQLITE_BUSY_MS / 1000})
        event.listen(engine, "connect", _sqlite_connected)
    else:
        patience = {name: value for name, value in PATIENCE.items() if name not in parsed.query}
        parsed = parsed.set(drivername="postgresql+psycopg").update_query_dict(patience)
        engine = create_engine(parsed, pool_pre_ping=True, pool_size=10)
    return Database(engine, nudges_for(engine))


def _sqlite_connected(dbapi: Any, _record: Any) -> None:
    # We say BEGIN ourselves, in `read` and `write`: the driver's own begins too late for IMMEDIATE, and a listener of
    # the engine would be looked for at each statement.
    dbapi.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        f"busy_timeout={_SQLITE_BUSY_MS}",
    ):
        dbapi.execute(f"PRAGMA {pragma}")


def _bump(conn: Connection, topics: set[str]) -> None:
    if topics:
        conn.execute(_BUMP, [{"topic": topic} for topic in sorted(topics)])  # sorted: writers wait in one order


_BUMP = text(
    "INSERT INTO revisions (topic, revision) VALUES (:topic, 1)"
    " ON CONFLICT (topic) DO UPDATE SET revision = revisions.revision + 1"
)


class _Turnstile:
    """A lock that lets waiting operators pass before waiting background work."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._taken = False
        self._operators = 0

    @contextmanager
    def hold(self, priority: Priority) -> Iterator[None]:
        with self._free:
            if priority is Priority.OPERATOR:
                self._operators += 1
                self._free.wait_for(lambda: not self._taken)
                self._operators -= 1
            else:
                self._free.wait_for(lambda: not self._taken and not self._operators)
            self._taken = True
        try:
            yield
        finally:
            with self._free:
                self._taken = False
                self._free.notify_all()
