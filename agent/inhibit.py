"""Inhibitors: somebody on the node asks for no reboot now. One small file each, readable by everyone.

An inhibitor ends when it is released, when its time is over, when the process that holds it has ended, or
when the machine has rebooted.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import msgspec

from agent.errors import AgentError
from agent.facts import PROC, process_started
from agent.state import write_atomically

WHY_MOST = 200
"""Characters: it is shown as one line on pages."""
_ID = re.compile(r"[0-9a-f]{8}")


class Inhibitor(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    why: str
    boot_id: str
    """The kernel's boot id when it was made."""
    by: str = ""
    until_s: float | None = None
    """Boot clock; None: until it is released."""
    pid: int | None = None
    pid_started: str = ""
    """Start time of the holding process, so that its number in other hands does not count."""


class Inhibitors:
    """All inhibitors in `folder`; `proc` and `boot_id` are those of the running kernel."""

    def __init__(self, folder: Path, boot_id: str, proc: Path = PROC) -> None:
        self.folder = folder
        self._boot_id = boot_id
        self._proc = proc

    def add(self, why: str, *, by: str = "", until_s: float | None = None, pid: int | None = None) -> Inhibitor:
        """Inhibit from now on. AgentError when the reason is no reason or the folder cannot be written."""
        why = " ".join(why.split())
        if not why or len(why) > WHY_MOST:
            raise AgentError(f"say why, in 1 to {WHY_MOST} characters")
        inhibitor = Inhibitor(
            id=secrets.token_hex(4),
            why=why,
            boot_id=self._boot_id,
            by=by,
            until_s=until_s,
            pid=pid,
            pid_started=process_started(pid, self._proc) if pid is not None else "",
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            write_atomically(self._file(inhibitor.id), msgspec.json.encode(inhibitor), mode=0o644, sync=False)
        except OSError as problem:
            raise AgentError(f"{self.folder} cannot be written: {problem.strerror}") from problem
        return inhibitor

    def release(self, inhibitor_id: str) -> None:
        """AgentError when there is none of this id."""
        if not _ID.fullmatch(inhibitor_id):
            raise AgentError(f"{inhibitor_id!r} is no id of an inhibitor")
        try:
            self._file(inhibitor_id).unlink()
        except FileNotFoundError as problem:
            raise AgentError(f"there is no inhibitor {inhibitor_id}") from problem
        except OSError as problem:
            raise AgentError(f"{inhibitor_id} cannot be released: {problem.strerror}") from problem

    def present(self, boot_s: float) -> list[Inhibitor]:
        """Those that still hold, by id. A file that cannot be read inhibits: somebody meant something by it."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            inhibitor = self._read(path)
            if inhibitor is not None and self._holds(inhibitor, boot_s):
                found.append(inhibitor)
        return found

    def _file(self, inhibitor_id: str) -> Path:
        return self.folder / f"{inhibitor_id}.json"

    def _read(self, path: Path) -> Inhibitor | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Inhibitor)
        except FileNotFoundError:
            return None  # released meanwhile
        except (OSError, msgspec.MsgspecError):
            return Inhibitor(id=path.stem, why=f"{path.name} cannot be read", boot_id=self._boot_id)

    def _holds(self, inhibitor: Inhibitor, boot_s: float) -> bool:
        if inhibitor.boot_id != self._boot_id:
            return False
        if inhibitor.until_s is not None and boot_s >= inhibitor.until_s:
            return False
        if inhibitor.pid is None:
            return True
        return bool(inhibitor.pid_started) and process_started(inhibitor.pid, self._proc) == inhibitor.pid_started


def user_name() -> str:
    """Who asks: the login name where one is known, else the number."""
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or f"uid {os.getuid()}"
