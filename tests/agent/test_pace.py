"""The cap and the crawl, on a clock of the test's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.pace import BURST_S, SLOW_BYTES_S, SLOW_S, Bucket, Crawl


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.integers(1, 10**9), st.lists(st.floats(0.001, 1.0), min_size=1, max_size=60))
def test_in_no_span_more_comes_than_the_cap_allows_and_a_burst(rate: int, shares: list[float]) -> None:
    clock = Clock()
    bucket, began, total = Bucket(rate, clock), clock.now, 0
    for share in shares:
        count = max(1, int(bucket.piece * share))
        total += count
        clock.now += bucket.spend(count)
        assert total <= rate * (clock.now - began + BURST_S) + 1


def test_the_cap_is_used_up_when_there_is_always_more() -> None:
    clock = Clock()
    bucket, began = Bucket(1000, clock), clock.now
    for _ in range(100):
        clock.now += bucket.spend(bucket.piece)
    assert 24.5 <= clock.now - began <= 25.0


def test_a_pause_of_the_server_is_no_credit_beyond_the_burst() -> None:
    clock = Clock()
    bucket = Bucket(1000, clock)
    clock.now += 3600
    assert bucket.spend(250) == 0.0
    assert bucket.spend(500) == 0.5


def test_a_cap_of_one_byte_still_asks_for_one() -> None:
    assert Bucket(1, Clock()).piece == 1


def crawl(per_read: int, read_s: float, pause_s: float = 0.0) -> float | None:
    """Seconds of reading until it is noticed; None within ten times the span."""
    clock = Clock()
    watch, waited = Crawl(clock), 0.0
    while waited < 10 * SLOW_S:
        watch.waits()
        clock.now += read_s
        waited += read_s
        if watch.got(per_read):
            return waited
        clock.now += pause_s
    return None


def test_a_server_that_hardly_sends_is_noticed_after_the_span() -> None:
    assert crawl(SLOW_BYTES_S - 1, 1.0) == SLOW_S
    assert crawl(SLOW_BYTES_S, 1.0) is None


def test_our_own_cap_is_not_its_slowness() -> None:
    assert crawl(SLOW_BYTES_S, 1.0, pause_s=100.0) is None


def test_a_server_that_slows_down_is_noticed_too() -> None:
    clock = Clock()
    watch = Crawl(clock)
    watch.waits()
    clock.now += SLOW_S
    assert not watch.got(10**9)
    watch.waits()
    clock.now += SLOW_S
    assert watch.got(10)
