"""Calls that block: their result, their errors, and what happens when they never return."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from agent import blocking


def test_results_and_errors_pass_through() -> None:
    async def scenario() -> None:
        assert await blocking.call("add", lambda: 1 + 1, 10) == 2
        with pytest.raises(ZeroDivisionError):
            await blocking.call("divide", lambda: 1 // 0, 10)
        assert await blocking.call("divide", lambda: 4 // 2, 10) == 2

    asyncio.run(scenario())


def test_a_call_that_hangs_is_left_and_not_started_twice() -> None:
    release = threading.Event()
    started = []

    def hang() -> None:
        started.append(threading.get_ident())
        release.wait(30)

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            await blocking.call("disk", hang, 0.05)
        with pytest.raises(TimeoutError, match="still hangs"):
            await blocking.call("disk", hang, 10)
        assert await blocking.call("other", lambda: "free", 10) == "free"
        assert len(started) == 1
        release.set()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await blocking.call("disk", lambda: "back", 10) == "back"
                    return
                except TimeoutError:
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_a_loop_that_ended_is_no_error_for_the_thread() -> None:
    release = threading.Event()

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            await blocking.call("late", lambda: release.wait(30), 0.01)

    asyncio.run(scenario())
    thread = next(t for t in threading.enumerate() if t.name == "late")
    assert thread.daemon
    release.set()
    thread.join(10)
    deadline = time.monotonic() + 10
    while thread.is_alive():
        assert time.monotonic() < deadline
