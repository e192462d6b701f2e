"""How fast a download may be, and how slow. Both count on the monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable

SLOW_BYTES_S = 1024
"""Below this a mirror is as good as dead: an image of 100 MiB would take more than a day."""
SLOW_S = 30.0
"""So long a mirror may be slow before the next one is tried."""
BURST_S = 0.25
"""Of what the cap allows in so long, a bucket holds: little enough that a short look at the link shows the cap."""


class Bucket:
    """A token bucket: `rate` tokens (bytes) come in a second. Spending more than there is makes a debt to wait for."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = rate * BURST_S
        self._as_of = clock()

    @property
    def piece(self) -> int:
        """How many bytes to ask for at once, so that they come evenly."""
        return max(1, int(self._rate * BURST_S))

    def spend(self, count: int) -> float:
        """Seconds to wait after `count` bytes came."""
        now = self._clock()
        self._tokens = min(self._rate * BURST_S, self._tokens + (now - self._as_of) * self._rate) - count
        self._as_of = now
        return max(0.0, -self._tokens / self._rate)


class Crawl:
    """Notices a server that sends, but hardly anything. Only time spent waiting for it counts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = 0.0
        self._waited_s = 0.0
        self._bytes = 0

    def waits(self) -> None:
        """A read begins."""
        self._began = self._clock()

    def got(self, count: int) -> bool:
        """The read gave `count` bytes; whether the server crawls."""
        self._waited_s += self._clock() - self._began
        self._bytes += count
        if self._waited_s < SLOW_S:
            return False
        crawls = self._bytes < SLOW_BYTES_S * self._waited_s
        self._waited_s, self._bytes = 0.0, 0
        return crawls
