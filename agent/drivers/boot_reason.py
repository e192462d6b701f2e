"""What a machine still knows of its last end: panic records and watchdogs below /sys."""

from __future__ import annotations

from pathlib import Path

from agent.facts import boot_time
from wire.messages import BootCause

WDIOF_CARDRESET = 0x20
"""linux/watchdog.h: the card itself reset the machine last time."""

PANIC_WINDOW_S = 900.0
"""A panic record this much older than the boot belongs to it; records stay until somebody removes them."""


def boot_reason(root: Path) -> BootCause:
    """PANIC or WATCHDOG_OR_POWER where the machine says so, else UNKNOWN; what cannot be read says nothing."""
    if _panicked(root):
        return BootCause.PANIC
    if any(_card_reset(path) for path in root.glob("sys/class/watchdog/watchdog*/bootstatus")):
        return BootCause.WATCHDOG_OR_POWER
    return BootCause.UNKNOWN


def _panicked(root: Path) -> bool:
    """Whether pstore, or where systemd-pstore moved it, holds a kernel log from just before this boot."""
    booted_at = boot_time(root)
    folders = ("sys/fs/pstore", "var/lib/systemd/pstore")
    try:
        ends = [path.stat().st_mtime for folder in folders for path in (root / folder).glob("**/dmesg*")]
    except OSError:
        return False
    return any(booted_at - PANIC_WINDOW_S <= end <= booted_at for end in ends)


def _card_reset(path: Path) -> bool:
    try:
        return bool(int(path.read_text().strip() or "0", 0) & WDIOF_CARDRESET)
    except (OSError, ValueError):
        return False
