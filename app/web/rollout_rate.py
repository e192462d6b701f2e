"""How fast a rollout goes: what got through lately, over the time that this took."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from app.core.rollouts import TERMINAL, RolloutState
from app.store import rollout_counts
from app.store.rollout_counts import Through
from app.store.rollouts import Rollout
from app.web.filters import duration

WINDOW_S = 3600.0
_FEW = 3
"""Fewer nodes, in less than the window, say more of when they began than of how fast it goes."""


@dataclass(frozen=True, slots=True)
class Rate:
    words: str
    """`12 an hour`, `1.7 a minute`; empty where too little is through."""
    caption: str
    """Of which time, or why there is none."""


def rate(conn: Connection, rollout: Rollout, now: float) -> Rate | None:
    """None: it has ended, or was never started."""
    if rollout.state in TERMINAL or rollout.started_at is None:
        return None
    back = rollout.state is RolloutState.ROLLING_BACK
    return rate_of(rollout_counts.through(conn, rollout.id, now - WINDOW_S, back=back), now)


def rate_of(seen: Through, now: float) -> Rate:
    """Of what is through since the window began, or since the first node moved where that is later."""
    began = now - WINDOW_S if seen.began_at is None else max(now - WINDOW_S, seen.began_at)
    whole = began <= now - WINDOW_S
    if seen.last_at is None:
        return Rate("", "nothing through yet")
    if not seen.nodes:
        return Rate("", "nothing through in the last hour")
    if not whole and (seen.nodes < _FEW or seen.last_at <= began):
        return Rate("", "too early for a rate")
    took_s = seen.last_at - began
    quiet_s = now - seen.last_at - took_s / seen.nodes  # until the next one is due, nothing has become slower
    caption = "rate of the last hour" if whole else f"rate of the last {duration(now - began)}"
    return Rate(rate_words(seen.nodes, WINDOW_S if whole else took_s + max(0.0, quiet_s)), caption)


def rate_words(done: int, seconds: float) -> str:
    """`12 an hour`, `1.7 a minute`; empty where nothing has been done."""
    if not done or seconds <= 0:
        return ""
    a_minute = done * 60 / seconds
    return f"{a_minute:.3g} a minute" if a_minute >= 1 else f"{a_minute * 60:.3g} an hour"
