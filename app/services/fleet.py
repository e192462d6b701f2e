"""The fleet as a whole: its policy, and the samples from which the Fleet page draws which versions run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

from sqlalchemy import Connection

from app.core.actors import Actor
from app.core.errors import Invalid
from app.core.policy import Policy
from app.core.policy_text import duration_s, duration_text
from app.store import audit, fleet
from app.store.database import Database, Priority

_SAMPLE_S = 3600.0
_YOUNG_S = 2 * 3600.0
"""A fresh fleet gets a curve while its operator is still looking."""
_YOUNG_SAMPLE_S = 60.0
_LONGEST_S = 365 * 86_400.0
"""No duration of the policy may be longer: a slip of units is refused."""


def ensure_fleet(db: Database, now: float) -> None:
    """Make the fleet's row at the first start."""
    with db.write() as change:
        fleet.ensure(change.conn, now)


def current_policy(conn: Connection) -> Policy:
    return fleet.policy(conn)


def fields_of(policy: Policy) -> list[tuple[str, float]]:
    """Name and value (seconds) of each field."""
    return list(asdict(policy).items())


def parse_changes(changes: Sequence[str]) -> dict[str, float]:
    """`FIELD=DURATION` as typed to fields in seconds; Invalid names what is wrong."""
    parsed = {}
    for change in changes:
        name, _, value = change.partition("=")
        try:
            parsed[name] = duration_s(name, value.strip())
        except Invalid as error:
            raise Invalid(name, f"“{change}” is not FIELD=DURATION, such as {name or 'soak_s'}=30m.") from error
    return parsed


def set_policy(db: Database, actor: Actor, changes: Mapping[str, float], reason: str, now: float) -> None:
    """Change fields of the policy for operations that begin from now on; Invalid for an unknown field or value."""
    known = {field.name for field in fields(Policy)}
    for name, value in changes.items():
        if name not in known:
            raise Invalid(name, f"The policy has no field “{name}”; it has {', '.join(sorted(known))}.")
        if not math.isfinite(value) or not 0 <= value <= _LONGEST_S:
            raise Invalid(
                name,
                f"{name} must be from {duration_text(0)} to {duration_text(_LONGEST_S)}, not {duration_text(value)}.",
            )
    with db.write() as change:
        fleet.lock(change.conn)
        before = fleet.policy_changes(change.conn)
        after = before | dict(changes)
        fleet.set_policy(change.conn, after)
        audit.append(change.conn, actor, "fleet.policy", "fleet", reason, before, after, now)
        change.touch("fleet", "groups")  # groups follow in the durations that they do not name


def sample_versions(db: Database, now: float) -> bool:
    """Note which versions run when a sample is due (hourly; each minute in the first two hours); whether it was."""
    with db.read() as conn:
        if not _due(conn, now):
            return False
    with db.write(Priority.BACKGROUND) as change:
        fleet.lock(change.conn)
        if not _due(change.conn, now):  # another conductor was first
            return False
        counts = fleet.versions(change.conn)
        if not counts:
            return False
        fleet.add_samples(change.conn, now, counts)
        change.touch("fleet")
    return True


def _due(conn: Connection, now: float) -> bool:
    last, first = fleet.last_sample_at(conn), fleet.first_sample_at(conn)
    if last is None or first is None:
        return True
    return now - last >= (_YOUNG_SAMPLE_S if now - first < _YOUNG_S else _SAMPLE_S)
