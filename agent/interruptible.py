"""Blocking work in a thread that ends when its coroutine is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Stopped(Exception):
    """The work was ended from outside."""


async def interruptible(work: Callable[[], None], stop: Callable[[], None]) -> None:
    """Run `work` in a thread; on cancelling call `stop`, which makes it end soon, and wait until it has.

    The wait matters: nobody else may touch the same files while the thread still does.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait([running])
        running.exception()  # looked at: an error that the stopping itself brought about
        raise
