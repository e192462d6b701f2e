"""Groups with their policies, and freezes."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, UniqueConstraint

from app.store.tables.base import Json, metadata, when

groups = Table(
    "groups",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("selector", String, nullable=False),  # as typed; core.groups reads it
    Column("precedence", Integer, nullable=False),  # of a node's groups the highest is its policy group
    Column("channel_id", String, ForeignKey("channels.id")),
    Column("policy", Json, nullable=False),  # fields of core.group_policy.GroupPolicy that differ from its defaults
    Column("created_by", String, nullable=False),
    when("created_at", null=False),
    UniqueConstraint("name"),
)

freezes = Table(
    "freezes",
    metadata,
    Column("id", String, primary_key=True),
    Column("group_id", String, ForeignKey("groups.id", ondelete="CASCADE")),  # null: the whole fleet
    Column("actor", String, nullable=False),
    Column("reason", String, nullable=False),
    when("starts_at", null=False),
    when("ends_at"),  # null: until somebody lifts it
    when("lifted_at"),
    Column("lifted_by", String),
    Column("lifted_reason", String),
    Index(None, "lifted_at"),
)
