"""Maintenance windows: when they are open, and when they open and close next. Pure: `now` is an argument.

The one module of core that knows calendars; of `datetime` it uses the types, never the clock.

A window opens at the first instant at which the wall clock of its zone shows its opening time or a later one, and
closes likewise. So one that opens in an hour that summer time skips opens at the end of the gap; in an hour that comes
twice it opens once, at the first; one that lies in a gap altogether does not open on that day.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from app.core.group_policy import Window

HORIZON_S = 400 * 86_400.0
"""A little over a year: what has not opened or closed by then never does, for people."""
_DAYS_BACK = 8
"""Windows come again every week: a day further back, nothing that is open now can have begun anew."""


def is_open(windows: Sequence[Window], now: float) -> bool:
    """Whether activation may start; without windows it always may."""
    if not windows:
        return True
    return any(opens <= now < closes for window in windows for opens, closes in _on_days(window, now, -2, 2))


def next_opening(windows: Sequence[Window], now: float) -> float | None:
    """When it is open next: `now` while it is; None: never within HORIZON_S."""
    if is_open(windows, now):
        return now
    span = next(_spans(windows, now), None)
    return None if span is None else span[0]


def closes_at(windows: Sequence[Window], now: float) -> float | None:
    """When what is open now closes; None: nothing is open, or it never closes within HORIZON_S."""
    if not windows or not is_open(windows, now):
        return None
    closes = next(_spans(windows, now))[1]
    return None if math.isinf(closes) else closes


def next_openings(windows: Sequence[Window], now: float, count: int) -> list[tuple[float, float]]:
    """Opening and closing of the next `count` stretches, overlapping windows as one; the first may be open already.

    A closing of `inf`: never within HORIZON_S. Without windows it is always open, and nothing opens.
    """
    return [span for span, _ in zip(_spans(windows, now), range(count), strict=False)]


def is_zone(name: str) -> bool:
    """Whether it is the name of an IANA time zone that this machine knows."""
    return name in _zones()


def minute_of_day(text: str) -> int | None:
    """Minutes after midnight of `HH:MM`; None when it is none."""
    hours, colon, minutes = text.partition(":")
    if not colon or len(hours) != 2 or len(minutes) != 2 or not (hours + minutes).isascii():
        return None
    if not (hours + minutes).isdigit() or int(hours) > 23 or int(minutes) > 59:
        return None
    return int(hours) * 60 + int(minutes)


def _spans(windows: Sequence[Window], now: float) -> Iterator[tuple[float, float]]:
    """Merged stretches that have not closed, in order."""
    last = int(HORIZON_S // 86_400)
    merged: tuple[float, float] | None = None
    for opens, closes in heapq.merge(*(_on_days(window, now, -_DAYS_BACK, last) for window in windows)):
        if merged is not None and opens <= merged[1]:
            merged = (merged[0], max(merged[1], closes))
            continue
        if merged is not None and merged[1] > now:
            yield merged
        merged = (opens, closes)
    if merged is not None and merged[1] > now:
        began = merged[0] - now < _DAYS_BACK * 86_400  # else it is only the last one that was looked at
        endless = began and merged[1] - now > HORIZON_S - 2 * 86_400
        yield (merged[0], math.inf if endless else merged[1])


def _on_days(window: Window, now: float, first: int, last: int) -> Iterator[tuple[float, float]]:
    """Opening and closing on the days from `first` to before `last`, counted from today in the window's zone."""
    zone = ZoneInfo(window.zone)
    opens, closes = minute_of_day(window.opens), minute_of_day(window.closes)
    assert opens is not None and closes is not None, "a policy's windows were checked when it was read"
    today = datetime.fromtimestamp(now, zone).date()
    for offset in range(first, last):
        day = today + timedelta(days=offset)
        if day.weekday() in window.days:
            closing_day = day if closes > opens else day + timedelta(days=1)
            span = _instant(day, opens, zone), _instant(closing_day, closes, zone)
            if span[0] < span[1]:
                yield span


def _instant(day: date, minute: int, zone: ZoneInfo) -> float:
    """The first instant at which the wall clock shows this minute of this day or a later one."""
    wall = datetime.combine(day, time(minute // 60, minute % 60))
    at = wall.replace(tzinfo=zone).timestamp()  # fold 0: of two, the first
    if _wall(at, zone) == wall:
        return at
    before, after = int(wall.replace(tzinfo=zone, fold=1).timestamp()), int(at)  # on both sides of the gap's end
    while after - before > 1:
        middle = (before + after) // 2
        if _wall(middle, zone) < wall:
            before = middle
        else:
            after = middle
    return float(after)


def _wall(at: float, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at, UTC).astimezone(zone).replace(tzinfo=None)


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
