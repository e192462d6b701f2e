"""Images and the channels that point at them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, String, Table, Text, UniqueConstraint, text

from app.store.tables.base import Json, Serial, metadata, when

images = Table(
    "images",
    metadata,
    Column("id", String, primary_key=True),
    Column("os", String, nullable=False),
    Column("arch", String, nullable=False),
    Column("version", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("stored", Boolean, nullable=False),  # in our own content-addressed store, or only at `url`
    Column("url", String, nullable=False, server_default=""),
    Column("notes", Text, nullable=False, server_default=""),
    Column("signature", String, nullable=False, server_default=""),
    Column("key_id", String, nullable=False, server_default=""),
    Column("created_by", String, nullable=False),
    when("created_at", null=False),
    when("withdrawn_at"),
    Column("withdrawn_by", String),
    Column("withdrawn_reason", String),
    Column("must_pass", Json),  # versions one of which must be booted first; null: reached from anywhere
    Column("not_from", Json),  # versions from which it must not be reached
    UniqueConstraint("os", "arch", "version"),
    Index(None, "digest"),
)

channels = Table(
    "channels",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    when("created_at", null=False),
)

channel_moves = Table(
    "channel_moves",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("channel_id", String, ForeignKey("channels.id"), nullable=False),
    Column("os", String, nullable=False),
    Column("arch", String, nullable=False),
    Column("image_id", String, ForeignKey("images.id"), nullable=False),
    Column("actor", String, nullable=False),
    Column("reason", String, nullable=False),
    when("at", null=False),
    when("until"),  # null: what the channel points at now for this OS and architecture
    Index(
        "uq_channel_moves_now",
        "channel_id",
        "os",
        "arch",
        unique=True,
        sqlite_where=text("until IS NULL"),
        postgresql_where=text("until IS NULL"),
    ),
)
