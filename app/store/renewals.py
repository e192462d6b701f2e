"""Requests of nodes whose lease is out already: on the boot in which they got it they ask again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, select

from app.core.nodes import Admission, OperationState
from app.core.slots import ARMED
from app.store.failed_versions import let_pass
from app.store.leases import Lease, lease_of
from app.store.schema import leases, nodes, operations
from wire.messages import OperationKind


@dataclass(frozen=True, slots=True)
class Renewal:
    """A request of a node whose lease is out."""

    lease: Lease
    nonce: str
    kind: str
    rollout_id: str | None
    labels: Mapping[str, str]
    digest: str
    """What it moves to; empty for a reboot."""
    version: str
    override_floor: bool
    override_failed: bool
    placement_told: bool
    """What runs on the node was said over its present connection."""


_ANY = select(leases.c.operation_id).where(leases.c.ended_at.is_(None)).limit(1)


def asking_again(conn: Connection, since: float, operation_ids: Sequence[str] | None = None) -> list[Renewal]:
    """Newest requests (not older than `since`) of nodes that hold a lease on the boot that they got it in; by node.

    Who is on its way by now asked before its lease reached it: it uses that, and waits for no answer.
    """
    if conn.execute(_ANY).first() is None:
        return []
    query = _asking_again(since)
    if operation_ids is not None:
        query = query.where(operations.c.id.in_(operation_ids))
    return [
        _renewal(row)
        for row in conn.execute(query)
        if (row.hold or {}).get("nonce") != row.lease_nonce  # answered already
    ]


def _asking_again(since: float) -> Select[Any]:
    return (
        select(
            leases,
            operations.c.lease_nonce,
            operations.c.kind,
            operations.c.hold,
            operations.c.rollout_id.label("of_rollout"),
            operations.c.target_digest,
            operations.c.target_version,
            operations.c.override_floor,
            let_pass().label("override_failed"),
            nodes.c.labels,
            nodes.c.placement_told,
        )
        .join(operations, operations.c.id == leases.c.operation_id)
        .join(nodes, (nodes.c.id == leases.c.node_id) & (nodes.c.desired_operation_id == operations.c.id))
        .where(
            leases.c.ended_at.is_(None),
            operations.c.state == OperationState.OPEN.value,
            operations.c.cancel_asked_at.is_(None),
            operations.c.lease_nonce.is_not(None),
            operations.c.lease_nonce != leases.c.nonce,
            operations.c.lease_nonce_at >= since,
            nodes.c.boot_id == leases.c.old_boot_id,
            nodes.c.phase.not_in([phase.value for phase in ARMED]),
            nodes.c.admission == Admission.ADMITTED.value,
            nodes.c.conflict.is_(None),
        )
        .order_by(leases.c.node_id)
    )


def _renewal(row: Any) -> Renewal:
    return Renewal(
        lease=lease_of(row),
        nonce=row.lease_nonce,
        kind=row.kind,
        rollout_id=row.of_rollout,
        labels=row.labels,
        digest=row.target_digest if row.kind != OperationKind.REBOOT.value else "",
        version=row.target_version,
        override_floor=row.override_floor,
        override_failed=row.override_failed,
        placement_told=row.placement_told,
    )
