"""drain.d: executables of the node's owner that move services away before a reboot, and let them come back.

The server only names one. What it does stands on the node, in a file that nobody but root (or whoever the agent
runs as) can write: a captured control plane can have a node drained and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from agent.checks import process
from agent.checks.scripts import OUTPUT_BYTES, last_words
from agent.facts import process_started
from wire.messages import Check, CheckState

FOLDERS = (Path("/etc/twinroot-agent/drain.d"), Path("/usr/lib/twinroot-agent/drain.d"))
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Verb(StrEnum):
    """The one argument."""

    DRAIN = "drain"
    UNDRAIN = "undrain"


class Drains:
    """Runs what stands in `folders`; a file hides those of the same name in later folders.

    `note` is a file for the time of a run: an agent that was killed leaves the executable running, and the next
    run begins with ending that one.
    """

    def __init__(self, folders: Sequence[Path], note: Path) -> None:
        self._folders = tuple(folders)
        self._note = note

    async def run(self, script: str, verb: Verb, limit_s: float) -> Check:
        """How it ended, with the end of its output, also when it passed. Cancelling kills its process group."""
        self._end_leftover()
        started_ms = process.now_ms()
        try:
            path = self.find(script)
            ended = await process.run(
                [str(path), verb.value],
                limit_s,
                keep_bytes=2 * OUTPUT_BYTES,
                environment={"TWINROOT_LIMIT_S": f"{limit_s:.0f}"},
                began=self._write_note,
            )
        except DrainMissing as problem:
            return _check(script, CheckState.FAILED, str(problem), started_ms)
        except OSError as problem:
            return _check(script, CheckState.FAILED, f"cannot be executed: {problem.strerror or problem}", started_ms)
        finally:
            with suppress(OSError):  # one that stays names a process that has ended
                self._note.unlink(missing_ok=True)
        state = {0: CheckState.PASSED, None: CheckState.TIMED_OUT}.get(ended.code, CheckState.FAILED)
        output = process.readable(ended.output, OUTPUT_BYTES)
        how = f"{verb} {ended.how}" + (f" of {limit_s:.0f} s" if ended.code is None else "")
        said = last_words(output) if state is CheckState.FAILED else ""
        return _check(script, state, f"{how}: {said}" if said else how, started_ms, output)

    def find(self, script: str) -> Path:
        """The file of that name. DrainMissing when there is none that may be run."""
        if not _NAME.fullmatch(script):
            raise DrainMissing("the name must be letters, digits, dot, dash and underscore, and begin with no dot")
        for folder in self._folders:
            path = folder / script
            if path.exists():
                _require_own(folder, path)
                return path
        raise DrainMissing(f"there is no such file in {' or '.join(map(str, self._folders)) or 'any folder'}")

    def _write_note(self, pid: int) -> None:
        self._note.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._note.write_text(json.dumps([pid, process_started(pid)]), encoding="utf-8")

    def _end_leftover(self) -> None:
        """Kill what the agent's last run left behind, if that is still the same process."""
        try:
            pid, started = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            return  # none, or the power went while it was written: then nothing runs any more
        if started and process_started(pid) == started:
            process.kill_group(pid)


class DrainMissing(Exception):
    """Nothing to run; one clause."""


def _require_own(folder: Path, path: Path) -> None:
    """DrainMissing unless file and folder, links followed, are root's or ours, and writable by nobody else."""
    target = path.resolve()
    for each in dict.fromkeys((folder, target.parent, target)):
        found = each.stat()
        if found.st_uid not in (0, os.geteuid()):
            raise DrainMissing(f"{each} belongs to user id {found.st_uid}, not to root")
        if found.st_mode & WRITABLE_BY_OTHERS:
            raise DrainMissing(f"{each} can be written by others: chmod go-w")
    if not target.is_file() or not os.access(target, os.X_OK):
        raise DrainMissing(f"{path} is not executable")


def _check(script: str, state: CheckState, text: str, started_ms: int, output: str = "") -> Check:
    name = f"drain.d/{script}"
    return Check(name=name, state=state, text=text, output=output, duration_ms=process.now_ms() - started_ms)
