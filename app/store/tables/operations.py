"""Operations and their leases."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, ForeignKey, Index, Integer, String, Table, text

from app.store.tables.base import Json, metadata, when

operations = Table(
    "operations",
    metadata,
    Column("id", String, primary_key=True),
    Column("node_id", String, ForeignKey("nodes.id"), nullable=False),
    Column("kind", String, nullable=False),  # wire OperationKind
    Column("image_id", String, ForeignKey("images.id")),
    Column("target_version", String, nullable=False, server_default=""),
    Column("target_digest", String, nullable=False, server_default=""),
    Column("order_epoch", Integer, nullable=False),
    Column("order_generation", BigInteger, nullable=False),
    Column("state", String, nullable=False),  # open, ended
    Column("phase", String, nullable=False, server_default="idle"),
    Column("result", String),  # wire Result
    Column("result_text", String, nullable=False, server_default=""),
    Column("failed_checks", Json),
    Column("evidence", Json),
    Column("claim", Json),  # a report of success that came before its soak can have been seen
    Column("actor", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("rollout_id", String),
    Column("override_floor", Boolean, nullable=False, server_default=text("false")),
    Column("override_failed", Boolean, nullable=False, server_default=text("false")),
    Column("policy", Json, nullable=False),  # frozen at creation
    Column("old_boot_id", String, nullable=False, server_default=""),
    Column("old_slot", String, nullable=False, server_default=""),
    Column("old_version", String, nullable=False, server_default=""),
    Column("old_digest", String, nullable=False, server_default=""),
    Column("heard_s", Double, nullable=False, server_default="0"),  # in this phase, while we could have heard it
    when("clock_at"),  # until when `heard_s` is counted
    Column("lease_nonce", String),  # of the newest request
    when("lease_nonce_at"),
    when("lease_asked_at"),  # of the first request: who asked first is served first
    Column("hold", Json),
    when("created_at", null=False),
    when("phase_at"),
    when("cancel_asked_at"),
    when("ended_at"),
    Index(None, "node_id", "created_at"),
    Index(None, "state"),
    Index(None, "rollout_id"),
)

leases = Table(
    "leases",
    metadata,
    Column("id", String, primary_key=True),
    Column("fleet_id", Integer, ForeignKey("fleet.id"), nullable=False),
    Column("node_id", String, ForeignKey("nodes.id"), nullable=False),
    Column("operation_id", String, ForeignKey("operations.id"), nullable=False),
    Column("nonce", String, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("old_boot_id", String, nullable=False),
    when("granted_at", null=False),
    Column("counted_s", Double, nullable=False, server_default="0"),  # since then, in steps that no clock's jump makes
    when("counted_at"),
    when("ended_at"),  # null: it still costs budget
    Column("end_reason", String, nullable=False, server_default=""),
    Column("rollout_id", String),
    Column("costs", Json),  # what it reserved: [[scope, name, replicas], …]
    Index(None, "operation_id"),
    Index(
        "uq_leases_node",
        "node_id",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
)
