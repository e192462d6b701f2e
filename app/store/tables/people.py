"""Who did what: the audit log, sign-in, what people keep."""

from __future__ import annotations

from sqlalchemy import Column, Index, String, Table, UniqueConstraint

from app.store.tables.base import Json, Serial, metadata, when

audit = Table(
    "audit",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    when("at", null=False),
    Column("actor_kind", String, nullable=False),
    Column("actor_id", String, nullable=False),
    Column("actor_name", String, nullable=False),
    Column("action", String, nullable=False),  # node.update, channel.promote, …
    Column("object", String, nullable=False),  # node:node_…
    Column("reason", String, nullable=False),
    Column("before", Json),
    Column("after", Json),
    Index(None, "object"),
    Index(None, "at"),
)

login_links = Table(
    "login_links",
    metadata,
    Column("secret_hash", String, primary_key=True),
    Column("name", String, nullable=False),
    when("created_at", null=False),
    when("expires_at", null=False),
    when("used_at"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("secret_hash", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("time_zone", String, nullable=False, server_default=""),
    when("created_at", null=False),
    when("seen_at", null=False),
    when("expires_at", null=False),
)

form_posts = Table(
    "form_posts",
    metadata,
    Column("nonce", String, primary_key=True),  # of a form of the console that was sent: it is done once
    when("at", null=False),
)

saved_views = Table(
    "saved_views",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),  # Actor.id of the person who named it; nobody else sees it
    Column("name", String, nullable=False),
    Column("address", String, nullable=False),  # what follows `?` in the list's address
    when("saved_at", null=False),
    UniqueConstraint("owner", "name"),
)
