"""Where a `files` node keeps what, read by driver and firmware alike.

ROOT/slots/a.img, b.img   the slots A and B
ROOT/boot.json            the boot record
ROOT/run/boot.json        this boot: id, slot, cause, when; written by the firmware
ROOT/run/os-release       the header of the booted image
ROOT/run/reboot           the agent's request, answered by the firmware when the agent exits
ROOT/run/agent.pid        the agent's process id, for whoever watches the node
"""

from __future__ import annotations

import hashlib
import shlex
from enum import StrEnum
from pathlib import Path

import msgspec

from agent.drivers.files_record import BootRecord
from wire.messages import Struct

REBOOT_EXIT = 87
"""Exit code of an agent that asks for a reboot; outside what Python, shells and signals use."""

HEADER_END = "--"
HEADER_BYTES = 16 * 1024
"""An os-release is a few hundred bytes; more than this is no header."""

CHUNK_BYTES = 1024 * 1024


class MachineCause(StrEnum):
    POWER_ON = "power-on"
    REBOOT = "reboot"
    PANIC = "panic"
    POWER_CUT = "power-cut"
    WATCHDOG = "watchdog"


class Running(Struct, frozen=True, kw_only=True):
    """This boot, as `run/boot.json` says."""

    boot_id: str
    slot: str
    cause: MachineCause
    at: float


class BadHeader(Exception):
    """The file does not begin with an os-release block."""


class NodeFiles:
    """Paths and readers of one node; OSError, msgspec.MsgspecError and BadHeader pass through."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record = root / "boot.json"
        self.run = root / "run"
        self.boot = self.run / "boot.json"
        self.os_release = self.run / "os-release"
        self.reboot = self.run / "reboot"
        self.agent_pid = self.run / "agent.pid"

    def slot(self, name: str) -> Path:
        return self.root / "slots" / f"{name.lower()}.img"

    def read_record(self) -> BootRecord:
        return msgspec.json.decode(self.record.read_bytes(), type=BootRecord)

    def read_running(self) -> Running:
        return msgspec.json.decode(self.boot.read_bytes(), type=Running)


def read_header(path: Path) -> tuple[str, dict[str, str]]:
    """Text and values of the block that an image begins with (os-release(5) syntax, up to a line `--`)."""
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
    text, end, _ = start.partition(f"\n{HEADER_END}\n".encode())
    if not end:
        raise BadHeader(f"{path} does not begin with an os-release block that ends in a line `--`")
    try:
        lines = text.decode("utf-8")
        return lines + "\n", _values(lines)
    except ValueError as problem:
        raise BadHeader(f"{path}: {problem}") from problem


def _values(text: str) -> dict[str, str]:
    values = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise ValueError(f"not KEY=value: {line!r}")
        values[key.strip()] = "".join(shlex.split(value))
    return values


def digest_of(path: Path) -> str:
    """`sha256:` and hex digits of a whole file."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
