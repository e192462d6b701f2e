"""Services: what an operator said of them, what was seen of them, and what people do about what needs them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table, text

from app.store.tables.base import Serial, metadata, when

services = Table(
    "services",
    metadata,
    Column("scope", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("floor", Integer),  # set by an operator; null: expected replicas less one
    Column("expected", Integer),  # set by an operator; null: a label's, else the most seen healthy
    Column("single_allowed", Boolean, nullable=False, server_default=text("false")),
    Column("actor", String, nullable=False, server_default=""),
    Column("reason", String, nullable=False, server_default=""),
    when("changed_at"),
)

replicas = Table(
    "replicas",
    metadata,
    Column("node_id", String, ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True),
    Column("scope", String, primary_key=True),  # also where the node's group gives it
    Column("name", String, primary_key=True),
    Column("healthy", Integer, nullable=False),  # that serve there, as the time line was last told
    Column("boot_id", String, nullable=False),  # of the node then
    Column("labelled", Integer),  # most replicas that a label of its containers there asks for
    Column("per_node", Boolean, nullable=False),
    Index(None, "scope", "name"),
)

service_peaks = Table(
    "service_peaks",
    metadata,
    Column("scope", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("day", Integer, primary_key=True),  # days since 1970
    Column("healthy", Integer, nullable=False),  # most seen at once on that day
)

service_rises = Table(
    "service_rises",
    metadata,
    Column("scope", String, primary_key=True),
    Column("name", String, primary_key=True),
    when("seen_at", null=False),  # when the service was first seen
    Column("healthy", Integer, nullable=False),  # more than ever, since then; 0: no more
    when("since", null=False),
)

service_changes = Table(
    "service_changes",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    when("at", null=False),
    Column("scope", String, nullable=False),
    Column("name", String, nullable=False),
    Column("node_id", String, ForeignKey("nodes.id")),  # null: not of one node
    Column("change", Integer, nullable=False),  # healthy replicas, gained or lost there
    Column("healthy", Integer, nullable=False),  # in the fleet, after it
    Column("cause", String, nullable=False),  # see core.services.ChangeCause
    Column("text", String, nullable=False),
    Column("operation_id", String),
    Column("rollout_id", String),
    Index(None, "scope", "name", "id"),
    Index(None, "node_id", "id"),
    Index(None, "at"),
)

attention_marks = Table(
    "attention_marks",
    metadata,
    Column("kind", String, primary_key=True),
    Column("subject", String, primary_key=True),  # node:…, rollout:…, service:…
    Column("owner", String),
    when("taken_at"),
    when("snoozed_until"),
    Column("actor", String, nullable=False),
    Column("note", String, nullable=False, server_default=""),
    Column("version", BigInteger, nullable=False, server_default="1"),
)
