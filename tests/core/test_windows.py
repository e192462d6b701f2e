"""Windows against a plain reading: walk through the minutes of real time and look at the clock on the wall."""

from __future__ import annotations

import ast
import bisect
import inspect
import itertools
import math
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core import windows as module
from app.core.group_policy import Window
from app.core.windows import closes_at, is_open, is_zone, minute_of_day, next_opening, next_openings

DAILY = frozenset(range(7))
DAY_S = 86_400.0
CHANGES = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-10-04", "2026-04-05"),
    "America/St_Johns": ("2006-04-02", "2006-10-29"),  # at 00:01: the evening before comes twice
    "Pacific/Apia": ("2011-12-30",),  # a day that was not
    "Asia/Kolkata": ("2026-03-29",),
    "UTC": ("2026-03-29",),
}
"""Zone → days around which its clocks change, or nothing happens."""


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def window(opens: str, closes: str, zone: str = "Europe/Berlin", days: frozenset[int] = DAILY) -> Window:
    return Window(days, opens, closes, zone)


@cache
def minutes(zone: str, around: str) -> tuple[list[float], list[datetime]]:
    """Each minute of five days before and four after, and the latest that the wall's clock has shown by then."""
    start = int(at(around)) - 5 * 86_400
    found = [float(each) for each in range(start, start + 9 * 86_400, 60)]
    walls = (datetime.fromtimestamp(each, ZoneInfo(zone)).replace(tzinfo=None) for each in found)
    return found, list(itertools.accumulate(walls, max))


def naive(each: Window, around: str) -> set[float]:
    """Minutes at which it is open: from the first at which the wall shows its opening, to the first of its closing."""
    instants, walls = minutes(each.zone, around)

    def first(day: date, text: str) -> int:
        return bisect.bisect_left(walls, datetime.combine(day, time.fromisoformat(text)))

    found: set[float] = set()
    for offset in range(-6, 6):
        day = date.fromisoformat(around) + timedelta(days=offset)
        if day.weekday() in each.days:
            closing = day if each.closes > each.opens else day + timedelta(days=1)
            found.update(instants[first(day, each.opens) : first(closing, each.closes)])
    return found


times = st.integers(0, 95).map(lambda quarter: f"{quarter // 4:02}:{quarter % 4 * 15:02}")
early = st.integers(0, 15).map(lambda quarter: f"{quarter // 4:02}:{quarter % 4 * 15:02}")
"""Where clocks change."""
days = st.frozensets(st.integers(0, 6), min_size=1)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[str, list[Window]]:
    zone = draw(st.sampled_from(sorted(CHANGES)))
    around = draw(st.sampled_from(CHANGES[zone]))
    clock = st.one_of(times, early)
    return around, draw(st.lists(st.builds(Window, days, clock, clock, st.just(zone)), min_size=1, max_size=3))


@settings(max_examples=60, deadline=None)
@given(fleets())
@example(("2026-03-29", [window("02:15", "02:45")]))
@example(("2026-10-25", [window("02:15", "02:45")]))
@example(("2006-10-29", [window("00:00", "00:15", "America/St_Johns")]))
def test_open_where_the_wall_says_so(fleet: tuple[str, list[Window]]) -> None:
    around, windows = fleet
    middle = at(around)
    inner = [instant for instant in minutes(windows[0].zone, around)[0] if abs(instant - middle) < 2 * DAY_S][::15]
    expected: set[float] = set().union(*(naive(each, around) for each in windows))
    assert [each for each in inner if is_open(windows, each)] == [each for each in inner if each in expected]
    for instant in inner[::24]:
        assert is_open(windows, instant) == (next_opening(windows, instant) == instant)
        assert (closes_at(windows, instant) is not None) <= is_open(windows, instant)


