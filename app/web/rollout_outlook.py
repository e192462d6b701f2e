"""How long a rollout will take, held against its windows. The plan of the whole fleet that it needs is shared by its
readers for a while."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from markupsafe import Markup

from app.core.estimate import Estimate
from app.core.rollouts import ACTIVE
from app.core.windows import closes_at, is_open, next_opening
from app.services.fleet_plans import DECIDED
from app.services.rollout_ending import STOPPED_WORDS, mending_words
from app.services.rollout_preview import preview
from app.store import revisions, rollout_taken
from app.store.rollout_taken import Lent
from app.store.rollouts import Rollout
from app.web.context import console, now
from app.web.htmx import render
from app.web.preferences import preferences
from app.web.rollout_plan_view import WorstRow, wave_words
from app.web.rollout_words import basis_words, range_words

_PACE_S = 30.0
"""A range of hours does not change within this."""


def outlook(rollout: Rollout) -> Markup:
    """The tile of the range to the end, and why it never ends; empty for one that does not run."""
    if rollout.state not in ACTIVE:
        return Markup()
    with console().db.read() as conn:
        decided = tuple(sorted(revisions.of_topics(conn, DECIDED).items()))
    key = ("rollout-outlook", rollout.id, rollout.state, decided, preferences().time_zone)
    etag = str(int(now() // _PACE_S))
    fragment, _ = console().fragments.get(key, etag, now(), lambda: _draw(rollout), pace_s=_PACE_S)
    return Markup(fragment.body.decode())  # noqa: S704 -- rendered by a template of ours


def _draw(rollout: Rollout) -> str:
    seen = preview(console().db, rollout.id, now(), console().plans)
    if seen.place < 0:
        return ""
    found = seen.estimate
    with console().db.read() as conn:
        lent = rollout_taken.with_others(conn, rollout.id, rollout.number)
        mending = mending_words(conn, rollout, now())
    return render(
        "rollouts/_outlook.html",
        takes=range_words(found),
        basis=basis_words(found),
        never=found.never,
        windows=window_words(rollout, found),
        lent=lent_words(lent),
        mending=mending,
    )


def lent_words(lent: Sequence[Lent]) -> str:
    """What of it newer rollouts took and have not moved."""
    if not lent:
        return ""
    parts = [f"{one.nodes:,} with rollout {one.number}{_stopped(one)}" for one in lent]
    return f"Of its nodes: {', '.join(parts)}. Those that are not moved there come in again."


def _stopped(lent: Lent) -> str:
    return f", which {STOPPED_WORDS[lent.state]}" if lent.state in STOPPED_WORDS else ""


def window_words(rollout: Rollout, found: Estimate) -> str:
    """Whether it ends within the window that is open, in the reader's time zone; empty where no window binds it."""
    windows = rollout.policy.windows
    if not windows or rollout.break_glass or rollout.leads_back or not found.high_s:
        return ""
    if not is_open(windows, now()):
        opens = next_opening(windows, now())
        return "" if opens is None else f"Staging begins at once; its window opens {_moment(opens)}."
    closes = closes_at(windows, now())
    if closes is None:
        return ""
    what, *ends = _WORDS[bool(found.never)]
    if now() + found.high_s <= closes:
        return f"{what} {ends[0]} before its window closes, {_moment(closes)}."
    fits = ends[1] if now() + found.low_s <= closes else ends[2]
    return f"{what} {fits} before its window closes, {_moment(closes)}: what is left goes on in the next one."


_WORDS = {
    False: ("It", "ends", "may not end", "does not end"),
    True: ("What can move", "is through", "may not be through", "is not through"),
}
"""By whether it never ends: what ends, and whether before the window closes: yes, perhaps, no."""


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, preferences().zone):%a %Y-%m-%d %H:%M %Z}"


def _wave(number: int | None) -> str:
    return "another rollout" if number is None else wave_words(number)


def planned_worst(rollout: Rollout) -> list[WorstRow]:
    """Worst moments as they were planned at its start."""
    return [
        WorstRow(each["scope"], each["name"], each["healthy_now"], each["left"], each["floor"], _wave(each["wave"]))
        for each in (rollout.forecast or {}).get("worst", ())
    ]
