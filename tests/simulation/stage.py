"""The database of a simulated run: at each of its transactions others may act, and processes may die."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from app.ids import repeatable
from app.services.channels import ensure_defaults
from app.services.fleet import ensure_fleet
from app.store.database import Change, Database, Priority, open_database
from app.store.migrate import migrate

START = 1_800_000_000.0


class Killed(BaseException):
    """The process that was at work has died; not an Exception, for nobody in it gets to handle this."""


class Stage(Database):
    """`step` is called before each write transaction, in it before its commit, and after it, with the place's name."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.engine, database.nudges)
        self.step: Callable[[str], None] = lambda place: None

    @contextmanager
    def write(self, priority: Priority = Priority.OPERATOR) -> Iterator[Change]:
        self.step("before")
        with super().write(priority) as change:
            yield change
            self.step("inside")
        self.step("after")


@cache
def _file() -> Path:
    """Where this process has its database: in memory, where the machine offers a file system for that."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="twinroot-simulation-", dir=memory if memory.is_dir() else None)
    return Path(folder) / "twinroot.db"


@cache
def _empty() -> sqlite3.Connection:
    """A database as if freshly migrated."""
    file = _file().with_name("empty.db")
    migrate(f"sqlite:///{file}")
    # Of ids of its own: whether a run is the first of its process must not be seen in it.
    with closing(open_database(f"sqlite:///{file}")) as db, repeatable(itertools.count(1).__next__):
        ensure_fleet(db, START)
        ensure_defaults(db, START)
    return sqlite3.connect(file)


@cache
def _opened() -> Database:
    return open_database(f"sqlite:///{_file()}")


def fresh_stage() -> Stage:
    """The one database of this process, emptied: its engine keeps what it has compiled, which costs more than a run."""
    database = _opened()
    database.nudges.close()
    database.engine.dispose()
    with closing(sqlite3.connect(_file())) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        _empty().backup(connection)
    return Stage(database)


def clean_up() -> None:
    """Remove the files of this process."""
    _opened().close()
    _empty().close()
    folder = _file().parent
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
