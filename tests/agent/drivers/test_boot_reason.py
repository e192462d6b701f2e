from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.drivers.boot_reason import PANIC_WINDOW_S, boot_reason
from wire.messages import BootCause

BOOTED_AT = 1_700_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(f"cpu 1 2\nbtime {BOOTED_AT}\n")
    return tmp_path


def put(path: Path, text: str = "", at: float = BOOTED_AT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (at, at))


def test_a_machine_that_says_nothing(root: Path) -> None:
    assert boot_reason(root) is BootCause.UNKNOWN


@pytest.mark.parametrize("name", ["sys/fs/pstore/dmesg-ramoops-0", "var/lib/systemd/pstore/77/dmesg.txt"])
def test_a_panic_just_before_the_boot(root: Path, name: str) -> None:
    put(root / name, at=BOOTED_AT - 60)
    assert boot_reason(root) is BootCause.PANIC


@pytest.mark.parametrize("age", [PANIC_WINDOW_S + 1, -1])
def test_a_panic_of_another_boot(root: Path, age: float) -> None:
    put(root / "sys/fs/pstore/dmesg-efi-1", at=BOOTED_AT - age)
    assert boot_reason(root) is BootCause.UNKNOWN


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        ("32", BootCause.WATCHDOG_OR_POWER),
        ("0x21", BootCause.WATCHDOG_OR_POWER),
        ("0", BootCause.UNKNOWN),
        ("1", BootCause.UNKNOWN),
        ("", BootCause.UNKNOWN),
        ("what", BootCause.UNKNOWN),
    ],
)
def test_a_watchdog_that_reset_the_machine(root: Path, status: str, cause: BootCause) -> None:
    put(root / "sys/class/watchdog/watchdog0/bootstatus", status)
    assert boot_reason(root) is cause
