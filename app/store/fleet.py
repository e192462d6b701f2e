"""The one row of the fleet (its lock, epoch and policy), and the samples of which versions run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from app.core.policy import Policy
from app.store.schema import fleet, nodes, version_samples

FLEET_ID = 1


@dataclass(frozen=True, slots=True)
class VersionSample:
    """How many admitted nodes ran `version` at `at`; the empty version is "not known"."""

    at: float
    version: str
    nodes: int


def ensure(conn: Connection, now: float) -> bool:
    """Make the fleet's row unless it is there; whether it was made."""
    if conn.execute(select(fleet.c.id)).first() is not None:
        return False
    conn.execute(insert(fleet).values(id=FLEET_ID, epoch=1, policy={}, created_at=now))
    return True


def lock(conn: Connection) -> None:
    """Whoever admits holds this until the end of the transaction (rule 3); SQLite's transactions are locks already."""
    conn.execute(select(fleet.c.id).where(fleet.c.id == FLEET_ID).with_for_update(key_share=True)).one()


def epoch(conn: Connection) -> int:
    found: int = conn.execute(_EPOCH).scalar_one()
    return found


_EPOCH = select(fleet.c.epoch)


def policy(conn: Connection) -> Policy:
    return Policy(**policy_changes(conn))


def policy_changes(conn: Connection) -> dict[str, Any]:
    """The fields of the policy that differ from its defaults."""
    return dict(conn.execute(_POLICY).scalar_one())


_POLICY = select(fleet.c.policy)


def set_policy(conn: Connection, changes: dict[str, float]) -> None:
    conn.execute(update(fleet).values(policy=changes))


def last_sample_at(conn: Connection) -> float | None:
    found: float | None = conn.execute(select(func.max(version_samples.c.at))).scalar_one()
    return found


def first_sample_at(conn: Connection) -> float | None:
    found: float | None = conn.execute(select(func.min(version_samples.c.at))).scalar_one()
    return found


def versions(conn: Connection) -> dict[str, int]:
    """Version → number of admitted nodes that are booted into it."""
    rows = conn.execute(
        select(nodes.c.version, func.count()).where(nodes.c.admission == "admitted").group_by(nodes.c.version)
    )
    return {row[0]: row[1] for row in rows}


def add_samples(conn: Connection, at: float, counts: dict[str, int]) -> None:
    if counts:
        conn.execute(
            insert(version_samples),
            [{"at": at, "version": version, "nodes": count} for version, count in sorted(counts.items())],
        )


def samples(conn: Connection, since: float) -> list[VersionSample]:
    """Oldest first."""
    rows = conn.execute(
        select(version_samples)
        .where(version_samples.c.at >= since)
        .order_by(version_samples.c.at, version_samples.c.version)
    )
    return [VersionSample(row.at, row.version, row.nodes) for row in rows]


def remove_samples_older(conn: Connection, before: float) -> int:
    return conn.execute(delete(version_samples).where(version_samples.c.at < before)).rowcount
