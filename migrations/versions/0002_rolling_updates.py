"""Rolling updates: groups, freezes, services, rollouts; a lease a node instead of one a fleet."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "attention_marks",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("taken_at", sa.Double(), nullable=True),
        sa.Column("snoozed_until", sa.Double(), nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("note", sa.String(), server_default="", nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject", name=op.f("pk_attention_marks")),
    )
    op.create_table(
        "bad_versions",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("cleared_at", sa.Double(), nullable=True),
        sa.Column("cleared_by", sa.String(), nullable=True),
        sa.Column("cleared_reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("digest", "cause", name=op.f("pk_bad_versions")),
    )
    op.create_table(
        "service_peaks",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("healthy", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "name", "day", name=op.f("pk_service_peaks")),
    )
    op.create_table(
        "service_rises",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("healthy", sa.Integer(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "name", name=op.f("pk_service_rises")),
    )
    op.create_table(
        "replicas",
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("healthy", sa.Integer(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=False),
        sa.Column("labelled", sa.Integer(), nullable=True),
        sa.Column("per_node", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name=op.f("fk_replicas_node_id_nodes"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("node_id", "scope", "name", name=op.f("pk_replicas")),
    )
    op.create_index(op.f("ix_replicas_scope_name"), "replicas", ["scope", "name"])
    op.create_table(
        "services",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("floor", sa.Integer(), nullable=True),
        sa.Column("expected", sa.Integer(), nullable=True),
        sa.Column("single_allowed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("actor", sa.String(), server_default="", nullable=False),
        sa.Column("reason", sa.String(), server_default="", nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("scope", "name", name=op.f("pk_services")),
    )
    op.create_table(
        "groups",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("selector", sa.String(), nullable=False),
        sa.Column("precedence", sa.Integer(), nullable=False),
        sa.Column("channel_id", sa.String(), nullable=True),
        sa.Column(
            "policy",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_groups_channel_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_groups")),
        sa.UniqueConstraint("name", name=op.f("uq_groups_name")),
    )
    op.create_table(
        "freezes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("group_id", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("starts_at", sa.Double(), nullable=False),
        sa.Column("ends_at", sa.Double(), nullable=True),
        sa.Column("lifted_at", sa.Double(), nullable=True),
        sa.Column("lifted_by", sa.String(), nullable=True),
        sa.Column("lifted_reason", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name=op.f("fk_freezes_group_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_freezes")),
    )
    op.create_index(op.f("ix_freezes_lifted_at"), "freezes", ["lifted_at"], unique=False)
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("state_text", sa.String(), server_default="", nullable=False),
        sa.Column("group_id", sa.String(), nullable=True),
        sa.Column("group_name", sa.String(), server_default="", nullable=False),
        sa.Column("selector", sa.String(), server_default="", nullable=False),
        sa.Column(
            "targets",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column("version", sa.String(), server_default="", nullable=False),
        sa.Column(
            "policy",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column(
            "overrides",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
        sa.Column(
            "expected",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
        sa.Column(
            "allowances",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column(
            "left_out",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column("allow_downgrade", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("break_glass", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("override_floor", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("source_id", sa.String(), nullable=True),
        sa.Column("channel_id", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column(
            "forecast",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("moved_at", sa.Double(), nullable=True),
        sa.Column("canaries_soaked_at", sa.Double(), nullable=True),
        sa.Column("canaries_waited_s", sa.Double(), server_default="0", nullable=False),
        sa.Column("canaries_clock_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name=op.f("fk_rollouts_group_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollouts")),
        sa.UniqueConstraint("number", name=op.f("uq_rollouts_number")),
    )
    op.create_index(op.f("ix_rollouts_group_id"), "rollouts", ["group_id"], unique=False)
    op.create_index(op.f("ix_rollouts_state"), "rollouts", ["state"], unique=False)
    op.create_table(
        "service_changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=True),
        sa.Column("change", sa.Integer(), nullable=False),
        sa.Column("healthy", sa.Integer(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("operation_id", sa.String(), nullable=True),
        sa.Column("rollout_id", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name=op.f("fk_service_changes_node_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_changes")),
    )
    op.create_index(op.f("ix_service_changes_at"), "service_changes", ["at"], unique=False)
    op.create_index(op.f("ix_service_changes_node_id_id"), "service_changes", ["node_id", "id"], unique=False)
    op.create_index(op.f("ix_service_changes_scope_name_id"), "service_changes", ["scope", "name", "id"], unique=False)
    op.create_table(
        "rollout_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("rollout_id", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=True),
        sa.Column("node_id", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollouts.id"], name=op.f("fk_rollout_events_rollout_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout_events")),
    )
    op.create_index(op.f("ix_rollout_events_rollout_id_id"), "rollout_events", ["rollout_id", "id"], unique=False)
    op.create_table(
        "rollout_nodes",
        sa.Column("rollout_id", sa.String(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("canary", sa.Boolean(), nullable=False),
        sa.Column("operation_id", sa.String(), nullable=True),
        sa.Column("back_operation_id", sa.String(), nullable=True),
        sa.Column("result", sa.String(), nullable=True),
        sa.Column("text", sa.String(), server_default="", nullable=False),
        sa.Column(
            "hold",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
        sa.Column("old_version", sa.String(), server_default="", nullable=False),
        sa.Column("old_digest", sa.String(), server_default="", nullable=False),
        sa.Column("old_slot", sa.String(), server_default="", nullable=False),
        sa.Column("added_at", sa.Double(), nullable=False),
        sa.Column("stage_at", sa.Double(), nullable=True),
        sa.Column("ordered_at", sa.Double(), nullable=True),
        sa.Column("staged_at", sa.Double(), nullable=True),
        sa.Column("moving_at", sa.Double(), nullable=True),
        sa.Column("confirmed_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("back_at", sa.Double(), nullable=True),
        sa.Column("back_ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name=op.f("fk_rollout_nodes_node_id")),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollouts.id"], name=op.f("fk_rollout_nodes_rollout_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rollout_id", "node_id", name=op.f("pk_rollout_nodes")),
    )
    op.create_index(op.f("ix_rollout_nodes_node_id"), "rollout_nodes", ["node_id"], unique=False)
    op.create_index(op.f("ix_rollout_nodes_operation_id"), "rollout_nodes", ["operation_id"], unique=False)
    op.create_index(op.f("ix_rollout_nodes_rollout_id_state"), "rollout_nodes", ["rollout_id", "state"], unique=False)
    op.add_column("images", sa.Column("withdrawn_by", sa.String(), nullable=True))
    op.add_column("images", sa.Column("withdrawn_reason", sa.String(), nullable=True))
    op.add_column(
        "images",
        sa.Column(
            "must_pass",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
    )
    op.add_column(
        "images",
        sa.Column(
            "not_from",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
    )
    op.add_column("leases", sa.Column("rollout_id", sa.String(), nullable=True))
    op.add_column(
        "leases",
        sa.Column(
            "costs",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
    )
    op.drop_index("uq_leases_held", table_name="leases")
    op.create_index(
        "uq_leases_node",
        "leases",
        ["node_id"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.add_column("nodes", sa.Column("lost_at", sa.Double(), nullable=True))
    op.add_column("nodes", sa.Column("lost_by", sa.String(), nullable=True))
    op.add_column("nodes", sa.Column("lost_reason", sa.String(), nullable=True))
    op.add_column(
        "nodes",
        sa.Column(
            "declared",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
    )
    op.add_column("nodes", sa.Column("declared_by", sa.String(), nullable=True))
    op.add_column("nodes", sa.Column("placement_told", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("nodes", sa.Column("told_epoch", sa.Integer(), server_default="0", nullable=False))
    op.add_column("nodes", sa.Column("told_generation", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("operations", sa.Column("rollout_id", sa.String(), nullable=True))
    op.add_column(
        "operations", sa.Column("override_floor", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column(
        "operations",
        sa.Column(
            "claim",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
    )
    op.create_index(op.f("ix_operations_rollout_id"), "operations", ["rollout_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_operations_rollout_id"), table_name="operations")
    op.drop_column("operations", "claim")
    op.drop_column("operations", "override_floor")
    op.drop_column("operations", "rollout_id")
    op.drop_column("nodes", "told_generation")
    op.drop_column("nodes", "told_epoch")
    op.drop_column("nodes", "placement_told")
    op.drop_column("nodes", "declared_by")
    op.drop_column("nodes", "declared")
    op.drop_column("nodes", "lost_reason")
    op.drop_column("nodes", "lost_by")
    op.drop_column("nodes", "lost_at")
    op.drop_index("uq_leases_node", table_name="leases")
    op.create_index(
        "uq_leases_held",
        "leases",
        ["fleet_id"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.drop_column("leases", "costs")
    op.drop_column("leases", "rollout_id")
    op.drop_column("images", "not_from")
    op.drop_column("images", "must_pass")
    op.drop_column("images", "withdrawn_reason")
    op.drop_column("images", "withdrawn_by")
    op.drop_index(op.f("ix_rollout_nodes_rollout_id_state"), table_name="rollout_nodes")
    op.drop_index(op.f("ix_rollout_nodes_operation_id"), table_name="rollout_nodes")
    op.drop_index(op.f("ix_rollout_nodes_node_id"), table_name="rollout_nodes")
    op.drop_table("rollout_nodes")
    op.drop_index(op.f("ix_rollout_events_rollout_id_id"), table_name="rollout_events")
    op.drop_table("rollout_events")
    op.drop_index(op.f("ix_service_changes_scope_name_id"), table_name="service_changes")
    op.drop_index(op.f("ix_service_changes_at"), table_name="service_changes")
    op.drop_table("service_changes")
    op.drop_index(op.f("ix_rollouts_state"), table_name="rollouts")
    op.drop_index(op.f("ix_rollouts_group_id"), table_name="rollouts")
    op.drop_table("rollouts")
    op.drop_index(op.f("ix_freezes_lifted_at"), table_name="freezes")
    op.drop_table("freezes")
    op.drop_table("groups")
    op.drop_table("services")
    op.drop_table("replicas")
    op.drop_table("service_rises")
    op.drop_table("service_peaks")
    op.drop_table("bad_versions")
    op.drop_table("attention_marks")
