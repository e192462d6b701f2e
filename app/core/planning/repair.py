"""Packing into a given number of waves by repair: what has no place takes the place of others, which then look for one.

Tabu search over partial solutions (Blöchliger and Zufferey, "A graph coloring heuristic using partial solutions and a
reactive tabu scheme", 2008), with limits instead of edges. Its choices come from a fixed sequence, so that the same
items have the same waves. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

_TRIED = 6
"""How many of those without a place are looked at in a step: more costs more than it finds."""
_COUNTED = 6
"""Above this many limits at which something has to give way, all waves are equally bad."""
_ASKED = 8
"""How many of those that could give way at a limit are compared."""
_PATIENCE_EACH, _PATIENCE = 5, 2_000
"""Steps for each item, and at the most, without getting closer; then it gives up."""
_LEAST_AWAY, _MOST_AWAY = 5, 15
"""Steps for which what gave way may not come back into its wave; and half a step more for each without a place."""


class _Item(Protocol):
    @property
    def units(self) -> tuple[int, ...]: ...
    @property
    def more(self) -> tuple[tuple[int, int], ...]: ...


class _Grid(Protocol):
    limits: Sequence[int]
    full: list[int]

    def used(self, what: int, wave: int) -> int: ...


class Repair:
    """`waves`: of each item, from `start`; those from `end` on lose their place. `grid`: what others use already."""

    def __init__(self, grid: _Grid, items: Sequence[_Item], waves: Sequence[int], start: int, end: int) -> None:
        self.steps = 0
        self._items, self._grid = items, grid
        self._allowed = (1 << end) - (1 << start)
        self._full = grid.full.copy()
        self._blocked = grid.full.copy()
        """Where nothing gives way: full of what others use, and of items that take several of a limit."""
        self._count: dict[tuple[int, int], int] = {}
        self._there: dict[tuple[int, int], list[int]] = {}
        """Items that could give way, by (limit, wave)."""
        self._waves = [-1] * len(items)
        self._away: dict[int, dict[int, int]] = {}
        """Of items that gave way: wave to the step from which on they may come back."""
        self._number = 1
        self.without = [place for place, wave in enumerate(waves) if wave >= end]
        for place, wave in enumerate(waves):
            if wave < end:
                self._enter(place, wave)

    def run(self, steps: int) -> list[int] | None:
        """The wave of each item when all found one within so many steps."""
        if any(self._items[place].more for place in self.without):
            return None  # what takes several of a limit stays where it was packed
        least, since = len(self.without), 0
        patience = min(_PATIENCE, _PATIENCE_EACH * len(self._items))
        while self.without:
            if self.steps >= steps or since >= patience:
                return None
            self.steps += 1
            self._step()
            since = 0 if len(self.without) < least else since + 1
            least = min(least, len(self.without))
        return self._waves

    def _step(self) -> None:
        """Of a few without a place, the one that has to push the fewest others out goes where it does so."""
        best: tuple[int, int, int] | None = None
        for _ in range(min(_TRIED, len(self.without))):
            at = self._draw(len(self.without))
            cost, waves = self._cheapest(self.without[at])
            if waves and (best is None or cost < best[0]):
                best = (cost, at, waves)
                if not cost:
                    break
        if best is None:
            return
        _, at, waves = best
        place, wave = self.without[at], self._one_of(waves)
        self.without[at] = self.without[-1]
        self.without.pop()
        limits = self._grid.limits
        for what in sorted(
            self._items[place].units, key=limits.__getitem__
        ):  # who gives way at a scarce one often frees more
            if self._full[what] >> wave & 1:
                self._push_out(what, wave)
        self._enter(place, wave)

    def _cheapest(self, place: int) -> tuple[int, int]:
        """At how many limits something has to give way at the least, up to _COUNTED, and the waves where it is so."""
        at_least = [0] * (_COUNTED + 1)
        blocked = 0
        for what in self._items[place].units:
            mask = self._full[what]
            blocked |= self._blocked[what]
            for level, waves in enumerate(at_least):
                at_least[level] = waves | mask
                mask &= waves
        open_to = self._allowed & ~blocked & ~self._barred(place)
        for cost, waves in enumerate(at_least):
            if open_to & ~waves:
                return cost, open_to & ~waves
        return _COUNTED + 1, open_to

    def _barred(self, place: int) -> int:
        mask = 0
        away = self._away.get(place)
        if away is not None:
            for wave, until in list(away.items()):
                if until > self.steps:
                    mask |= 1 << wave
                else:
                    del away[wave]
        return mask

    def _push_out(self, what: int, wave: int) -> None:
        there = self._there[what, wave]  # not empty: the wave would be blocked
        asked = there if len(there) <= _ASKED else [there[self._draw(len(there))] for _ in range(_ASKED)]
        place = min(asked, key=lambda one: (len(self._items[one].units), self._draw(1 << 16)))
        self._leave(place, wave)
        self.without.append(place)
        until = self.steps + len(self.without) // 2 + _LEAST_AWAY + self._draw(_MOST_AWAY - _LEAST_AWAY + 1)
        self._away.setdefault(place, {})[wave] = until

    def _enter(self, place: int, wave: int) -> None:
        self._waves[place] = wave
        item = self._items[place]
        for what, much in [*((what, 1) for what in item.units), *item.more]:
            key = (what, wave)
            count = self._count[key] = self._count.get(key, 0) + much
            if not item.more:
                self._there.setdefault(key, []).append(place)
            others = self._grid.used(what, wave)
            if count + others >= self._grid.limits[what]:
                self._full[what] |= 1 << wave
                if count - len(self._there.get(key, ())) + others >= self._grid.limits[what]:
                    self._blocked[what] |= 1 << wave

    def _leave(self, place: int, wave: int) -> None:
        self._waves[place] = -1
        for what in self._items[place].units:
            key = (what, wave)
            self._count[key] -= 1
            self._there[key].remove(place)
            if self._count[key] + self._grid.used(what, wave) < self._grid.limits[what]:
                self._full[what] &= ~(1 << wave)

    def _one_of(self, waves: int) -> int:
        """One of the bits that are set."""
        for _ in range(self._draw(waves.bit_count())):
            waves &= waves - 1
        return (waves & -waves).bit_length() - 1

    def _draw(self, below: int) -> int:
        """The next of a fixed sequence (Knuth's MMIX generator), from 0 up to `below`."""
        self._number = (self._number * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        return (self._number >> 33) % below
