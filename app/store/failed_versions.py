"""Which versions failed where (rule 5), and which of them an operator cleared."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, Connection, and_, bindparam, exists, insert, or_, select, tuple_, update

from app.core.nodes import FailedHere
from app.store.schema import failed_versions, leases, operations
from wire.messages import OperationKind, Result


def of_node(conn: Connection, node_id: str) -> list[FailedHere]:
    """Newest first."""
    rows = conn.execute(_OF_NODE, {"node_id": node_id})
    return [FailedHere(row.version, row.digest, row.reason, row.at, row.cleared_at, row.only_late) for row in rows]


_silent, _later = operations.alias("silent"), operations.alias("later")
_ONLY_LATE = exists().where(
    _silent.c.id == failed_versions.c.operation_id,
    _silent.c.result == Result.TIMED_OUT.value,
    _later.c.node_id == failed_versions.c.node_id,
    _later.c.kind == OperationKind.ACTIVATE.value,
    _later.c.old_digest == failed_versions.c.digest,
    tuple_(_later.c.order_epoch, _later.c.order_generation) > tuple_(_silent.c.order_epoch, _silent.c.order_generation),
    exists().where(leases.c.operation_id == _later.c.id),
)
"""Silence alone taught it, and a later update had its lease on a boot of this very version: nodes ask for that only
from a slot that is confirmed good."""


def let_pass() -> ColumnElement[bool]:
    """In a query of `operations`: what failed on the node before does not stop this one. An operator said so, or it
    goes back into the slot of a version that was only late."""
    late = exists().where(
        failed_versions.c.node_id == operations.c.node_id,
        failed_versions.c.digest == operations.c.target_digest,
        failed_versions.c.cleared_at.is_(None),
        _ONLY_LATE,
    )
    return or_(operations.c.override_failed, and_(operations.c.kind == OperationKind.ROLLBACK.value, late))


_OF_NODE = (
    select(failed_versions, _ONLY_LATE.label("only_late"))
    .where(failed_versions.c.node_id == bindparam("node_id"))
    .order_by(failed_versions.c.at.desc())
)


def on_nodes(conn: Connection, digests: Collection[str]) -> dict[tuple[str, str], bool]:
    """(node, digest) of these versions where they failed and nobody cleared that → whether it was only late."""
    query = select(failed_versions.c.node_id, failed_versions.c.digest, _ONLY_LATE.label("only_late")).where(
        failed_versions.c.digest.in_(list(digests)), failed_versions.c.cleared_at.is_(None)
    )
    return {(row.node_id, row.digest): row.only_late for row in conn.execute(query)}


def remember(
    conn: Connection, node_id: str, digest: str, version: str, reason: str, operation_id: str | None, now: float
) -> None:
    """It failed (again): what an operator cleared before is not cleared any more."""
    values = {
        "version": version,
        "reason": reason,
        "operation_id": operation_id,
        "at": now,
        "cleared_at": None,
        "cleared_by": None,
        "cleared_reason": None,
    }
    known = conn.execute(
        update(failed_versions)
        .where(failed_versions.c.node_id == node_id, failed_versions.c.digest == digest)
        .values(**values)
    )
    if known.rowcount == 0:
        conn.execute(insert(failed_versions).values(node_id=node_id, digest=digest, **values))


def clear(conn: Connection, node_id: str, digest: str, by: str, reason: str, now: float) -> bool:
    """Allow it again; whether there was anything to clear."""
    cleared = conn.execute(
        update(failed_versions)
        .where(
            failed_versions.c.node_id == node_id,
            failed_versions.c.digest == digest,
            failed_versions.c.cleared_at.is_(None),
        )
        .values(cleared_at=now, cleared_by=by, cleared_reason=reason)
    )
    return cleared.rowcount == 1


def listed(conn: Connection, node_id: str, digests: Collection[str]) -> None:
    """The node itself says that these failed: what silence taught of them is its own word from now on."""
    timed_out = select(operations.c.id).where(
        operations.c.node_id == node_id, operations.c.result == Result.TIMED_OUT.value
    )
    conn.execute(
        update(failed_versions)
        .where(
            failed_versions.c.node_id == node_id,
            failed_versions.c.digest.in_(list(digests)),
            failed_versions.c.operation_id.in_(timed_out),
            failed_versions.c.cleared_at.is_(None),
        )
        .values(operation_id=None)
    )


def clear_silence(conn: Connection, node_id: str, operation_id: str, reason: str, now: float) -> bool:
    """Forget what only the silence of this operation's node taught, which was no failure: nothing else is forgotten
    without an operator. Whether there was anything to clear."""
    cleared = conn.execute(
        update(failed_versions)
        .where(
            failed_versions.c.node_id == node_id,
            failed_versions.c.operation_id == operation_id,
            failed_versions.c.cleared_at.is_(None),
        )
        .values(cleared_at=now, cleared_by="node", cleared_reason=reason)
    )
    return cleared.rowcount > 0
