"""Versions that stopped everywhere, because they failed often enough or were withdrawn, until somebody clears them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec
from sqlalchemy import Connection, ScalarSelect, Text, and_, cast, func, insert, not_, select, update

from app.store.schema import bad_versions, nodes, operations
from wire.messages import Activity, EvidenceClass, OperationKind, Result, Slot, WayBack


class Cause(StrEnum):
    WITHDRAWN = "withdrawn"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class BadVersion:
    digest: str
    version: str
    reason: str
    cause: Cause
    actor: str
    at: float

    def stops(self, back: bool) -> bool:
        """Whether it stops an order that is given; `back`: one that leads back. Those only an operator's word stops:
        that a version failed elsewhere takes no way back that is under way (rules 2, 7)."""
        return not back or self.cause is Cause.WITHDRAWN


def not_cleared(conn: Connection) -> dict[str, BadVersion]:
    """By digest; one that failed and is withdrawn too is told as withdrawn."""
    return {
        row.digest: BadVersion(row.digest, row.version, row.reason, Cause(row.cause), row.actor, row.at)
        for row in conn.execute(_NOT_CLEARED)
    }


_NOT_CLEARED = (
    select(bad_versions).where(bad_versions.c.cleared_at.is_(None)).order_by(bad_versions.c.cause, bad_versions.c.at)
)


def get(conn: Connection, digest: str) -> BadVersion | None:
    """Of one that is not cleared."""
    return not_cleared(conn).get(digest)


def remember(conn: Connection, found: BadVersion) -> bool:
    """It is bad (again) by this cause; False when that was known and not cleared. What it is bad by besides stays."""
    values = {
        "version": found.version,
        "reason": found.reason,
        "actor": found.actor,
        "at": found.at,
        "cleared_at": None,
        "cleared_by": None,
        "cleared_reason": None,
    }
    mine = bad_versions.c.digest == found.digest, bad_versions.c.cause == found.cause.value
    known = conn.execute(select(bad_versions).where(*mine)).one_or_none()
    if known is None:
        conn.execute(insert(bad_versions).values(digest=found.digest, cause=found.cause.value, **values))
        return True
    if known.cleared_at is None:
        return False
    conn.execute(update(bad_versions).where(*mine).values(**values))
    return True


def clear(conn: Connection, digest: str, by: str, reason: str, now: float, *causes: Cause) -> bool:
    """It is not bad by these causes any more; whether there was anything to clear."""
    cleared = conn.execute(
        update(bad_versions)
        .where(
            bad_versions.c.digest == digest,
            bad_versions.c.cause.in_([cause.value for cause in causes]),
            bad_versions.c.cleared_at.is_(None),
        )
        .values(cleared_at=now, cleared_by=by, cleared_reason=reason)
    )
    return cleared.rowcount > 0


@dataclass(frozen=True, slots=True)
class Holder:
    """A node that shows a digest in some slot that is not booted."""

    node_id: str
    slots: tuple[Slot, ...]
    way_back: WayBack | None
    newest: Result | None
    """How the newest operation ended that says something of what is booted: a switch, or a rescue."""

    def disarmable(self, digest: str, cause: Cause) -> bool:
        """Whether the passive slot holds it as a copy that could boot and that nobody needs as the way back: one that
        ran here stays if the version failed elsewhere, and as long as what is booted has not proved itself."""
        passive = next((slot for slot in self.slots if not slot.booted), None)
        if passive is None or passive.digest != digest or passive.good is False:
            return False
        if self.way_back is None or self.way_back.slot != passive.name or passive.good is not True:
            return True
        return cause is Cause.WITHDRAWN and self._proved

    @property
    def _proved(self) -> bool:
        confirmed = any(slot.booted and slot.good is True for slot in self.slots)
        return confirmed and self.newest not in (Result.UNHEALTHY, Result.UNKNOWN)


REFUSED_FOR_S = 600.0
"""A node that still needed its way back is asked again after this: by then its soak is over, or it was rescued."""
_SAYS_NOTHING = (Result.CANCELLED.value, Result.REFUSED.value, Result.TIMED_OUT.value)


def holders(conn: Connection, digest: str, since: float, now: float) -> list[Holder]:
    """Nodes that show the digest beside what is booted, do nothing else, and were not told since then to disarm it. Who
    was told and never did it, because another order came or it was not heard of, is told again. Not those that nobody
    may command: they would keep the others from being told."""
    busy = select(operations.c.node_id).where(operations.c.state == "open").scalar_subquery()
    rows = conn.execute(
        select(nodes.c.id, nodes.c.slots, nodes.c.activity, _newest_result().label("newest"))
        .where(
            nodes.c.admission == "admitted",
            nodes.c.conflict.is_(None),
            nodes.c.evidence != EvidenceClass.PROTOCOL_ONLY.value,
            nodes.c.booted_digest != digest,
            cast(nodes.c.slots, Text).contains(digest, autoescape=True),
            nodes.c.id.not_in(_told(digest, since, now)),
            nodes.c.id.not_in(busy),
        )
        .order_by(nodes.c.id)
    )
    return [
        Holder(
            row.id,
            msgspec.convert(row.slots, tuple[Slot, ...]),
            msgspec.convert(row.activity or {}, Activity).way_back,
            Result(row.newest) if row.newest is not None else None,
        )
        for row in rows
    ]


def _told(digest: str, since: float, now: float) -> ScalarSelect[str]:
    result = func.coalesce(operations.c.result, "")
    refused_long_ago = and_(result == Result.REFUSED.value, operations.c.ended_at < now - REFUSED_FOR_S)
    return (
        select(operations.c.node_id)
        .where(
            operations.c.kind == OperationKind.DISARM.value,
            operations.c.target_digest == digest,
            operations.c.created_at >= since,
            result.not_in((Result.CANCELLED.value, Result.TIMED_OUT.value)),
            not_(refused_long_ago),
        )
        .scalar_subquery()
    )


def _newest_result() -> ScalarSelect[str | None]:
    kinds = (OperationKind.ACTIVATE, OperationKind.ROLLBACK, OperationKind.RESCUE)
    return (
        select(operations.c.result)
        .where(
            operations.c.node_id == nodes.c.id,
            operations.c.kind.in_([kind.value for kind in kinds]),
            operations.c.state == "ended",
            func.coalesce(operations.c.result, "").not_in(_SAYS_NOTHING),
        )
        .order_by(operations.c.ended_at.desc(), operations.c.id.desc())
        .limit(1)
        .correlate(nodes)
        .scalar_subquery()
    )


def running(conn: Connection, digest: str, limit: int) -> list[str]:
    """Nodes that are booted into it, by name."""
    rows = conn.execute(
        select(nodes.c.id)
        .where(nodes.c.admission == "admitted", nodes.c.booted_digest == digest)
        .order_by(nodes.c.name, nodes.c.id)
        .limit(limit)
    )
    return list(rows.scalars())
