"""All tables. Times are Unix seconds (double), decided by the server's clock; ids are text (see app.ids).

JSON columns hold what is only shown or handed on; whatever a query decides by has a column of its own.
"""

from __future__ import annotations

from app.store.tables.base import metadata
from app.store.tables.fleet import fleet, gateways, revisions, server_keys, version_samples
from app.store.tables.groups import freezes, groups
from app.store.tables.images import channel_moves, channels, images
from app.store.tables.nodes import containers, events, failed_versions, join_attempts, join_tokens, nodes
from app.store.tables.operations import leases, operations
from app.store.tables.people import audit, form_posts, login_links, saved_views, sessions
from app.store.tables.rollouts import bad_versions, rollout_events, rollout_nodes, rollouts
from app.store.tables.services import (
    attention_marks,
    replicas,
    service_changes,
    service_peaks,
    service_rises,
    services,
)

__all__ = [
    "attention_marks",
    "audit",
    "bad_versions",
    "channel_moves",
    "channels",
    "containers",
    "events",
    "failed_versions",
    "fleet",
    "form_posts",
    "freezes",
    "gateways",
    "groups",
    "images",
    "join_attempts",
    "join_tokens",
    "leases",
    "login_links",
    "metadata",
    "nodes",
    "operations",
    "replicas",
    "revisions",
    "rollout_events",
    "rollout_nodes",
    "rollouts",
    "saved_views",
    "server_keys",
    "service_changes",
    "service_peaks",
    "service_rises",
    "services",
    "sessions",
    "version_samples",
]
