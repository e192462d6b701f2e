"""Nodes: how they come in, what they are, what happened to them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from app.store.tables.base import Json, Serial, metadata, when

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("secret_hash", String, nullable=False, unique=True),  # SHA-256 of the token; the token is shown once
    Column("note", String, nullable=False, server_default=""),
    Column("max_uses", Integer, nullable=False),
    Column("uses", Integer, nullable=False, server_default="0"),
    Column("networks", Json, nullable=False),  # list of CIDR; empty: from anywhere
    Column("labels", Json, nullable=False),
    Column("admit", Boolean, nullable=False),  # admitted at once, or after an operator's approval
    Column("channel_id", String, ForeignKey("channels.id")),
    Column("created_by", String, nullable=False),
    when("created_at", null=False),
    when("expires_at", null=False),
    when("revoked_at"),
)

join_attempts = Table(
    "join_attempts",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    when("at", null=False),
    Column("remote", String, nullable=False),
    Column("name", String, nullable=False),
    Column("token_id", String),
    Column("node_id", String),
    Column("code", String, nullable=False),  # `joined`, or why it was refused
    Column("text", String, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("public_key", String, nullable=False, unique=True),
    Column("machine_id", String, nullable=False),
    Column("hardware", String, nullable=False),
    Column("admission", String, nullable=False),  # pending, admitted, retired
    Column("labels", Json, nullable=False),
    Column("zone", String, Computed("labels ->> 'zone'", persisted=True)),  # the one label that lists count by
    Column("join_token_id", String),
    Column("replaces_id", String),
    Column("replaced_by_id", String),
    when("joined_at", null=False),
    when("admitted_at"),
    when("retired_at"),
    # desired
    Column("order_epoch", Integer, nullable=False, server_default="1"),
    Column("order_generation", BigInteger, nullable=False, server_default="0"),
    Column("told_epoch", Integer, nullable=False, server_default="0"),  # newest order that the node itself told
    Column("told_generation", BigInteger, nullable=False, server_default="0"),
    Column("desired_operation_id", String),
    Column("channel_id", String, ForeignKey("channels.id")),
    Column("pin_channel_id", String, ForeignKey("channels.id")),
    Column("pin_image_id", String, ForeignKey("images.id")),
    Column("pin_actor", String),
    Column("pin_reason", String),
    when("pinned_at"),
    when("pin_until"),
    # observed
    Column("agent_version", String, nullable=False, server_default=""),
    Column("agent_mode", String, nullable=False, server_default=""),
    Column("evidence", String, nullable=False, server_default=""),
    Column("os_id", String, nullable=False, server_default=""),
    Column("os_name", String, nullable=False, server_default=""),
    Column("os_version", String, nullable=False, server_default=""),
    Column("kernel", String, nullable=False, server_default=""),
    Column("arch", String, nullable=False, server_default=""),
    Column("driver", String, nullable=False, server_default=""),
    Column("boot_id", String, nullable=False, server_default=""),
    when("booted_at"),
    Column("booted_slot", String, nullable=False, server_default=""),
    Column("booted_digest", String, nullable=False, server_default=""),
    Column("version", String, nullable=False, server_default=""),  # version in the booted slot
    Column("slots", Json, nullable=False),
    Column("health_state", String, nullable=False, server_default="unknown"),
    Column("health", Json, nullable=False),  # wire Health
    Column("phase", String, nullable=False, server_default="idle"),
    Column("on_trial", Boolean, nullable=False, server_default=text("false")),
    Column("activity", Json, nullable=False),  # wire Activity
    Column("placement_known", Boolean, nullable=False, server_default=text("false")),
    Column("placement_told", Boolean, nullable=False, server_default=text("false")),  # over the present connection
    Column("placement_reason", String, nullable=False, server_default=""),
    Column("engine", String, nullable=False, server_default=""),
    Column("containers_running", Integer, nullable=False, server_default="0"),
    Column("connection", String, nullable=False, server_default="never"),  # online, offline, never
    Column("gateway_id", String),
    Column("connection_id", String),
    Column("remote", String, nullable=False, server_default=""),
    Column("server_key", String, nullable=False, server_default=""),  # ours that it pinned when it was last here
    when("connected_at"),
    when("last_seen_at"),  # while online, its gateway's heartbeat counts instead
    when("probe_at"),  # another gateway has a second connection and asks whether the first is alive
    Column("conflict", Json),  # identity conflict: what each end said, since when
    when("lost_at"),  # declared lost by an operator: outside size and budget until it is back
    Column("lost_by", String),
    Column("lost_reason", String),
    Column("declared", Json),  # what an operator says runs here while placement is not known: [[scope, name, n], …]
    Column("declared_by", String),
    Column("last_seq", BigInteger, nullable=False, server_default="0"),
    Index(None, "admission", "connection"),
    Index(None, "version"),
    Index(None, "machine_id"),
    Index(None, "gateway_id"),
    Index(None, "pin_until"),
    # All that the facets of the node list count by: they are counted in the index alone.
    Index(
        "ix_nodes_facets",
        "admission",
        "connection",
        "on_trial",
        "health_state",
        "phase",
        "booted_slot",
        "version",
        "channel_id",
        "pin_channel_id",
        "pin_image_id",
        "zone",
    ),
    # The node list in its own order: filters by these columns find their rows in the index alone.
    Index(
        "ix_nodes_listed",
        "name",
        "id",
        "admission",
        "connection",
        "on_trial",
        "health_state",
        "phase",
        "booted_slot",
        "version",
        "channel_id",
        "pin_channel_id",
        "pin_image_id",
        "zone",
    ),
)

containers = Table(
    "containers",
    metadata,
    Column("node_id", String, ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True),
    Column("container_id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("image", String, nullable=False),
    Column("scope", String, nullable=False),
    Column("service", String, nullable=False),
    Column("state", String, nullable=False),
    Column("health", String, nullable=False),
    when("started_at"),
    Column("replicas", Integer),
    Column("per_node", Boolean, nullable=False),
    Index(None, "service", "scope"),
)

failed_versions = Table(
    "failed_versions",
    metadata,
    Column("node_id", String, ForeignKey("nodes.id"), primary_key=True),
    Column("digest", String, primary_key=True),
    Column("version", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("operation_id", String),
    when("at", null=False),
    when("cleared_at"),
    Column("cleared_by", String),
    Column("cleared_reason", String),
)

events = Table(
    "events",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("node_id", String, ForeignKey("nodes.id")),
    when("at", null=False),
    when("node_at"),
    Column("seq", BigInteger),  # the node's own count: stored once
    Column("kind", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("cause", String),
    Column("actor", String),
    Column("operation_id", String),
    Column("boot_id", String),
    Column("checks", Json),
    UniqueConstraint("node_id", "seq"),
    Index(None, "node_id", "id"),
    Index(None, "at"),
)