@settings(max_examples=40, deadline=None)
@given(fleets(), st.integers(-100_000, 100_000))
def test_stretches_are_whole_apart_and_what_is_open(fleet: tuple[str, list[Window]], offset: int) -> None:
    around, windows = fleet
    now = at(around) + offset
    spans = next_openings(windows, now, 5)
    assert spans
    for opens, closes in spans:
        assert closes > max(opens, now)
        assert math.isinf(closes) or (is_open(windows, opens) and not is_open(windows, opens - 1))
        if not math.isinf(closes):
            assert is_open(windows, closes - 1) and not is_open(windows, closes)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    first = spans[0]
    assert is_open(windows, now) == (first[0] <= now)
    assert next_opening(windows, now) == max(now, first[0])
    if first[0] <= now:
        assert closes_at(windows, now) == (None if math.isinf(first[1]) else first[1])
    else:
        assert closes_at(windows, now) is None
        assert not any(is_open(windows, now + step * 60) for step in range(1, min(600, int(first[0] - now) // 60)))


def test_in_a_skipped_hour_it_opens_at_the_end_of_the_gap() -> None:
    (span, *_) = next_openings([window("02:30", "05:00")], at("2026-03-28 12:00"), 1)
    assert span == (at("2026-03-29 03:00", "Europe/Berlin"), at("2026-03-29 05:00", "Europe/Berlin"))


def test_what_lies_in_the_gap_altogether_does_not_open_that_day() -> None:
    (span,) = next_openings([window("02:15", "02:45")], at("2026-03-29 00:00"), 1)
    assert span[0] == at("2026-03-30 02:15", "Europe/Berlin")


def test_in_an_hour_that_comes_twice_it_opens_once_at_the_first() -> None:
    spans = next_openings([window("02:15", "02:45")], at("2026-10-24 12:00"), 2)
    assert spans[0] == (at("2026-10-25 02:15", "Europe/Berlin"), at("2026-10-25 02:45", "Europe/Berlin"))
    assert not is_open([window("02:15", "02:45")], at("2026-10-25 02:30", "Europe/Berlin", fold=1))
    assert spans[1][0] == at("2026-10-26 02:15", "Europe/Berlin")


def test_across_the_change_it_is_as_long_as_the_wall_says() -> None:
    over = [window("22:00", "04:00")]
    (spring,) = next_openings(over, at("2026-03-28 20:00"), 1)
    (autumn,) = next_openings(over, at("2026-10-24 19:00"), 1)
    assert (spring[1] - spring[0], autumn[1] - autumn[0]) == (5 * 3600, 7 * 3600)


def test_half_an_hour_of_summer_time() -> None:
    (span,) = next_openings([window("02:15", "03:00", "Australia/Lord_Howe")], at("2026-10-03 12:00"), 1)
    assert span == (at("2026-10-04 02:30", "Australia/Lord_Howe"), at("2026-10-04 03:00", "Australia/Lord_Howe"))


def test_overlaps_are_one_stretch_and_days_are_those_of_the_opening() -> None:
    friday = frozenset({4})
    windows = [window("22:00", "02:00", "UTC", friday), window("01:00", "03:00", "UTC", frozenset({5}))]
    assert next_openings(windows, at("2026-11-26 00:00"), 1) == [(at("2026-11-27 22:00"), at("2026-11-28 03:00"))]
    assert not is_open(windows, at("2026-11-27 01:00"))


def test_the_same_time_is_a_whole_day() -> None:
    windows = [window("06:00", "06:00", "UTC", frozenset({0}))]
    assert next_openings(windows, at("2026-11-26 00:00"), 1) == [(at("2026-11-30 06:00"), at("2026-12-01 06:00"))]


def test_a_stretch_over_many_days_begins_where_it_began() -> None:
    windows = [window("00:00", "00:00", "UTC", frozenset({0, 1, 2, 3, 4, 5}))]
    assert next_openings(windows, at("2026-11-28 12:00"), 1) == [(at("2026-11-23 00:00"), at("2026-11-29 00:00"))]


def test_what_is_always_open_never_closes() -> None:
    now = at("2026-11-26 12:00")
    always = [window("03:00", "03:00")]
    assert is_open(always, now) and closes_at(always, now) is None
    ((opens, closes),) = next_openings(always, now, 5)
    assert opens < now and math.isinf(closes)
    assert is_open([], now) and next_opening([], now) == now
    assert closes_at([], now) is None and next_openings([], now, 5) == []


def test_what_opens_on_no_day_never_opens() -> None:
    never = [window("03:00", "04:00", days=frozenset())]
    now = at("2026-11-26 12:00")
    assert not is_open(never, now) and next_opening(never, now) is None and next_openings(never, now, 5) == []


@pytest.mark.parametrize("text", ["", "1:00", "24:00", "12:60", "12.00", "12:00:00", "-1:00", "१२:००", "ab:cd"])
def test_what_is_no_time_of_day(text: str) -> None:
    assert minute_of_day(text) is None


def test_zones_are_those_of_iana() -> None:
    assert is_zone("Europe/Berlin") and is_zone("UTC")
    for name in ("", "Europe", "Berlin", "../etc/passwd", "posix/UTC", "europe/berlin"):
        assert not is_zone(name)


def test_core_asks_no_clock() -> None:
    """The import contract lets this one module have `datetime`: its types, not its clock."""
    tree = ast.parse(inspect.getsource(module))
    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not called & {"now", "utcnow", "today"}
    assert datetime.fromtimestamp(0, UTC).year == 1970


def test_the_last_opening_that_is_looked_at_closes_too() -> None:
    hour = (Window(frozenset({0}), "15:00", "15:01", "UTC"),)
    assert all(closes - opens == 60 for opens, closes in next_openings(hour, 1_790_000_000.0, 100))
