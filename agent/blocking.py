"""Calls that a broken disk or resolver can block for ever, with a limit on the waiting.

Such a call cannot be cancelled, so it runs in a daemon thread of its own: one that hangs neither keeps the
agent from stopping nor takes a place in a pool. While a call of one name hangs, the next of that name is not
started, so that a dead disk costs one thread and not one a minute.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")

_under_way: set[str] = set()
"""Names of calls whose thread has not returned; threads are the process's, so this is too."""
_lock = threading.Lock()


async def call(name: str, work: Callable[[], T], limit_s: float) -> T:
    """The result of `work`, run in a thread.

    TimeoutError when it takes longer than `limit_s`, or when an earlier call of this name still hangs. What
    `work` raises is raised here.
    """
    with _lock:
        if name in _under_way:
            raise TimeoutError(f"{name}: the last try still hangs")
        _under_way.add(name)
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    threading.Thread(target=_run, args=(name, work, loop, future), name=name[:60], daemon=True).start()
    async with asyncio.timeout(limit_s):
        return await future


def _run(name: str, work: Callable[[], T], loop: asyncio.AbstractEventLoop, future: asyncio.Future[T]) -> None:
    try:
        result = work()
    except Exception as error:  # raised where the result is awaited
        _finish(name, loop, partial(_fail, future, error))
    else:
        _finish(name, loop, partial(_succeed, future, result))


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():  # done: the limit passed, nobody waits any more
        future.set_exception(error)


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _finish(name: str, loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> None:
    with _lock:
        _under_way.discard(name)
    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:
        # The loop closed while the call hung: nobody waits any more.
        if not loop.is_closed():
            raise
