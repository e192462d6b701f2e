"""First tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor_kind", sa.String(), nullable=False),
        sa.Column("actor_id", sa.String(), nullable=False),
        sa.Column("actor_name", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("object", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column(
            "before",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
        sa.Column(
            "after",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_at"), "audit", ["at"], unique=False)
    op.create_index(op.f("ix_audit_object"), "audit", ["object"], unique=False)
    op.create_table(
        "channels",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channels")),
        sa.UniqueConstraint("name", name=op.f("uq_channels_name")),
    )
    op.create_table(
        "fleet",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column(
            "policy",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fleet")),
    )
    op.create_table(
        "form_posts",
        sa.Column("nonce", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("nonce", name=op.f("pk_form_posts")),
    )
    op.create_table(
        "gateways",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("heartbeat_at", sa.Double(), nullable=False),
        sa.Column("stopped_at", sa.Double(), nullable=True),
        sa.Column("connections", sa.Integer(), server_default="0", nullable=False),
        sa.Column("address", sa.String(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gateways")),
    )
    op.create_table(
        "images",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("os", sa.String(), nullable=False),
        sa.Column("arch", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("stored", sa.Boolean(), nullable=False),
        sa.Column("url", sa.String(), server_default="", nullable=False),
        sa.Column("notes", sa.Text(), server_default="", nullable=False),
        sa.Column("signature", sa.String(), server_default="", nullable=False),
        sa.Column("key_id", sa.String(), server_default="", nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("withdrawn_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sa.UniqueConstraint("os", "arch", "version", name=op.f("uq_images_os_arch_version")),
    )
    op.create_index(op.f("ix_images_digest"), "images", ["digest"], unique=False)
    op.create_table(
        "join_attempts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("remote", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("token_id", sa.String(), nullable=True),
        sa.Column("node_id", sa.String(), nullable=True),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_join_attempts")),
    )
    op.create_table(
        "login_links",
        sa.Column("secret_hash", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("secret_hash", name=op.f("pk_login_links")),
    )
    op.create_table(
        "revisions",
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("topic", name=op.f("pk_revisions")),
    )
    op.create_table(
        "server_keys",
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("sealed_private_key", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("retired_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("public_key", name=op.f("pk_server_keys")),
    )
    op.create_table(
        "saved_views",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("saved_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_saved_views")),
        sa.UniqueConstraint("owner", "name", name=op.f("uq_saved_views_owner_name")),
    )
    op.create_table(
        "sessions",
        sa.Column("secret_hash", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("time_zone", sa.String(), server_default="", nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("secret_hash", name=op.f("pk_sessions")),
    )
    op.create_table(
        "version_samples",
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("nodes", sa.Integer(), nullable=False),
    )
    op.create_index(op.f("ix_version_samples_at"), "version_samples", ["at"], unique=False)
    op.create_table(
        "channel_moves",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("channel_id", sa.String(), nullable=False),
        sa.Column("os", sa.String(), nullable=False),
        sa.Column("arch", sa.String(), nullable=False),
        sa.Column("image_id", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("until", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_channel_moves_channel_id")),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_channel_moves_image_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channel_moves")),
    )
    op.create_index(
        "uq_channel_moves_now",
        "channel_moves",
        ["channel_id", "os", "arch"],
        unique=True,
        sqlite_where=sa.text("until IS NULL"),
        postgresql_where=sa.text("until IS NULL"),
    )
    op.create_table(
        "join_tokens",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("secret_hash", sa.String(), nullable=False),
        sa.Column("note", sa.String(), server_default="", nullable=False),
        sa.Column("max_uses", sa.Integer(), nullable=False),
        sa.Column("uses", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "networks",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column(
            "labels",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column("admit", sa.Boolean(), nullable=False),
        sa.Column("channel_id", sa.String(), nullable=True),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_join_tokens_channel_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_join_tokens")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_join_tokens_secret_hash")),
    )
    op.create_table(
        "nodes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("machine_id", sa.String(), nullable=False),
        sa.Column("hardware", sa.String(), nullable=False),
        sa.Column("admission", sa.String(), nullable=False),
        sa.Column(
            "labels",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column("zone", sa.String(), sa.Computed("labels ->> 'zone'", persisted=True), nullable=True),
        sa.Column("join_token_id", sa.String(), nullable=True),
        sa.Column("replaces_id", sa.String(), nullable=True),
        sa.Column("replaced_by_id", sa.String(), nullable=True),
        sa.Column("joined_at", sa.Double(), nullable=False),
        sa.Column("admitted_at", sa.Double(), nullable=True),
        sa.Column("retired_at", sa.Double(), nullable=True),
        sa.Column("order_epoch", sa.Integer(), server_default="1", nullable=False),
        sa.Column("order_generation", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("desired_operation_id", sa.String(), nullable=True),
        sa.Column("channel_id", sa.String(), nullable=True),
        sa.Column("pin_channel_id", sa.String(), nullable=True),
        sa.Column("pin_image_id", sa.String(), nullable=True),
        sa.Column("pin_actor", sa.String(), nullable=True),
        sa.Column("pin_reason", sa.String(), nullable=True),
        sa.Column("pinned_at", sa.Double(), nullable=True),
        sa.Column("pin_until", sa.Double(), nullable=True),
        sa.Column("agent_version", sa.String(), server_default="", nullable=False),
        sa.Column("agent_mode", sa.String(), server_default="", nullable=False),
        sa.Column("evidence", sa.String(), server_default="", nullable=False),
        sa.Column("os_id", sa.String(), server_default="", nullable=False),
        sa.Column("os_name", sa.String(), server_default="", nullable=False),
        sa.Column("os_version", sa.String(), server_default="", nullable=False),
        sa.Column("kernel", sa.String(), server_default="", nullable=False),
        sa.Column("arch", sa.String(), server_default="", nullable=False),
        sa.Column("driver", sa.String(), server_default="", nullable=False),
        sa.Column("boot_id", sa.String(), server_default="", nullable=False),
        sa.Column("booted_at", sa.Double(), nullable=True),
        sa.Column("booted_slot", sa.String(), server_default="", nullable=False),
        sa.Column("booted_digest", sa.String(), server_default="", nullable=False),
        sa.Column("version", sa.String(), server_default="", nullable=False),
        sa.Column(
            "slots",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column("health_state", sa.String(), server_default="unknown", nullable=False),
        sa.Column(
            "health",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column("phase", sa.String(), server_default="idle", nullable=False),
        sa.Column("on_trial", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column(
            "activity",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column("placement_known", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("placement_reason", sa.String(), server_default="", nullable=False),
        sa.Column("engine", sa.String(), server_default="", nullable=False),
        sa.Column("containers_running", sa.Integer(), server_default="0", nullable=False),
        sa.Column("connection", sa.String(), server_default="never", nullable=False),
        sa.Column("gateway_id", sa.String(), nullable=True),
        sa.Column("connection_id", sa.String(), nullable=True),
        sa.Column("remote", sa.String(), server_default="", nullable=False),
        sa.Column("server_key", sa.String(), server_default="", nullable=False),
        sa.Column("connected_at", sa.Double(), nullable=True),
        sa.Column("last_seen_at", sa.Double(), nullable=True),
        sa.Column("probe_at", sa.Double(), nullable=True),
        sa.Column(
            "conflict",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
        sa.Column("last_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name=op.f("fk_nodes_channel_id")),
        sa.ForeignKeyConstraint(["pin_channel_id"], ["channels.id"], name=op.f("fk_nodes_pin_channel_id")),
        sa.ForeignKeyConstraint(["pin_image_id"], ["images.id"], name=op.f("fk_nodes_pin_image_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nodes")),
        sa.UniqueConstraint("public_key", name=op.f("uq_nodes_public_key")),
    )
    op.create_index(op.f("ix_nodes_admission_connection"), "nodes", ["admission", "connection"], unique=False)
    op.create_index(
        "ix_nodes_facets",
        "nodes",
        [
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
        ],
        unique=False,
    )
    op.create_index(
        "ix_nodes_listed",
        "nodes",
        [
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
        ],
        unique=False,
    )
    op.create_index(op.f("ix_nodes_gateway_id"), "nodes", ["gateway_id"], unique=False)
    op.create_index(op.f("ix_nodes_machine_id"), "nodes", ["machine_id"], unique=False)
    op.create_index(op.f("ix_nodes_pin_until"), "nodes", ["pin_until"], unique=False)
    op.create_index(op.f("ix_nodes_version"), "nodes", ["version"], unique=False)
    op.create_table(
        "containers",
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("container_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("image", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("service", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("health", sa.String(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("replicas", sa.Integer(), nullable=True),
        sa.Column("per_node", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name=op.f("fk_containers_node_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("node_id", "container_id", name=op.f("pk_containers")),
    )
    op.create_index(op.f("ix_containers_service_scope"), "containers", ["service", "scope"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("node_id", sa.String(), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("node_at", sa.Double(), nullable=True),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("cause", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=True),
        sa.Column("operation_id", sa.String(), nullable=True),
        sa.Column("boot_id", sa.String(), nullable=True),
        sa.Column(
            "checks",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name=op.f("fk_events_node_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("node_id", "seq", name=op.f("uq_events_node_id_seq")),
    )
    op.create_index(op.f("ix_events_at"), "events", ["at"], unique=False)
    op.create_index(op.f("ix_events_node_id_id"), "events", ["node_id", "id"], unique=False)
    op.create_table(
        "failed_versions",
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("operation_id", sa.String(), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("cleared_at", sa.Double(), nullable=True),
        sa.Column("cleared_by", sa.String(), nullable=True),
        sa.Column("cleared_reason", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name=op.f("fk_failed_versions_node_id")),
        sa.PrimaryKeyConstraint("node_id", "digest", name=op.f("pk_failed_versions")),
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("image_id", sa.String(), nullable=True),
        sa.Column("target_version", sa.String(), server_default="", nullable=False),
        sa.Column("target_digest", sa.String(), server_default="", nullable=False),
        sa.Column("order_epoch", sa.Integer(), nullable=False),
        sa.Column("order_generation", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("phase", sa.String(), server_default="idle", nullable=False),
        sa.Column("result", sa.String(), nullable=True),
        sa.Column("result_text", sa.String(), server_default="", nullable=False),
        sa.Column(
            "failed_checks",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
        sa.Column(
            "evidence",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("override_failed", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column(
            "policy",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=False,
        ),
        sa.Column("old_boot_id", sa.String(), server_default="", nullable=False),
        sa.Column("old_slot", sa.String(), server_default="", nullable=False),
        sa.Column("old_version", sa.String(), server_default="", nullable=False),
        sa.Column("old_digest", sa.String(), server_default="", nullable=False),
        sa.Column("heard_s", sa.Double(), server_default="0", nullable=False),
        sa.Column("clock_at", sa.Double(), nullable=True),
        sa.Column("lease_nonce", sa.String(), nullable=True),
        sa.Column("lease_nonce_at", sa.Double(), nullable=True),
        sa.Column("lease_asked_at", sa.Double(), nullable=True),
        sa.Column(
            "hold",
            sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
            nullable=True,
        ),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("phase_at", sa.Double(), nullable=True),
        sa.Column("cancel_asked_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_operations_image_id")),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name=op.f("fk_operations_node_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )
    op.create_index(op.f("ix_operations_node_id_created_at"), "operations", ["node_id", "created_at"], unique=False)
    op.create_index(op.f("ix_operations_state"), "operations", ["state"], unique=False)
    op.create_table(
        "leases",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("fleet_id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("operation_id", sa.String(), nullable=False),
        sa.Column("nonce", sa.String(), nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.Column("old_boot_id", sa.String(), nullable=False),
        sa.Column("granted_at", sa.Double(), nullable=False),
        sa.Column("counted_s", sa.Double(), server_default="0", nullable=False),
        sa.Column("counted_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("end_reason", sa.String(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["fleet_id"], ["fleet.id"], name=op.f("fk_leases_fleet_id")),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name=op.f("fk_leases_node_id")),
        sa.ForeignKeyConstraint(["operation_id"], ["operations.id"], name=op.f("fk_leases_operation_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leases")),
    )
    op.create_index(op.f("ix_leases_operation_id"), "leases", ["operation_id"], unique=False)
    op.create_index(
        "uq_leases_held",
        "leases",
        ["fleet_id"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index(
        "uq_leases_held",
        table_name="leases",
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.drop_index(op.f("ix_leases_operation_id"), table_name="leases")
    op.drop_table("leases")
    op.drop_index(op.f("ix_operations_state"), table_name="operations")
    op.drop_index(op.f("ix_operations_node_id_created_at"), table_name="operations")
    op.drop_table("operations")
    op.drop_table("failed_versions")
    op.drop_index(op.f("ix_events_node_id_id"), table_name="events")
    op.drop_index(op.f("ix_events_at"), table_name="events")
    op.drop_table("events")
    op.drop_index(op.f("ix_containers_service_scope"), table_name="containers")
    op.drop_table("containers")
    op.drop_index(op.f("ix_nodes_version"), table_name="nodes")
    op.drop_index(op.f("ix_nodes_pin_until"), table_name="nodes")
    op.drop_index(op.f("ix_nodes_machine_id"), table_name="nodes")
    op.drop_index(op.f("ix_nodes_gateway_id"), table_name="nodes")
    op.drop_index("ix_nodes_listed", table_name="nodes")
    op.drop_index("ix_nodes_facets", table_name="nodes")
    op.drop_index(op.f("ix_nodes_admission_connection"), table_name="nodes")
    op.drop_table("nodes")
    op.drop_table("join_tokens")
    op.drop_index(
        "uq_channel_moves_now",
        table_name="channel_moves",
        sqlite_where=sa.text("until IS NULL"),
        postgresql_where=sa.text("until IS NULL"),
    )
    op.drop_table("channel_moves")
    op.drop_index(op.f("ix_version_samples_at"), table_name="version_samples")
    op.drop_table("version_samples")
    op.drop_table("sessions")
    op.drop_table("saved_views")
    op.drop_table("server_keys")
    op.drop_table("revisions")
    op.drop_table("login_links")
    op.drop_table("join_attempts")
    op.drop_index(op.f("ix_images_digest"), table_name="images")
    op.drop_table("images")
    op.drop_table("gateways")
    op.drop_table("form_posts")
    op.drop_table("fleet")
    op.drop_table("channels")
    op.drop_index(op.f("ix_audit_object"), table_name="audit")
    op.drop_index(op.f("ix_audit_at"), table_name="audit")
    op.drop_table("audit")
