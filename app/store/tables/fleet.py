"""The fleet itself: its one row, revisions, keys, gateways, samples."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table

from app.store.tables.base import Json, metadata, when

fleet = Table(
    "fleet",
    metadata,
    Column("id", Integer, primary_key=True),  # one row, 1: locked by whoever admits (rule 3)
    Column("epoch", Integer, nullable=False),
    Column("policy", Json, nullable=False),  # fields of core.policy.Policy that differ from its defaults
    when("created_at", null=False),
)

revisions = Table(
    "revisions",
    metadata,
    Column("topic", String, primary_key=True),
    Column("revision", BigInteger, nullable=False),
)

server_keys = Table(
    "server_keys",
    metadata,
    Column("public_key", String, primary_key=True),
    Column("sealed_private_key", String, nullable=False),  # encrypted with TWINROOT_SECRET_KEY; empty once retired
    when("created_at", null=False),
    when("retired_at"),
)

gateways = Table(
    "gateways",
    metadata,
    Column("id", String, primary_key=True),
    when("started_at", null=False),
    when("heartbeat_at", null=False),
    when("stopped_at"),
    Column("connections", Integer, nullable=False, server_default="0"),
    Column("address", String, nullable=False, server_default=""),  # whoever listens here next knows that this one ended
)

version_samples = Table(
    "version_samples",
    metadata,
    when("at", null=False),
    Column("version", String, nullable=False),
    Column("nodes", Integer, nullable=False),
    Index(None, "at"),
)
