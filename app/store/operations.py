"""Operations: rows in and out. Every change of an open one is a conditional update; its row count says who won."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, exists, insert, or_, select, update

from app.core.nodes import Delivery, Operation, OperationState, Previous
from app.core.rollouts import RolloutKind, RolloutState
from app.store.schema import images, leases, nodes, operations, rollouts
from wire.messages import OperationKind, Order, Phase, Result

_HOLDS_LEASE = exists().where(leases.c.operation_id == operations.c.id, leases.c.ended_at.is_(None))


_DELIVERY = "delivery"
"""Beside the durations in the frozen policy of an operation."""


def every() -> Select[Any]:
    """All of them, for queries that narrow it; each row is one for `operation_of`."""
    return select(operations, _HOLDS_LEASE.label("holds_lease"))


def add(conn: Connection, operation: Operation) -> None:
    conn.execute(
        insert(operations).values(
            id=operation.id,
            node_id=operation.node_id,
            kind=operation.kind.value,
            image_id=operation.image_id,
            target_version=operation.target_version,
            target_digest=operation.target_digest,
            order_epoch=operation.order.epoch,
            order_generation=operation.order.generation,
            state=operation.state.value,
            phase=operation.phase.value,
            actor=operation.actor,
            reason=operation.reason,
            rollout_id=operation.rollout_id,
            override_floor=operation.override_floor,
            override_failed=operation.override_failed,
            policy=operation.policy | _delivery_json(operation.delivery),
            old_boot_id=operation.old_boot_id,
            old_slot=operation.old_slot,
            old_version=operation.old_version,
            old_digest=operation.old_digest,
            created_at=operation.created_at,
            phase_at=operation.phase_at,
            clock_at=operation.clock_at,
        )
    )


def get(conn: Connection, operation_id: str, *, lock: bool = False) -> Operation | None:
    query = every().where(operations.c.id == operation_id)
    row = conn.execute(query.with_for_update(of=operations, key_share=True) if lock else query).one_or_none()
    return None if row is None else operation_of(row)


def open_of(conn: Connection, node_id: str) -> list[Operation]:
    """Open operations of a node, oldest first: the desired one, and others of which the node owes its word."""
    return [operation_of(row) for row in conn.execute(_open_of(), {"node_id": node_id})]


@cache
def _open_of() -> Select[Any]:
    of_node = operations.c.node_id == bindparam("node_id"), operations.c.state == OperationState.OPEN.value
    return every().where(*of_node).order_by(operations.c.created_at, operations.c.id)


def all_open(conn: Connection) -> list[Operation]:
    """All open operations of the fleet, oldest first."""
    query = every().where(operations.c.state == OperationState.OPEN.value)
    return [operation_of(row) for row in conn.execute(query.order_by(operations.c.created_at, operations.c.id))]


def with_cancel_asked(conn: Connection) -> list[Operation]:
    """Open operations that somebody cancelled, oldest first."""
    query = every().where(operations.c.state == OperationState.OPEN.value, operations.c.cancel_asked_at.is_not(None))
    return [operation_of(row) for row in conn.execute(query.order_by(operations.c.created_at, operations.c.id))]


def unarmed_towards(conn: Connection, digests: Sequence[str]) -> list[Operation]:
    """Open orders that lead to one of these contents and have armed nothing, oldest first: of operators, and ways back.
    (Orders of rollouts that lead forth go with their rollouts.)"""
    back = exists().where(
        rollouts.c.id == operations.c.rollout_id,
        or_(
            rollouts.c.kind == RolloutKind.ROLLBACK.value,
            rollouts.c.state == RolloutState.ROLLING_BACK.value,
        ),
    )
    query = every().where(
        operations.c.state == OperationState.OPEN.value,
        operations.c.target_digest.in_(digests),
        operations.c.kind.in_((OperationKind.STAGE.value, OperationKind.ACTIVATE.value, OperationKind.ROLLBACK.value)),
        operations.c.phase.in_((Phase.IDLE.value, Phase.STAGING.value, Phase.STAGED.value)),
        operations.c.cancel_asked_at.is_(None),
        or_(operations.c.rollout_id.is_(None), back),
    )
    return [operation_of(row) for row in conn.execute(query.order_by(operations.c.created_at, operations.c.id))]


def with_unused_leases(conn: Connection) -> list[Operation]:
    """Open updates and reboots that have their lease and have armed nothing, oldest first."""
    query = every().where(
        operations.c.state == OperationState.OPEN.value,
        operations.c.kind.in_((OperationKind.ACTIVATE.value, OperationKind.REBOOT.value)),
        operations.c.phase.in_((Phase.IDLE.value, Phase.STAGING.value, Phase.STAGED.value)),
        operations.c.cancel_asked_at.is_(None),
        _HOLDS_LEASE,
    )
    return [operation_of(row) for row in conn.execute(query.order_by(operations.c.created_at, operations.c.id))]


@cache
def _previous_of() -> Select[Any]:
    return (
        select(operations.c.old_version, operations.c.old_digest)
        .where(
            operations.c.node_id == bindparam("node_id"),
            operations.c.target_digest == bindparam("booted"),
            operations.c.old_digest.not_in(("", bindparam("booted"))),
            operations.c.kind.in_((OperationKind.ACTIVATE.value, OperationKind.ROLLBACK.value)),
        )
        .order_by(operations.c.id.desc())
        .limit(1)
    )


def previous_of(conn: Connection, node_id: str, booted_digest: str) -> Previous | None:
    """What the newest operation that led to the booted digest left behind, with an image of it if there is one."""
    if not booted_digest:
        return None
    row = conn.execute(_previous_of(), {"node_id": node_id, "booted": booted_digest}).one_or_none()
    if row is None:
        return None
    image_id = conn.execute(
        select(images.c.id)
        .where(images.c.digest == row.old_digest, images.c.withdrawn_at.is_(None))
        .order_by(images.c.created_at)
        .limit(1)
    ).scalar_one_or_none()
    return Previous(row.old_version, row.old_digest, image_id)


def move(conn: Connection, operation: Operation, phase: Phase, now: float) -> bool:
    """Record a new phase, unless the operation has ended or moved meanwhile; its deadline begins anew."""
    return _change_open(conn, operation, phase=phase.value, phase_at=now, heard_s=0.0, clock_at=now)


def end(
    conn: Connection,
    operation: Operation,
    result: Result,
    text: str,
    now: float,
    *,
    evidence: dict[str, Any] | None = None,
    failed_checks: Sequence[dict[str, Any]] = (),
) -> bool:
    """End it, unless it has ended: terminal is terminal. Whether this call ended it."""
    ended = conn.execute(
        update(operations)
        .where(operations.c.id == operation.id, operations.c.state == OperationState.OPEN.value)
        .values(
            state=OperationState.ENDED.value,
            result=result.value,
            result_text=text,
            failed_checks=list(failed_checks) or None,
            evidence=evidence,
            lease_nonce=None,
            hold=None,
            ended_at=now,
        )
    )
    return ended.rowcount == 1


def ask_to_cancel(conn: Connection, operation: Operation, text: str, now: float) -> bool:
    """`text`: why, which is how it ends if the node says that it stopped."""
    return _change_open(conn, operation, cancel_asked_at=now, result_text=text)


def keep_claim(conn: Connection, operation: Operation, claim: dict[str, Any], now: float) -> bool:
    """Keep the report of a success that came too early; False where one is kept. To its node the soak is over, so that
    is the phase that it is judged in, also where no status told so."""
    if operation.claim is not None:
        return False
    soaks = operation.phase is Phase.SOAKING
    begins = {} if soaks else {"phase": Phase.SOAKING.value, "phase_at": now, "heard_s": 0.0, "clock_at": now}
    return _change_open(conn, operation, claim=claim, **begins)


def with_claims(conn: Connection, node_ids: Collection[str] | None = None) -> list[Operation]:
    """Open operations whose report of success is kept, oldest first; of all nodes unless some are named."""
    query = every().where(operations.c.state == OperationState.OPEN.value, operations.c.claim.is_not(None))
    if node_ids is not None:
        query = query.where(operations.c.node_id.in_(node_ids))
    return [operation_of(row) for row in conn.execute(query.order_by(operations.c.created_at, operations.c.id))]


def claim(conn: Connection, operation_ids: Sequence[str]) -> set[str]:
    """Those of a few hundred operations that nobody else is changing, held until the end of the transaction.

    For the conductor's changes of many at once: it waits for nobody, so it is never part of a deadlock.
    """
    free = select(operations.c.id).where(operations.c.id.in_(operation_ids)).order_by(operations.c.id)
    return set(conn.execute(free.with_for_update(skip_locked=True, key_share=True)).scalars())


def note_request(conn: Connection, operation: Operation, nonce: str, now: float) -> bool:
    """The newest lease request of an open operation; when it first asked stays."""
    asked_at = operation.lease_asked_at if operation.lease_asked_at is not None else now
    return _change_open(conn, operation, lease_nonce=nonce, lease_nonce_at=now, lease_asked_at=asked_at)


def answer_to_wait(conn: Connection, operation_id: str, nonce: str, hold: dict[str, Any]) -> bool:
    """Tell the request with this nonce to wait, unless a newer one has come."""
    answered = conn.execute(
        update(operations)
        .where(
            operations.c.id == operation_id,
            operations.c.state == OperationState.OPEN.value,
            operations.c.lease_nonce == nonce,
        )
        .values(hold=hold)
    )
    return answered.rowcount == 1


def not_held(conn: Connection, operation_id: str) -> None:
    """What its request was told to wait for is over."""
    conn.execute(update(operations).where(operations.c.id == operation_id).values(hold=None))


def start_under_lease(conn: Connection, operation_id: str, node_id: str) -> None:
    """What the node is now, is what this operation leaves behind: rule 1 compares with it after the reboot."""
    was = conn.execute(
        select(nodes.c.boot_id, nodes.c.booted_slot, nodes.c.version, nodes.c.booted_digest).where(
            nodes.c.id == node_id
        )
    ).one()
    conn.execute(
        update(operations)
        .where(operations.c.id == operation_id)
        .values(old_boot_id=was[0], old_slot=was[1], old_version=was[2], old_digest=was[3], hold=None)
    )


def _change_open(conn: Connection, operation: Operation, **values: Any) -> bool:
    changed = conn.execute(
        update(operations)
        .where(
            and_(
                operations.c.id == operation.id,
                operations.c.state == OperationState.OPEN.value,
                operations.c.phase == operation.phase.value,
            )
        )
        .values(**values)
    )
    return changed.rowcount == 1


def _delivery_json(delivery: Delivery) -> dict[str, Any]:
    return {} if delivery == Delivery() else {_DELIVERY: {**asdict(delivery), "mirrors": list(delivery.mirrors)}}


def durations_of(policy: dict[str, Any]) -> dict[str, float]:
    """The part of an operation's frozen policy that core.policy.Policy is made of."""
    return {name: value for name, value in policy.items() if name != _DELIVERY}


