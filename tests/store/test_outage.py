"""Away is what gets better by itself; everything else is refused, so that nobody tries it for ever."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.store.database import Database, open_database
from app.store.outage import is_away


def error_of(db: Database, statement: str, **values: object) -> SQLAlchemyError:
    with pytest.raises(SQLAlchemyError) as caught, db.write() as change:
        change.conn.execute(text(statement), values)
    return caught.value


@pytest.mark.parametrize(
    "statement",
    ["SELECT nothing_such FROM nodes", "SELEKT 1", "INSERT INTO fleet (id) VALUES (NULL)", "SELECT no_function(1)"],
)
def test_what_the_database_refuses_is_refused(database: Database, statement: str) -> None:
    assert not is_away(error_of(database, statement))


def test_a_statement_that_is_too_large_is_refused(database: Database) -> None:
    with pytest.raises(SQLAlchemyError) as caught, database.read() as conn:
        mark = "?" if database.is_sqlite else "%s"
        conn.exec_driver_sql(f"SELECT 1 IN ({', '.join([mark] * 300_000)})", tuple(range(300_000)))
    assert not is_away(caught.value)


def test_tables_that_are_not_there_yet_are_waited_for(database: Database) -> None:
    assert is_away(error_of(database, "SELECT * FROM not_migrated_yet"))


def test_a_database_that_cannot_be_reached_is_away(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}", "postgresql://nobody@127.0.0.1:1/none"):  # a folder; a port that is shut
        db = open_database(url)
        assert is_away(error_of(db, "SELECT 1"))
        db.close()


def test_a_database_that_somebody_else_holds_is_away(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'held.db'}"
    holder, other = open_database(url), open_database(url)
    with holder.write():
        with other.engine.connect() as conn:
            conn.exec_driver_sql("PRAGMA busy_timeout = 0")
            conn.commit()
        assert is_away(error_of(other, "SELECT 1"))
    holder.close()
    other.close()


def test_a_database_that_takes_calls_and_says_nothing_is_away_in_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        db = open_database(f"postgresql://nobody@127.0.0.1:{mute.getsockname()[1]}/none")
        began = time.monotonic()
        assert is_away(error_of(db, "SELECT 1"))
        assert time.monotonic() - began < 60
        db.close()
