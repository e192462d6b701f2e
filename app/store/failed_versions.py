"""Which versions failed where (rule 5), and which of them an operator cleared."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, bindparam, insert, select, update

from app.core.nodes import FailedHere
from app.store.schema import failed_versions


def of_node(conn: Connection, node_id: str) -> list[FailedHere]:
    """Newest first."""
    rows = conn.execute(_OF_NODE, {"node_id": node_id})
    return [FailedHere(row.version, row.digest, row.reason, row.at, row.cleared_at) for row in rows]


_OF_NODE = (
    select(failed_versions)
    .where(failed_versions.c.node_id == bindparam("node_id"))
    .order_by(failed_versions.c.at.desc())
)


def on_nodes(conn: Connection, digests: Collection[str]) -> set[tuple[str, str]]:
    """(node, digest) of these versions where they failed and nobody cleared that."""
    query = select(failed_versions.c.node_id, failed_versions.c.digest).where(
        failed_versions.c.digest.in_(list(digests)), failed_versions.c.cleared_at.is_(None)
    )
    return {(row.node_id, row.digest) for row in conn.execute(query)}


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
