"""Packing nodes into waves so that no limit is passed in any wave, in few waves. Pure; nothing is drawn by lot.

Three ways, each tried while it is affordable and the one before did not reach the fewest waves there can be:
1. First fit by bit masks: for every limit an integer has bit w set when wave w has none of it left; over the limits of
   a node the lowest bit that is set in none is its wave.
2. Wave by wave, the nodes first whose limits are the scarcest for all that is still to be moved.
3. Repair (app.core.planning.repair): one wave less, and what finds no place there takes the place of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from app.core.planning.repair import Repair

_VISITS = 2_000_000
"""How many times a limit of a node may be looked at to pack wave by wave: about half a second."""
_REPAIR_VISITS = 200_000
"""Fleets with more limits of nodes than this are not repaired: the first and second way come close there."""
_REPAIR_STEPS = 8_000
"""Of repair, in all: a few tenths of a second; more find a wave less now and then."""


class Item(NamedTuple):
    """Something that goes into one wave: what it takes one of, and what it takes more of (with how much)."""

    units: tuple[int, ...]
    more: tuple[tuple[int, int], ...] = ()


class Grid:
    """What is left of each limit in every wave. `limits`: of each, how much one wave has."""

    def __init__(self, limits: Sequence[int]) -> None:
        self.limits = limits
        self.full = [0] * len(limits)
        self._nothing = {what for what, limit in enumerate(limits) if limit < 1}
        self._used: list[dict[int, int]] = [{} for _ in limits]
        """By wave, of limits above 1; the others are either full or not used, unless something was forced into them."""

    def copy(self) -> Grid:
        twin = Grid(self.limits)
        twin.full, twin._used = self.full.copy(), [used.copy() for used in self._used]
        return twin

    def used(self, what: int, wave: int) -> int:
        return self._used[what].get(wave, 0) or self.full[what] >> wave & (self.limits[what] == 1)

    def peak(self, what: int) -> tuple[int, int]:
        """The most that one wave takes of it, and the first wave that does; (0, 0) where none does."""
        full, row = self.full[what], self._used[what]
        if not row:
            return (1, (full & -full).bit_length() - 1) if full else (0, 0)
        most = max(row.values())
        return most, min(wave for wave, much in row.items() if much == most)

    def fits(self, item: Item) -> bool:
        """Whether it fits into a wave of its own."""
        if self._nothing and not self._nothing.isdisjoint(item.units):
            return False
        return not item.more or all(self.limits[what] >= much for what, much in item.more)

    def take(self, item: Item, wave: int) -> None:
        bit = 1 << wave
        for what in item.units:
            self._take(what, wave, bit, 1)
        for what, much in item.more:
            self._take(what, wave, bit, much)

    def first_fit(self, items: Sequence[Item], order: Sequence[int], start: int) -> list[int]:
        """Each item, in this order, into the first wave from `start` on in which it fits; the wave of each item, by the
        index of the item. Every item must fit into a wave of its own."""
        full, used, limits = self.full, self._used, self.limits
        before = (1 << start) - 1
        found = [0] * len(items)
        for place in order:
            item = items[place]
            taken = before
            for what in item.units:
                taken |= full[what]
            free = ~taken
            bit = free & -free
            wave = bit.bit_length() - 1
            if item.more:
                wave = found[place] = self._first_with_more(item, taken)
                self.take(item, wave)
                continue
            found[place] = wave
            for what in item.units:  # as _take, without the calls: a million of them would cost more than the rest
                if limits[what] == 1:
                    full[what] |= bit
                    continue
                row = used[what]
                count = row[wave] = row.get(wave, 0) + 1
                if count >= limits[what]:
                    full[what] |= bit
        return found

    def _first_with_more(self, item: Item, taken: int) -> int:
        while True:
            free = ~taken
            wave = (free & -free).bit_length() - 1
            if all(self._used[what].get(wave, 0) + much <= self.limits[what] for what, much in item.more):
                return wave
            taken |= 1 << wave

    def _take(self, what: int, wave: int, bit: int, much: int) -> None:
        limit = self.limits[what]
        if limit != 1 or much > 1 or self.full[what] & bit:
            row = self._used[what]
            much = row[wave] = self.used(what, wave) + much
        if much >= limit:
            self.full[what] |= bit


def least_waves(limits: Sequence[int], items: Sequence[Item]) -> int:
    """No packing has fewer waves: what all items take of the scarcest limit over what one wave has of it."""
    wanted = _wanted(len(limits), items)
    return max(
        (-(-much // limit) for much, limit in zip(wanted, limits, strict=True) if much), default=int(bool(items))
    )


def pack(grid: Grid, items: Sequence[Item], start: int) -> list[int]:
    """The wave of each item, from `start` on; `grid` has them afterwards. Every item must fit a wave of its own."""
    least = start + least_waves(grid.limits, items)
    empty = grid.copy()
    best = grid.first_fit(items, _scarcest_first(grid.limits, items), start)
    visits = sum(len(item.units) + len(item.more) for item in items)
    if _count(best) > least and visits * (_count(best) - start) <= _VISITS:
        best = min(best, _wave_by_wave(empty.copy(), items, start), key=_count)
        if visits <= _REPAIR_VISITS:
            best = _repaired(empty, items, best, start, least)
        grid.full, grid._used = empty.full, empty._used
        for item, wave in zip(items, best, strict=True):
            grid.take(item, wave)
    return best


def _repaired(empty: Grid, items: Sequence[Item], waves: list[int], start: int, least: int) -> list[int]:
    """In fewer waves, as long as that works."""
    steps = _REPAIR_STEPS
    while steps > 0 and _count(waves) > least:
        repair = Repair(empty, items, waves, start, _count(waves) - 1)
        found = repair.run(steps // 2)
        steps -= repair.steps + 1
        if found is None:
            break
        waves = found
    return waves


def _wave_by_wave(grid: Grid, items: Sequence[Item], start: int) -> list[int]:
    """One wave after the other, the scarcest first of what remains."""
    limits = grid.limits
    wanted = _wanted(len(limits), items)
    rest, found, wave = list(range(len(items))), [0] * len(items), start
    while rest:
        weight = _scarcity(limits, wanted)
        rest.sort(key=lambda place: (-sum([weight[what] for what in items[place].units]), place))
        left = [limit - grid.used(what, wave) if wanted[what] else 0 for what, limit in enumerate(limits)]
        later = []
        for place in rest:
            item = items[place]
            if all(left[what] > 0 for what in item.units) and all(left[what] >= much for what, much in item.more):
                found[place] = wave
                for what, much in [*((what, 1) for what in item.units), *item.more]:
                    left[what] -= much
                    wanted[what] -= much
            else:
                later.append(place)
        rest, wave = later, wave + 1
    return found


def _scarcest_first(limits: Sequence[int], items: Sequence[Item]) -> list[int]:
    weight = _scarcity(limits, _wanted(len(limits), items))
    keys = [
        -sum([weight[what] for what in item.units]) - sum([weight[what] for what, _ in item.more]) for item in items
    ]
    return sorted(range(len(items)), key=keys.__getitem__)


def _scarcity(limits: Sequence[int], wanted: Sequence[int]) -> list[float]:
    """Of each limit the square of the waves that it still needs: the scarcest weighs more than several that are not."""
    return [(much / limit) ** 2 if much else 0.0 for much, limit in zip(wanted, limits, strict=True)]


def _wanted(limits: int, items: Sequence[Item]) -> list[int]:
    wanted = [0] * limits
    for item in items:
        for what in item.units:
            wanted[what] += 1
        for what, much in item.more:
            wanted[what] += much
    return wanted


def _count(waves: Sequence[int]) -> int:
    return max(waves, default=-1) + 1