def delivery_of(policy: dict[str, Any]) -> Delivery:
    stored = policy.get(_DELIVERY)
    return Delivery() if stored is None else Delivery(**{**stored, "mirrors": tuple(stored["mirrors"])})


def operation_of(row: Row[Any]) -> Operation:
    return Operation(
        id=row.id,
        node_id=row.node_id,
        kind=OperationKind(row.kind),
        image_id=row.image_id,
        target_version=row.target_version,
        target_digest=row.target_digest,
        order=Order(epoch=row.order_epoch, generation=row.order_generation),
        state=OperationState(row.state),
        phase=Phase(row.phase),
        result=None if row.result is None else Result(row.result),
        result_text=row.result_text,
        failed_checks=tuple(row.failed_checks or ()),
        actor=row.actor,
        reason=row.reason,
        override_failed=row.override_failed,
        policy=durations_of(row.policy),
        old_boot_id=row.old_boot_id,
        old_slot=row.old_slot,
        old_version=row.old_version,
        old_digest=row.old_digest,
        heard_s=row.heard_s,
        clock_at=row.clock_at,
        lease_nonce=row.lease_nonce,
        lease_nonce_at=row.lease_nonce_at,
        lease_asked_at=row.lease_asked_at,
        hold=row.hold,
        created_at=row.created_at,
        phase_at=row.phase_at,
        cancel_asked_at=row.cancel_asked_at,
        ended_at=row.ended_at,
        holds_lease=bool(row.holds_lease),
        rollout_id=row.rollout_id,
        override_floor=row.override_floor,
        delivery=delivery_of(row.policy),
        claim=row.claim,
    )
