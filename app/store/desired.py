"""What nodes are to be told, read for many at once: a busy fleet must not cost several queries a node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, select

from app.core.nodes import OperationState
from app.store.schema import failed_versions, leases, nodes, operations

_AT_ONCE = 500
"""SQLite takes a bounded number of parameters."""


def rows(conn: Connection, node_ids: Sequence[str]) -> list[Any]:
    """Of each node that exists: its order, whether it may be commanded, its desired operation and that one's lease.

    `operation_id` is null where nothing is desired, or where what was desired has ended.
    """
    found: list[Any] = []
    for start in range(0, len(node_ids), _AT_ONCE):
        found += conn.execute(_rows(), {"node_ids": node_ids[start : start + _AT_ONCE]})
    return found


def cleared(conn: Connection, node_ids: Sequence[str]) -> dict[str, list[str]]:
    """Node id → digests that failed there and that an operator cleared, the newest failure first."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for start in range(0, len(node_ids), _AT_ONCE):
        for node_id, digest in conn.execute(_cleared(), {"node_ids": node_ids[start : start + _AT_ONCE]}):
            found[node_id].append(digest)
    return found


@cache
def _rows() -> Select[Any]:
    wanted = and_(operations.c.id == nodes.c.desired_operation_id, operations.c.state == OperationState.OPEN.value)
    held = and_(leases.c.operation_id == operations.c.id, leases.c.ended_at.is_(None))
    return (
        select(
            nodes.c.id,
            nodes.c.admission,
            nodes.c.conflict.is_not(None).label("in_conflict"),
            nodes.c.order_epoch,
            nodes.c.order_generation,
            nodes.c.os_id,
            nodes.c.arch,
            operations.c.id.label("operation_id"),
            operations.c.kind,
            operations.c.image_id,
            operations.c.target_version,
            operations.c.target_digest,
            operations.c.policy,
            operations.c.actor,
            operations.c.reason,
            operations.c.override_failed,
            operations.c.lease_nonce,
            operations.c.cancel_asked_at,
            operations.c.hold,
            leases.c.id.label("lease_id"),
            leases.c.nonce.label("granted_nonce"),
            leases.c.duration_s,
        )
        .select_from(nodes.outerjoin(operations, wanted).outerjoin(leases, held))
        .where(nodes.c.id.in_(bindparam("node_ids", expanding=True)))
        .order_by(nodes.c.id)
    )


@cache
def _cleared() -> Select[Any]:
    return (
        select(failed_versions.c.node_id, failed_versions.c.digest)
        .where(
            failed_versions.c.node_id.in_(bindparam("node_ids", expanding=True)),
            failed_versions.c.cleared_at.is_not(None),
        )
        .order_by(failed_versions.c.at.desc())
    )
