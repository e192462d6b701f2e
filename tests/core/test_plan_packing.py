"""Packing into waves: no limit is passed, nobody is before the start, and schedules that exist are nearly found."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core.plan_check import check
from app.core.planner import Standing, admit, plan
from app.core.planning.packing import Grid, Item, least_waves, pack
from app.core.planning.repair import Repair
from bench.plan_fleets import RECIPES, planted


@st.composite
def packings(draw: st.DrawFn) -> tuple[list[int], list[Item], int]:
    limits = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    items = []
    for _ in range(draw(st.integers(0, 30))):
        whats = draw(st.lists(st.integers(0, len(limits) - 1), max_size=3, unique=True))
        more = [(what, 2) for what in whats if limits[what] > 1 and draw(st.booleans())]
        items.append(Item(tuple(what for what in whats if (what, 2) not in more), tuple(more)))
    return limits, items, draw(st.integers(0, 3))


def taken(items: list[Item], waves: list[int]) -> Counter[tuple[int, int]]:
    found: Counter[tuple[int, int]] = Counter()
    for item, wave in zip(items, waves, strict=True):
        for what, much in [*((what, 1) for what in item.units), *item.more]:
            found[what, wave] += much
    return found


_SEVERAL = [Item((0, 2), ((3, 2),)), Item((0, 4)), Item((4, 2))]


@settings(max_examples=200, deadline=None)
@given(packings(), packings())
@example(([1, 1, 1, 2, 1], _SEVERAL, 0), ([1], [], 0))
def test_no_wave_passes_a_limit_and_two_stages_share_them(
    one: tuple[list[int], list[Item], int], other: tuple[list[int], list[Item], int]
) -> None:
    limits, first, _ = one
    second = [item for item in other[1] if all(what < len(limits) for what in item.units) and not item.more]
    grid = Grid(limits)
    waves = pack(grid, first, 0)
    again = pack(grid, second, other[2])
    assert min(again, default=other[2]) >= other[2]
    both = taken([*first, *second], [*waves, *again])
    assert all(much <= limits[what] for (what, _), much in both.items())
    assert max(waves, default=-1) + 1 >= least_waves(limits, first)
    assert all(
        grid.full[what] >> wave & 1 == (both[what, wave] == limits[what])
        for what in range(len(limits))
        for wave in range(max([*waves, *again], default=0) + 1)
    )


def test_repair_finds_what_first_fit_does_not() -> None:
    """A ring of six, seen in an order in which first fit takes three waves; two are enough."""
    ring = [Item((place, (place + 1) % 6)) for place in range(6)]
    grid = Grid([1] * 6)
    waves = grid.copy().first_fit(ring, [0, 3, 1, 2, 4, 5], 0)
    assert max(waves) == 2
    found = Repair(grid, ring, waves, 0, 2).run(1000)
    assert found is not None and max(taken(ring, found).values()) == 1 and max(found) == 1


def test_repair_gives_up_where_it_cannot_be_done() -> None:
    ring = [Item((place, (place + 1) % 5)) for place in range(5)]
    waves = Grid([1] * 5).first_fit(ring, range(5), 0)
    assert Repair(Grid([1] * 5), ring, waves, 0, 2).run(500) is None


def test_what_others_use_does_not_give_way() -> None:
    grid = Grid([1, 1])
    grid.take(Item((0,)), 0)
    grid.take(Item((1,)), 1)
    items = [Item((0,)), Item((1,))]
    assert pack(grid, items, 0) == [1, 0]


@pytest.mark.parametrize("kind", RECIPES)
def test_a_schedule_that_exists_is_nearly_found(kind: str) -> None:
    fleet = planted(RECIPES[kind], 400, 20, seed=3)
    made = plan(fleet.snapshot)
    assert 20 <= len(made.waves) <= 23
    assert check(made, fleet.snapshot) == []


@pytest.mark.parametrize("kind", ["tight", "zoned"])
def test_admission_round_by_round_nearly_follows_a_schedule_that_exists(kind: str) -> None:
    """Without any forecast, as the ticks of the conductor do it: each round comes back before the next."""
    fleet = planted(RECIPES[kind], 300, 15, seed=5)
    view = fleet.snapshot
    standing, waiting, rounds = Standing.of(view), list(view.candidates), 0
    while waiting:
        standing.replace_rest(view.rollouts, tuple(waiting), view.groups, view.services, view.now)
        admitted = set(admit(standing).admitted)
        waiting = [one for place, one in enumerate(waiting) if place not in admitted]
        rounds += 1
    assert 15 <= rounds <= 18
