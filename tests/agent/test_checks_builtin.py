"""The built-in checks on made-up machines."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.checks import Builtin, ChecksConfig, DiskLimit, builtin
from tests.agent.test_checks import checked, the_check
from wire.messages import CheckState, Container, HealthState, Placement


def machine(tmp_path: Path, which: Builtin, **changes: object) -> ChecksConfig:
    base = {"folders": (), "state_folder": tmp_path, "builtins": frozenset({which}), "root": tmp_path / "root"}
    return ChecksConfig(**{**base, **changes})  # type: ignore[arg-type]


def test_a_writable_state_folder(tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    health = checked(machine(tmp_path, Builtin.STATE))
    assert health.state is HealthState.HEALTHY
    assert set(tmp_path.iterdir()) == before


def test_a_state_folder_that_is_missing_or_read_only(tmp_path: Path) -> None:
    health = checked(machine(tmp_path, Builtin.STATE, state_folder=tmp_path / "gone"))
    assert health.state is HealthState.UNHEALTHY
    assert health.reasons == [f"state: {tmp_path / 'gone'} cannot be written: No such file or directory."]
    # /proc/self accepts no new files from anybody, root included: read-only for all we can tell.
    health = checked(machine(tmp_path, Builtin.STATE, state_folder=Path("/proc/self")))
    assert health.state is HealthState.UNHEALTHY
    assert health.reasons[0].startswith("state: /proc/self cannot be written: ")


def systemctl(tmp_path: Path, body: str) -> ChecksConfig:
    (tmp_path / "root/run/systemd/system").mkdir(parents=True, exist_ok=True)
    path = tmp_path / "systemctl"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return machine(
        tmp_path, Builtin.SYSTEMD, systemctl=str(path), builtin_limit_s=0.5, ignored_units=frozenset({"ok.service"})
    )


def test_failed_units(tmp_path: Path) -> None:
    listed = "echo 'a.service loaded failed failed A'; echo 'ok.service loaded failed failed B'; test $1 = list-units"
    health = checked(systemctl(tmp_path, listed))
    assert (health.state, health.reasons) == (HealthState.DEGRADED, ["systemd: 1 failed unit: a.service."])
    assert checked(systemctl(tmp_path, "true")).state is HealthState.HEALTHY


def test_a_systemd_that_does_not_answer(tmp_path: Path) -> None:
    health = checked(systemctl(tmp_path, "exec sleep 1000"))
    assert (health.state, health.reasons) == (
        HealthState.DEGRADED,
        ["systemd: systemd did not answer within 0.5 s."],
    )
    assert checked(systemctl(tmp_path, "exit 1")).state is HealthState.UNKNOWN


def test_without_systemd_there_is_no_such_check(tmp_path: Path) -> None:
    assert checked(machine(tmp_path, Builtin.SYSTEMD)).checks == []


def test_many_failed_units_are_counted() -> None:
    units = "".join(f"u{number}.service loaded failed failed\n" for number in range(5))
    assert builtin.systemd_finding(units, frozenset()) == (
        CheckState.FAILED,
        "5 failed units: u0.service, u1.service, u2.service and 2 more",
    )


def statvfs(blocks: int, free: int, available: int, flags: int = 0) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, blocks, free, available, 0, 0, 0, flags, 255))


@pytest.mark.parametrize(
    ("stat", "state"),
    [
        (statvfs(1000_000, 500_000, 450_000), CheckState.PASSED),
        (statvfs(1000_000, 90_000, 40_000), CheckState.FAILED),  # 4.2 % for users, the rest is root's reserve
        (statvfs(100_000, 20_000, 20_000), CheckState.FAILED),  # 20 %, but 78 MiB
        (statvfs(1000, 0, 0, os.ST_RDONLY), CheckState.PASSED),
        (statvfs(0, 0, 0), CheckState.PASSED),
    ],
)
def test_free_space(stat: os.statvfs_result, state: CheckState) -> None:
    assert builtin.disk_finding(DiskLimit(Path("/var")), stat)[0] is state


def test_space_is_said_in_a_unit_that_fits() -> None:
    memory = builtin.memory_finding("MemTotal: 24675932 kB\nMemAvailable: 22433792 kB\n", 5.0)[1]
    assert memory == "21.4 GiB (90.9 %) of memory are available"
    small = builtin.disk_finding(DiskLimit(Path("/var")), statvfs(1000_000, 90_000, 40_000))[1]
    assert small.startswith("/var has 156 MiB (4.2 %) free")


def test_each_disk_is_a_check_and_a_missing_one_failed(tmp_path: Path) -> None:
    disks = (DiskLimit(tmp_path, 0.0, 0.0), DiskLimit(tmp_path / "gone"))
    health = checked(machine(tmp_path, Builtin.DISK, disks=disks))
    assert [(c.name, c.state) for c in health.checks] == [
        (f"disk:{tmp_path}", CheckState.PASSED),
        (f"disk:{tmp_path / 'gone'}", CheckState.FAILED),
    ]
    assert health.state is HealthState.DEGRADED


@pytest.mark.parametrize(
    ("meminfo", "state"),
    [
        ("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 500 kB\n", CheckState.PASSED),
        ("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 49 kB\n", CheckState.FAILED),
        ("MemTotal: 1000 kB\n", CheckState.UNKNOWN),
        ("", CheckState.UNKNOWN),
    ],
)
def test_memory(meminfo: str, state: CheckState) -> None:
    assert builtin.memory_finding(meminfo, 5.0)[0] is state


def test_memory_of_a_machine_without_meminfo(tmp_path: Path) -> None:
    assert checked(machine(tmp_path, Builtin.MEMORY)).state is HealthState.UNKNOWN


def running(name: str, state: str = "running") -> Container:
    return Container(id=name, name=name, image="i", service=name, state=state)


def test_the_engine_and_its_containers(tmp_path: Path) -> None:
    config = machine(tmp_path, Builtin.ENGINE, builtins=frozenset({Builtin.ENGINE, Builtin.CONTAINERS}))
    assert checked(config, None).checks == []
    good = Placement(known=True, engine="Podman 4.3.1", containers=[running("web")])
    assert checked(config, good).state is HealthState.HEALTHY
    assert the_check(checked(config, good), "engine").text == "Podman 4.3.1 answers"
    down = Placement(known=True, containers=[running("web"), running("db", "exited"), running("a", "restarting")])
    health = checked(config, down)
    assert (health.state, health.reasons) == (
        HealthState.DEGRADED,
        ["containers: 2 containers not kept running by the engine: a (restarting), db (exited)."],
    )
    away = Placement(known=False, reason="no engine listens at /run/docker.sock")
    health = checked(config, away)
    assert (health.state, health.reasons) == (
        HealthState.UNHEALTHY,
        ["engine: no engine listens at /run/docker.sock."],
    )
    assert [check.name for check in health.checks] == ["engine"]


def test_which_built_ins_are_required_is_configured(tmp_path: Path) -> None:
    away = Placement(known=False, reason="gone")
    config = machine(tmp_path, Builtin.ENGINE, required_builtins=frozenset())
    assert checked(config, away).state is HealthState.DEGRADED


def test_errno_words_are_the_system_s() -> None:
    """What tests of checks expect quotes strerror; this fails first where a C library words it otherwise."""
    assert os.strerror(errno.ENOENT) == "No such file or directory"
    assert os.strerror(errno.ENOEXEC) == "Exec format error"
