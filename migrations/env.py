"""Alembic's entry: `app.store.migrate` hands in a connection inside a locked transaction; the `alembic` command
(to write a new revision) gets one of its own on TWINROOT_DATABASE_URL."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import JSON, Connection

from app.config import load_settings
from app.store.database import open_database
from app.store.schema import metadata


def render(kind: str, item: Any, found: AutogenContext) -> str | Literal[False]:
    """Our JSON columns as a revision spells them; everything else as Alembic does."""
    if kind == "type" and isinstance(item, JSON):
        found.imports.add("from sqlalchemy.dialects import postgresql")
        variant = "with_variant(postgresql.JSONB(none_as_null=True), 'postgresql')"
        return f"sa.JSON(none_as_null=True).{variant}"
    return False


def run_on(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_item=render)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if context.is_offline_mode():
    raise SystemExit("Twinroot migrates only a database that it can reach: run `twinroot migrate`.")
if given is not None:
    run_on(given)
else:
    database = open_database(load_settings().database_url)
    try:
        with database.write() as change:
            run_on(change.conn)
    finally:
        database.close()
