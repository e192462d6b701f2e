"""The migrations and the tables of the schema are the same thing, on both databases."""

from __future__ import annotations

import subprocess
import sys

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from app.store.database import Database, open_database
from app.store.migrate import downgrade, migrate, missing_revisions
from app.store.schema import metadata


def test_head_equals_the_schema(database: Database) -> None:
    with database.read() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_partial_unique_indexes_are_partial(database: Database) -> None:
    with database.read() as conn:
        found = {index["name"]: index for index in inspect(conn).get_indexes("leases")}
    assert found["uq_leases_node"]["unique"]
    options = found["uq_leases_node"]["dialect_options"]
    assert any("ended_at IS NULL" in str(text) for text in options.values())


def test_down_and_up_again(database_url: str) -> None:
    downgrade(database_url, "base")
    db = open_database(database_url)
    try:
        with db.read() as conn:
            assert inspect(conn).get_table_names() == ["alembic_version"]
        assert missing_revisions(db) > 0
        migrate(database_url)
        assert missing_revisions(db) == 0
        with db.read() as conn:
            assert set(inspect(conn).get_table_names()) == {*metadata.tables, "alembic_version"}
    finally:
        db.close()


def test_processes_that_start_at_once_migrate_once(database_url: str) -> None:
    downgrade(database_url, "base")
    program = "import sys; from app.store.migrate import migrate; migrate(sys.argv[1])"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, database_url], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    db = open_database(database_url)
    try:
        assert missing_revisions(db) == 0
    finally:
        db.close()
