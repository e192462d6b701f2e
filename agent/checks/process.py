"""Run a program that may hang, print without end, or leave children behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

KILL_LIMIT_S = 2.0
"""How long a killed program may take to go. One that does not is stuck in the kernel, on a dead disk say."""

_READ_BYTES = 64 * 1024
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_stuck: dict[tuple[str, ...], asyncio.subprocess.Process] = {}
"""Killed programs that did not go, by command: a second one beside it would only get stuck too."""


@dataclass(frozen=True)
class Ended:
    """How it ended: exit code (negative: killed by that signal), None when it ran into the limit."""

    code: int | None
    output: bytes
    """The end of what it printed, both streams."""

    @property
    def how(self) -> str:
        """In half a sentence."""
        if self.code is None:
            return "ran into its time limit"
        if self.code < 0:
            return f"was killed by signal {-self.code} ({signal_name(-self.code)})"
        return f"exited with code {self.code}"


class _Tail:
    """Reads a pipe as it fills and keeps the last bytes, so that the writer never waits."""

    def __init__(self, keep_bytes: int) -> None:
        self.kept = b""
        self._keep_bytes = keep_bytes
        self._loop = asyncio.get_running_loop()
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._loop.add_reader(self._read_fd, self._read)

    def _read(self) -> bool:
        """Whether there was something."""
        try:
            piece = os.read(self._read_fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not piece:
            self._loop.remove_reader(self._read_fd)
        self.kept = (self.kept + piece)[-self._keep_bytes :]
        return bool(piece)

    def close(self) -> None:
        """Take what is there without waiting for writers that live on, and let go."""
        reads_left = 16  # a pipe holds 64 KiB; a writer that escaped the kill must not keep us here
        while reads_left and self._read():
            reads_left -= 1
        self._loop.remove_reader(self._read_fd)
        os.close(self._read_fd)


async def run(
    command: Sequence[str],
    limit_s: float,
    keep_bytes: int,
    environment: Mapping[str, str] | None = None,
    began: Callable[[int], None] = lambda pid: None,
) -> Ended:
    """Run `command` in a process group of its own, which is killed at the end, limit or not.

    OSError when it cannot be executed. The environment holds PATH, LANG and what is given, nothing else, so
    that it is the same under systemd and by hand. `began` gets the process id, which is the group's too.
    """
    earlier = _stuck.get(tuple(command))
    if earlier is not None and earlier.returncode is None:
        return Ended(None, b"the last run still hangs and cannot be killed")
    tail = _Tail(keep_bytes)
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=tail.write_fd,
                stderr=tail.write_fd,
                start_new_session=True,
                cwd="/",
                env={"PATH": PATH, "LANG": "C.UTF-8", **(environment or {})},
            )
        finally:
            os.close(tail.write_fd)
        code = await _wait(process, tuple(command), limit_s, began)
    finally:
        tail.close()
    return Ended(code, tail.kept)


async def _wait(
    process: asyncio.subprocess.Process, command: tuple[str, ...], limit_s: float, began: Callable[[int], None]
) -> int | None:
    try:
        began(process.pid)
        async with asyncio.timeout(limit_s):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        kill_group(process.pid)
        _stuck.pop(command, None)
        try:
            async with asyncio.timeout(KILL_LIMIT_S):
                await process.wait()
        except TimeoutError:
            _stuck[command] = process


def kill_group(leader_pid: int) -> None:
    """SIGKILL to the group; that nobody is left in it is fine."""
    try:
        os.killpg(leader_pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # the normal case: nobody is left


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown signal"


def readable(output: bytes, max_bytes: int) -> str:
    """The end of `output` as clean text of at most `max_bytes` in UTF-8: no escapes, no control characters."""
    text = output.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROLS.sub("", _ESCAPES.sub("", text)).strip("\n")
    return text.encode()[-max_bytes:].decode("utf-8", errors="ignore")


def now_ms() -> int:
    """Milliseconds of the monotonic clock, for durations."""
    return time.monotonic_ns() // 1_000_000
