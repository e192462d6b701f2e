"""How long the others of a rollout have waited since its canaries soaked: counted by steps, whatever clocks say."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from app.core.rollouts import RolloutState
from app.store.schema import rollouts

_c = rollouts.c


def begin(conn: Connection, rollout_id: str, at: float, waited_s: float, now: float) -> bool:
    """The last canary has soaked, at `at`, and the others have waited so long since: once."""
    query = update(rollouts).where(_c.id == rollout_id, _c.canaries_soaked_at.is_(None))
    begun = query.values(canaries_soaked_at=at, canaries_waited_s=waited_s, canaries_clock_at=now)
    return conn.execute(begun).rowcount == 1


def running(conn: Connection) -> list[tuple[str, float | None]]:
    """(id, when it was last counted) of rollouts under way whose others still wait, the oldest first."""
    return [(row[0], row[1]) for row in conn.execute(_RUNNING)]


_RUNNING = (
    select(_c.id, _c.canaries_clock_at)
    .where(
        _c.state.in_([state.value for state in (RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED)]),
        _c.canaries_soaked_at.is_not(None),
        _c.canaries_waited_s < _c.policy["canary_soak_s"].as_float(),
    )
    .order_by(_c.number)
)


def count(conn: Connection, rollout_id: str, clock_at: float | None, seconds: float, now: float) -> bool:
    """Count time, unless another conductor counted it or a new canary has to soak first."""
    same = _c.canaries_clock_at.is_(None) if clock_at is None else _c.canaries_clock_at == clock_at
    query = update(rollouts).where(_c.id == rollout_id, _c.canaries_soaked_at.is_not(None), same)
    waited_s = _c.canaries_waited_s + seconds
    return conn.execute(query.values(canaries_waited_s=waited_s, canaries_clock_at=now)).rowcount == 1


def stop(conn: Connection, rollout_id: str) -> None:
    """Another canary has to soak: the others begin to wait anew after it."""
    none = {"canaries_soaked_at": None, "canaries_waited_s": 0.0, "canaries_clock_at": None}
    conn.execute(update(rollouts).where(_c.id == rollout_id).values(**none))
