"""Machine facts, read from made-up roots."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import facts

UUID = "4c4c4544-0042-3510-8054-b4c04f4d4632"


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def interface(root: Path, name: str, address: str, *, device: bool = True, **files: str) -> None:
    folder = f"sys/class/net/{name}"
    write(root, f"{folder}/address", f"{address}\n")
    for key, text in {"type": "1", "addr_assign_type": "0", **files}.items():
        write(root, f"{folder}/{key}", f"{text}\n")
    if device:
        (root / folder / "device").mkdir()


def dmi(root: Path, **files: str) -> None:
    for name, text in files.items():
        write(root, f"sys/class/dmi/id/{name}", f"{text}\n")


def fingerprint(root: Path) -> str:
    found = facts.hardware_fingerprint(root)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", found)
    return found


def test_machine_id(tmp_path: Path) -> None:
    with pytest.raises(facts.FactsError, match="no machine id"):
        facts.machine_id(tmp_path)
    write(tmp_path, "var/lib/dbus/machine-id", "b" * 32 + "\n")
    assert facts.machine_id(tmp_path) == "b" * 32
    write(tmp_path, "etc/machine-id", "uninitialized\n")
    assert facts.machine_id(tmp_path) == "b" * 32
    write(tmp_path, "etc/machine-id", "A" * 32 + "\n")
    assert facts.machine_id(tmp_path) == "a" * 32


def test_the_fingerprint_is_the_firmware_s_and_not_the_drivers_(tmp_path: Path) -> None:
    dmi(tmp_path, product_uuid=UUID, product_serial="BQ5TMF2", board_serial="To be filled by O.E.M.")
    before = fingerprint(tmp_path)
    interface(tmp_path, "eth0", "52:54:00:12:34:56")
    write(tmp_path, "etc/machine-id", "a" * 32)
    write(tmp_path, "sys/class/dmi/id/bios_version", "2.19")
    assert fingerprint(tmp_path) == before
    dmi(tmp_path, product_uuid=UUID.upper())  # kernels spell it in either case
    assert fingerprint(tmp_path) == before
    dmi(tmp_path, product_serial="OTHER")
    assert fingerprint(tmp_path) != before


def test_a_device_tree_serial_ends_with_nul(tmp_path: Path) -> None:
    write(tmp_path, "sys/firmware/devicetree/base/serial-number", "10000000abcdef01\0")
    before = fingerprint(tmp_path)
    shutil.rmtree(tmp_path / "sys")
    write(tmp_path, "proc/device-tree/serial-number", "10000000abcdef01")
    assert fingerprint(tmp_path) == before


PLACEHOLDERS = """
Default string|To Be Filled By O.E.M.|0|00000000-0000-0000-0000-000000000000|None|System Serial Number
Not Specified|0123456789|........|xxxxxxxx|FFFFFFFF|N/A|03000200-0400-0500-0006-000700080009
"""


@pytest.mark.parametrize("placeholder", ["", *PLACEHOLDERS.strip().replace("\n", "|").split("|")])
def test_placeholders_are_no_identity(placeholder: str, tmp_path: Path) -> None:
    interface(tmp_path, "eth0", "52:54:00:12:34:56")
    without = fingerprint(tmp_path)
    dmi(tmp_path, product_uuid=placeholder, product_serial=placeholder)
    assert fingerprint(tmp_path) == without


def test_without_firmware_the_permanent_addresses_count(tmp_path: Path) -> None:
    interface(tmp_path, "eth0", "52:54:00:12:34:56")
    before = fingerprint(tmp_path)
    interface(tmp_path, "docker0", "02:42:00:00:00:01", device=False)
    interface(tmp_path, "wlan0", "ba:00:00:00:00:02", addr_assign_type="1")  # random
    interface(tmp_path, "wwan0", "00:00:00:00:00:00")
    interface(tmp_path, "can0", "52:54:00:00:00:09", type="280")
    write(tmp_path, "sys/class/net/bonding_masters", "bond0\n")
    assert fingerprint(tmp_path) == before
    interface(tmp_path, "eth1", "52:54:00:12:34:57")
    assert fingerprint(tmp_path) != before


def test_in_a_bond_the_member_s_own_address_counts(tmp_path: Path) -> None:
    interface(tmp_path, "eth0", "52:54:00:12:34:56")
    before = fingerprint(tmp_path)
    write(tmp_path, "sys/class/net/eth0/address", "52:54:00:99:99:99\n")
    write(tmp_path, "sys/class/net/eth0/addr_assign_type", "3\n")
    write(tmp_path, "sys/class/net/eth0/bonding_slave/perm_hwaddr", "52:54:00:12:34:56\n")
    assert fingerprint(tmp_path) == before


def test_where_no_hardware_shows_the_machine_id_counts(tmp_path: Path) -> None:
    nothing = fingerprint(tmp_path)
    write(tmp_path, "etc/machine-id", "a" * 32)
    assert fingerprint(tmp_path) != nothing


OS_RELEASES = [
    ("", "linux", "linux", ""),
    ("ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian 12'\n", "debian", "Debian 12", "12"),
    ("ID=flatcar\nVERSION_ID=3975.2.0\nBUILD_ID=2024\nNAME=Flatcar\n", "flatcar", "Flatcar", "3975.2.0"),
    ("ID=edge\nIMAGE_VERSION=41\nVERSION_ID=12\n", "edge", "edge", "41"),
    ("ID=fedora\nOSTREE_VERSION='40.20240504.3.0'\nVERSION_ID=40\n", "fedora", "fedora", "40.20240504.3.0"),
    ("ID=arch\nBUILD_ID=rolling\n", "arch", "arch", "rolling"),
    ('# ID=comment\n  ID=spaced  \nbad line\nVERSION_ID="open\nNAME="a \\"b\\" \\$c"', "spaced", 'a "b" $c', ""),
]


@pytest.mark.parametrize(("text", "os_id", "name", "version"), OS_RELEASES)
def test_os_release(text: str, os_id: str, name: str, version: str, tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/os-release", text)
    write(tmp_path, "proc/sys/kernel/osrelease", "6.1.0-test\n")
    found = facts.os_facts(tmp_path, "rauc", machine="x86_64")
    assert (found.id, found.name, found.version) == (os_id, name, version)
    assert (found.kernel, found.arch, found.driver) == ("6.1.0-test", "amd64", "rauc")


def test_etc_os_release_wins_and_is_not_merged(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/os-release", "ID=vendor\nVERSION_ID=1\n")
    write(tmp_path, "etc/os-release", "ID=local\n")
    assert facts.os_release(tmp_path) == {"ID": "local"}


@given(st.text(max_size=200))
def test_any_os_release_is_read(text: str) -> None:
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", key) for key in facts.parse_os_release(text))


@pytest.mark.parametrize(
    ("machine", "wide", "expected"),
    [
        ("x86_64", True, "amd64"),
        ("x86_64", False, "386"),
        ("aarch64", True, "arm64"),
        ("aarch64", False, "arm"),
        ("armv7l", False, "arm"),
        ("i686", False, "386"),
        ("riscv64", True, "riscv64"),
    ],
)
def test_architectures(machine: str, wide: bool, expected: str) -> None:
    assert facts.architecture(machine, wide=wide) == expected


def test_boot(tmp_path: Path) -> None:
    with pytest.raises(facts.FactsError, match="no boot id"):
        facts.boot_id(tmp_path)
    assert facts.boot_time(tmp_path) == 0.0
    write(tmp_path, "proc/sys/kernel/random/boot_id", "0f3c-1\n")
    write(tmp_path, "proc/stat", "cpu 1 2 3\nbtime 1790000000\nprocesses 9\n")
    assert facts.boot_id(tmp_path) == "0f3c-1"
    assert facts.boot_time(tmp_path) == 1790000000.0


def test_this_machine_s_clock_and_boot_agree() -> None:
    assert facts.boot_id() == facts.boot_id()
    assert abs(time.time() - facts.boottime_now() - facts.boot_time()) < 120
    before = facts.boottime_now()
    assert facts.boottime_now() >= before


def systemctl(tmp_path: Path, script: str) -> str:
    path = tmp_path / "systemctl"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_shutting_down(tmp_path: Path) -> None:
    stopping = systemctl(tmp_path, 'test "$1" = is-system-running && echo stopping; exit 1')
    assert not facts.shutting_down(tmp_path, stopping)  # systemd does not run here
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert facts.shutting_down(tmp_path, stopping)
    assert not facts.shutting_down(tmp_path, systemctl(tmp_path, "echo running"))
    assert not facts.shutting_down(tmp_path, str(tmp_path / "missing"))
    write(tmp_path, "run/systemd/shutdown/scheduled", "USEC=1\n")
    assert facts.shutting_down(tmp_path, systemctl(tmp_path, "echo running"))


def test_a_systemd_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    began = time.monotonic()
    assert not facts.shutting_down(tmp_path, systemctl(tmp_path, "exec sleep 60"))
    assert time.monotonic() - began < 30
