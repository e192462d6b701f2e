"""The ledger of leases. A row without an end is a reservation: at most one a node (a unique index guards it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, and_, bindparam, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from app.core.leases import Held
from app.core.nodes import Admission, OperationState
from app.core.nodes import Connection as Standing
from app.core.slots import ARMED
from app.store.failed_versions import let_pass
from app.store.fleet import FLEET_ID
from app.store.nodes import LAST_SEEN
from app.store.schema import gateways, leases, nodes, operations
from wire.messages import Phase, Slot


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
    costs: tuple[tuple[str, str, int], ...] = ()
    """(scope, name, replicas) of the services that it takes replicas from."""


@dataclass(frozen=True, slots=True)
class Request:
    """A lease request as it is at the moment of granting, its operation's row held."""

    operation_id: str
    node_id: str
    nonce: str
    nonce_at: float
    rollout_id: str | None
    override_floor: bool
    policy: Mapping[str, Any]
    target_digest: str
    """Empty: the booted slot is meant."""
    override_failed: bool
    """An operator lets it try a version that failed on it before."""


def requests(conn: Connection, operation_ids: Sequence[str]) -> dict[str, Request]:
    """Those of these operations whose nodes ask for a lease now and may have one; by operation.

    Desired, not to be cancelled, not in a conflict, connected. A request that was granted is none any more, also when
    the lease has been returned since. Their rows are held until the end of the transaction.
    """
    served = exists().where(leases.c.operation_id == operations.c.id, leases.c.nonce == operations.c.lease_nonce)
    held = exists().where(leases.c.node_id == operations.c.node_id, leases.c.ended_at.is_(None))
    query = (
        select(
            operations.c.id,
            operations.c.node_id,
            operations.c.lease_nonce,
            operations.c.lease_nonce_at,
            operations.c.rollout_id,
            operations.c.override_floor,
            operations.c.policy,
            operations.c.target_digest,
            let_pass().label("override_failed"),
        )
        .join(nodes, (nodes.c.id == operations.c.node_id) & (nodes.c.desired_operation_id == operations.c.id))
        .where(
            operations.c.id.in_(operation_ids),
            operations.c.state == OperationState.OPEN.value,
            operations.c.lease_nonce.is_not(None),
            operations.c.cancel_asked_at.is_(None),
            ~served,
            ~held,
            nodes.c.admission == Admission.ADMITTED.value,
            nodes.c.connection == Standing.ONLINE.value,
            nodes.c.conflict.is_(None),
        )
        .order_by(operations.c.id)
    )
    return {row[0]: Request(*row) for row in conn.execute(query.with_for_update(of=operations, key_share=True))}


def all_held(conn: Connection) -> list[Held]:
    """Leases that cost budget now, each with its node as last seen; by node."""
    return [_held(row) for row in conn.execute(_all_held())]


@cache
def _all_held() -> Select[Any]:
    return _HELD.order_by(leases.c.node_id)


def maybe_over(conn: Connection) -> list[Held]:
    """Those of `all_held` that core.leases.reason_to_return may give a reason for; while a wave reboots they are few
    of many."""
    return [_held(row) for row in conn.execute(_maybe_over())]


@cache
def _maybe_over() -> Select[Any]:
    settled = and_(~nodes.c.on_trial, nodes.c.phase.not_in([phase.value for phase in ARMED]))
    confirmed = and_(nodes.c.boot_id != leases.c.old_boot_id, or_(nodes.c.phase == Phase.SOAKING.value, settled))
    retired = nodes.c.admission == Admission.RETIRED.value
    return _all_held().where(or_(retired, confirmed, leases.c.counted_s > leases.c.duration_s))


def held(conn: Connection, node_id: str) -> Held | None:
    """The lease of this node that costs budget now."""
    row = conn.execute(_held_of(), {"of_node": node_id}).one_or_none()
    return None if row is None else _held(row)


@cache
def _held_of() -> Select[Any]:
    return _HELD.where(leases.c.node_id == bindparam("of_node"))


def holder_names(conn: Connection, limit: int = 20) -> tuple[str, ...]:
    """Names of nodes that hold a lease."""
    query = select(nodes.c.name).join(leases, leases.c.node_id == nodes.c.id).where(leases.c.ended_at.is_(None))
    return tuple(conn.execute(query.order_by(nodes.c.name).limit(limit)).scalars())


_HELD: Select[Any] = (
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
    .where(leases.c.ended_at.is_(None))
)


def _held(row: Row[Any]) -> Held:
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


def grant(
    conn: Connection,
    request: Request,
    *,
    lease_id: str,
    duration_s: float,
    old_boot_id: str,
    costs: Sequence[tuple[str, str, int]],
    now: float,
) -> bool:
    """Reserve for this node; False when it has a lease (which the locked fleet and node rows forbid already)."""
    try:
        with conn.begin_nested():
            conn.execute(
                insert(leases).values(
                    id=lease_id,
                    fleet_id=FLEET_ID,
                    node_id=request.node_id,
                    operation_id=request.operation_id,
                    nonce=request.nonce,
                    duration_s=duration_s,
                    old_boot_id=old_boot_id,
                    rollout_id=request.rollout_id,
                    costs=[list(cost) for cost in costs],
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
    return None if row is None else lease_of(row)


def granted_at(conn: Connection, operation_id: str) -> float | None:
    """When this operation last got a lease, returned since or not."""
    query = select(func.max(leases.c.granted_at)).where(leases.c.operation_id == operation_id)
    found: float | None = conn.execute(query).scalar_one()
    return found


def counted_s(conn: Connection, operation_id: str) -> float:
    """How long its newest lease was out, counted by steps."""
    query = select(leases.c.counted_s).where(leases.c.operation_id == operation_id)
    found: float | None = conn.execute(query.order_by(leases.c.granted_at.desc()).limit(1)).scalar_one_or_none()
    return found or 0.0


def of_node(conn: Connection, node_id: str) -> Lease | None:
    """The lease that this node has now."""
    row = conn.execute(select(leases).where(leases.c.node_id == node_id, leases.c.ended_at.is_(None))).one_or_none()
    return None if row is None else lease_of(row)


def nodes_of(conn: Connection, operation_ids: Sequence[str]) -> set[str]:
    """Ids of the nodes of these operations."""
    return set(conn.execute(select(operations.c.node_id).where(operations.c.id.in_(operation_ids))).scalars())


def renew(conn: Connection, lease: Lease, nonce: str, costs: Sequence[tuple[str, str, int]], now: float) -> bool:
    """The same lease for a newer request of its holder, with what it takes as things are now."""
    taken = [list(cost) for cost in costs]
    renewed = conn.execute(
        update(leases)
        .where(leases.c.id == lease.id, leases.c.ended_at.is_(None))
        .values(nonce=nonce, granted_at=now, counted_s=0.0, counted_at=now, costs=taken)
    )
    return renewed.rowcount == 1


def end(conn: Connection, lease_id: str, granted_at: float, reason: str, now: float) -> bool:
    """Return its budget, unless that is done or the lease was renewed meanwhile."""
    ended = conn.execute(
        update(leases)
        .where(leases.c.id == lease_id, leases.c.granted_at == granted_at, leases.c.ended_at.is_(None))
        .values(ended_at=now, end_reason=reason)
    )
    return ended.rowcount == 1


def lease_of(row: Any) -> Lease:
    """A row with all columns of `leases`."""
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
        tuple((scope, name, replicas) for scope, name, replicas in row.costs or ()),
    )
