"""Rollouts, their nodes and their history; versions that are bad fleet-wide."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Double, ForeignKey, Index, Integer, String, Table, text

from app.store.tables.base import Json, Serial, metadata, when

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", String, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),  # as people call it
    Column("kind", String, nullable=False),  # core.rollouts.RolloutKind
    Column("state", String, nullable=False),  # core.rollouts.RolloutState
    Column("state_text", String, nullable=False, server_default=""),  # why it is in this state
    Column("group_id", String, ForeignKey("groups.id", ondelete="SET NULL")),  # null: of one node, or of chosen nodes
    Column("group_name", String, nullable=False, server_default=""),
    Column("selector", String, nullable=False, server_default=""),  # as it was at the start; empty: nodes were chosen
    Column("targets", Json, nullable=False),  # ids of images, one of each OS and architecture
    Column("version", String, nullable=False, server_default=""),  # of the targets, as people call it
    Column("policy", Json, nullable=False),  # core.group_policy.GroupPolicy, frozen at the start
    Column("overrides", Json),  # what of it is the rollout's own, whatever its group says (core.policy_json)
    Column("expected", Json),  # [[scope, name, replicas], …] frozen at the start
    Column("allowances", Json, nullable=False),  # [[scope, name], …]: single replicas that may move in this rollout
    Column("left_out", Json, nullable=False),  # ids of nodes that its author left out
    Column("allow_downgrade", Boolean, nullable=False, server_default=text("false")),
    Column("break_glass", Boolean, nullable=False, server_default=text("false")),
    Column("override_floor", Boolean, nullable=False, server_default=text("false")),  # of its ways back
    Column("source_id", String),  # the rollout that this one reverses
    Column("channel_id", String),  # the channel whose move made it
    Column("actor", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("forecast", Json),  # as planned at the start: waves, worst moments, estimate
    when("created_at", null=False),
    when("started_at"),
    when("moved_at"),  # when a node last got further
    when("canaries_soaked_at"),
    Column("canaries_waited_s", Double, nullable=False, server_default="0"),  # of canary_soak_s, counted by steps
    when("canaries_clock_at"),  # when that was last counted
    when("ended_at"),
    Index(None, "state"),
    Index(None, "group_id"),
)

rollout_nodes = Table(
    "rollout_nodes",
    metadata,
    Column("rollout_id", String, ForeignKey("rollouts.id", ondelete="CASCADE"), primary_key=True),
    Column("node_id", String, ForeignKey("nodes.id"), primary_key=True),
    Column("state", String, nullable=False),  # core.rollouts.RolloutNodeState
    Column("wave", Integer, nullable=False),  # as planned when it came in; 0: canaries
    Column("canary", Boolean, nullable=False),
    Column("operation_id", String),  # its newest
    Column("back_operation_id", String),  # that sends it back
    Column("result", String),  # wire Result
    Column("text", String, nullable=False, server_default=""),  # how it ended, or why it was left
    Column("hold", Json),  # core.holds.Hold of the newest tick
    Column("old_version", String, nullable=False, server_default=""),
    Column("old_digest", String, nullable=False, server_default=""),
    Column("old_slot", String, nullable=False, server_default=""),
    when("added_at", null=False),
    when("stage_at"),  # not ordered before this (jitter)
    when("ordered_at"),
    when("staged_at"),
    when("moving_at"),  # its lease
    when("confirmed_at"),
    when("ended_at"),
    when("back_at"),
    when("back_ended_at"),
    Index(None, "node_id"),
    Index(None, "operation_id"),
    Index(None, "rollout_id", "state"),
)

rollout_events = Table(
    "rollout_events",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("rollout_id", String, ForeignKey("rollouts.id", ondelete="CASCADE"), nullable=False),
    when("at", null=False),
    Column("kind", String, nullable=False),
    Column("text", String, nullable=False),
    Column("actor", String),
    Column("node_id", String),
    Index(None, "rollout_id", "id"),
)

bad_versions = Table(
    "bad_versions",
    metadata,
    Column("digest", String, primary_key=True),
    Column("version", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("cause", String, primary_key=True),  # withdrawn, failed: each is taken back by itself
    Column("actor", String, nullable=False),
    when("at", null=False),
    when("cleared_at"),
    Column("cleared_by", String),
    Column("cleared_reason", String),
)
