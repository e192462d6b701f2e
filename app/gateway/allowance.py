"""How much somebody may do: a burst at once, then so much a second."""

from __future__ import annotations


class Allowance:
    """Times are seconds of one clock that never goes back."""

    __slots__ = ("_at", "_burst", "_left", "_per_s")

    def __init__(self, burst: float, per_s: float, now: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = burst
        self._at = now

    def spend(self, amount: float) -> None:
        """More than is left may be spent: it has to be waited for afterwards."""
        self._left -= amount

    def wait_s(self, now: float) -> float:
        """How long to wait until nothing is owed; 0 or less: not at all."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        return -self._left / self._per_s
