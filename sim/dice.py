"""Chance that can be repeated: a tiny generator for each node, so that the same seed gives the same run."""

from __future__ import annotations

import hashlib

_MASK = (1 << 64) - 1


class Dice:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): eight bytes of state where `random.Random` has 2.5 KiB,
    and there is one for each of 50,000 nodes."""

    __slots__ = ("_state",)

    def __init__(self, *seed: object) -> None:
        words = "\n".join(map(str, seed)).encode()
        self._state = int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big")

    def bits(self) -> int:
        """64 random bits."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = ((self._state ^ (self._state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)

    def chance(self) -> float:
        """A share from 0 up to but not including 1."""
        return (self.bits() >> 11) / (1 << 53)

    def below(self, count: int) -> int:
        """A whole number from 0 to `count` - 1."""
        return self.bits() % count

    def between(self, least: float, most: float) -> float:
        return least + (most - least) * self.chance()
