"""How long the others of a rollout have waited since its canaries soaked: counted by steps, whatever clocks say."""

from __future__ import annotations

from sqlalchemy import Connection, update

from app.store.rollouts import Rollout
from app.store.schema import rollouts

_c = rollouts.c


def begin(conn: Connection, rollout_id: str, at: float, waited_s: float, now: float) -> bool:
    """The last canary has soaked, at `at`, and the others have waited so long since: once."""
    query = update(rollouts).where(_c.id == rollout_id, _c.canaries_soaked_at.is_(None))
    begun = query.values(canaries_soaked_at=at, canaries_waited_s=waited_s, canaries_clock_at=now)
    return conn.execute(begun).rowcount == 1


def count(conn: Connection, rollout: Rollout, seconds: float, now: float) -> bool:
    """Count time, unless another conductor counted it or a new canary has to soak first."""
    at = rollout.canaries_clock_at
    same = _c.canaries_clock_at.is_(None) if at is None else _c.canaries_clock_at == at
    query = update(rollouts).where(_c.id == rollout.id, _c.canaries_soaked_at.is_not(None), same)
    waited_s = _c.canaries_waited_s + seconds
    return conn.execute(query.values(canaries_waited_s=waited_s, canaries_clock_at=now)).rowcount == 1


def stop(conn: Connection, rollout_id: str) -> None:
    """Another canary has to soak: the others begin to wait anew after it."""
    none = {"canaries_soaked_at": None, "canaries_waited_s": 0.0, "canaries_clock_at": None}
    conn.execute(update(rollouts).where(_c.id == rollout_id).values(**none))
