"""What is checked, with which limits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Builtin(StrEnum):
    """The checks that the agent brings along; the value is the check's name."""

    SYSTEMD = "systemd"
    DISK = "disk"
    MEMORY = "memory"
    STATE = "state"
    ENGINE = "engine"
    CONTAINERS = "containers"


@dataclass(frozen=True)
class DiskLimit:
    """The file system of `path` fails when less than either is free for ordinary users."""

    path: Path
    min_free_percent: float = 5.0
    min_free_mib: float = 100.0


@dataclass(frozen=True)
class ChecksConfig:
    """Frozen for the life of the agent; the defaults are those of an installed node."""

    folders: tuple[Path, ...] = (Path("/etc/twinroot-agent/check.d"), Path("/usr/lib/twinroot-agent/check.d"))
    """Each may hold required.d and wanted.d; a file hides those of the same name in later folders."""
    state_folder: Path = Path("/var/lib/twinroot-agent")
    builtins: frozenset[Builtin] = frozenset(Builtin)
    required_builtins: frozenset[Builtin] = frozenset({Builtin.STATE, Builtin.ENGINE})
    """Those that make the node unhealthy; the others are warnings. Without writable state the agent cannot
    keep its promises, and without its engine the node cannot do its work."""
    disks: tuple[DiskLimit, ...] = (DiskLimit(Path("/var")),)
    """Image-based systems keep what grows below /var. A read-only file system cannot fill and passes."""
    min_memory_percent: float = 5.0
    """Share of MemAvailable below which the kernel is about to reclaim hard, or to kill."""
    ignored_units: frozenset[str] = frozenset()
    script_limit_s: float = 30.0
    builtin_limit_s: float = 10.0
    scripts_at_once: int = 4
    systemctl: str = "systemctl"
    root: Path = Path("/")
    """Where /proc and /run are looked for."""
