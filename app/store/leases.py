"""Leases. One row without an end per node (a unique index guards it): it costs budget until it has an end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.core.leases import Asking, Held
from app.core.nodes import Admission, OperationState
from app.core.nodes import Connection as Standing
from app.store.fleet import FLEET_ID
from app.store.nodes import LAST_SEEN
from app.store.schema import gateways, leases, nodes, operations
from wire.messages import Slot


@dataclass(frozen=True, slots=True)
class Lease:
    id: str
    node_id: str
    operation_id: str
    nonce: str
    duration_s: float
    old_boot_id: str
    granted_at: float
    ended_at: float | None
    end_reason: str


def asking(conn: Connection) -> list[Asking]:
    """Operations whose nodes ask for a lease and may have one: desired, not to be cancelled, not in a conflict.

    A request that was granted is none any more, also when the lease has been returned since.
    """
    served = exists().where(leases.c.operation_id == operations.c.id, leases.c.nonce == operations.c.lease_nonce)
    rows = conn.execute(
        select(operations, nodes.c.name.label("node_name"))
        .join(nodes, (nodes.c.id == operations.c.node_id) & (nodes.c.desired_operation_id == operations.c.id))
        .where(
            operations.c.state == OperationState.OPEN.value,
            operations.c.lease_nonce.is_not(None),
            operations.c.cancel_asked_at.is_(None),
            ~served,
            nodes.c.admission == Admission.ADMITTED.value,
            nodes.c.connection == Standing.ONLINE.value,
            nodes.c.conflict.is_(None),
        )
    )
    return [_asking(row) for row in rows]


def _asking(row: Any) -> Asking:
    hold = row.hold or {}
    answered = hold.get("nonce") == row.lease_nonce
    return Asking(
        operation_id=row.id,
        node_id=row.node_id,
        node_name=row.node_name,
        kind=row.kind,
        nonce=row.lease_nonce,
        asked_at=row.lease_asked_at,
        nonce_at=row.lease_nonce_at,
        answered=answered,
        retry_s=float(hold.get("retry_s", 0.0)) if answered else 0.0,
    )


def held(conn: Connection) -> Held | None:
    """The lease that costs budget now, with its node as last seen."""
    row = conn.execute(
        select(
            leases,
            nodes.c.name,
            nodes.c.boot_id,
            nodes.c.phase,
            nodes.c.on_trial,
            nodes.c.slots,
            nodes.c.admission,
            nodes.c.connection,
            nodes.c.gateway_id,
            LAST_SEEN.label("seen_at"),
            operations.c.state,
        )
        .select_from(
            leases.join(nodes, nodes.c.id == leases.c.node_id)
            .join(operations, operations.c.id == leases.c.operation_id)
            .outerjoin(gateways, gateways.c.id == nodes.c.gateway_id)
        )
        .where(leases.c.fleet_id == FLEET_ID, leases.c.ended_at.is_(None))
    ).one_or_none()
    if row is None:
        return None
    booted = next((slot for slot in msgspec.convert(row.slots, list[Slot]) if slot.booted), None)
    connected = row.connection == Standing.ONLINE.value and row.gateway_id is not None
    return Held(
        id=row.id,
        operation_id=row.operation_id,
        operation_open=row.state == OperationState.OPEN.value,
        node_id=row.node_id,
        node_name=row.name,
        duration_s=row.duration_s,
        old_boot_id=row.old_boot_id,
        granted_at=row.granted_at,
        counted_s=row.counted_s,
        counted_at=row.counted_at,
        boot_id=row.boot_id,
        phase=row.phase,
        on_trial=row.on_trial,
        booted_good=booted is not None and booted.good is True,
        retired=row.admission == Admission.RETIRED.value,
        seen_at=row.seen_at if connected else None,
    )


def grant(conn: Connection, *, lease_id: str, asking: Asking, duration_s: float, old_boot_id: str, now: float) -> bool:
    """Take the fleet's one place; False when somebody has it (which the locked fleet row forbids already)."""
    try:
        with conn.begin_nested():
            conn.execute(
                insert(leases).values(
                    id=lease_id,
                    fleet_id=FLEET_ID,
                    node_id=asking.node_id,
                    operation_id=asking.operation_id,
                    nonce=asking.nonce,
                    duration_s=duration_s,
                    old_boot_id=old_boot_id,
                    granted_at=now,
                    counted_at=now,
                )
            )
    except IntegrityError:
        return False
    return True


def of_operation(conn: Connection, operation_id: str) -> Lease | None:
    """The lease that this operation has now."""
    row = conn.execute(
        select(leases).where(leases.c.operation_id == operation_id, leases.c.ended_at.is_(None))
    ).one_or_none()
    return None if row is None else _lease(row)


def granted_at(conn: Connection, operation_id: str) -> float | None:
    """When this operation last got a lease, returned since or not."""
    query = select(func.max(leases.c.granted_at)).where(leases.c.operation_id == operation_id)
    found: float | None = conn.execute(query).scalar_one()
    return found


def of_node(conn: Connection, node_id: str) -> Lease | None:
    """The lease that this node has now."""
    row = conn.execute(select(leases).where(leases.c.node_id == node_id, leases.c.ended_at.is_(None))).one_or_none()
    return None if row is None else _lease(row)


def renew(conn: Connection, lease: Lease, nonce: str, now: float) -> bool:
    """The same lease for a newer request of its holder."""
    renewed = conn.execute(
        update(leases)
        .where(leases.c.id == lease.id, leases.c.ended_at.is_(None))
        .values(nonce=nonce, granted_at=now, counted_s=0.0, counted_at=now)
    )
    return renewed.rowcount == 1


def count(conn: Connection, held: Held, seconds: float, now: float) -> bool:
    """Count time of the lease, unless another conductor counted it or it was renewed meanwhile."""
    same = leases.c.counted_at.is_(None) if held.counted_at is None else leases.c.counted_at == held.counted_at
    counted = conn.execute(
        update(leases)
        .where(leases.c.id == held.id, leases.c.ended_at.is_(None), same)
        .values(counted_s=leases.c.counted_s + seconds, counted_at=now)
    )
    return counted.rowcount == 1


def end(conn: Connection, lease_id: str, granted_at: float, reason: str, now: float) -> bool:
    """Return its budget, unless that is done or the lease was renewed meanwhile."""
    ended = conn.execute(
        update(leases)
        .where(leases.c.id == lease_id, leases.c.granted_at == granted_at, leases.c.ended_at.is_(None))
        .values(ended_at=now, end_reason=reason)
    )
    return ended.rowcount == 1


def _lease(row: Any) -> Lease:
    return Lease(
        row.id,
        row.node_id,
        row.operation_id,
        row.nonce,
        row.duration_s,
        row.old_boot_id,
        row.granted_at,
        row.ended_at,
        row.end_reason,
    )
