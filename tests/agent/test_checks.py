"""Checks with real scripts, real folders and made-up machines."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.checks import Builtin, ChecksConfig, DiskLimit, builtin, process, run_checks, verdict
from agent.checks.scripts import OUTPUT_BYTES, find_scripts
from wire.limits import CHECKS, REASONS
from wire.messages import Check, CheckState, Container, Health, HealthState, Placement

WITHIN_S = 20.0


def script(tmp_path: Path, name: str, body: str, *, first: str = "#!/bin/sh", mode: int = 0o755) -> Path:
    path = tmp_path / "check.d" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{first}\n{body}\n")
    path.chmod(mode)
    return path


def only_scripts(tmp_path: Path, limit_s: float = 30.0) -> ChecksConfig:
    return ChecksConfig(folders=(tmp_path / "check.d",), builtins=frozenset(), script_limit_s=limit_s)


def checked(config: ChecksConfig, placement: Placement | None = None) -> Health:
    return asyncio.run(asyncio.wait_for(run_checks(config, placement), WITHIN_S))


def the_check(health: Health, name: str) -> Check:
    return next(check for check in health.checks if check.name == name)


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- scripts --------------------------------------------------------------------------------------------------


def test_nothing_to_run_is_unknown(tmp_path: Path) -> None:
    health = checked(only_scripts(tmp_path))
    assert (health.state, health.reasons) == (HealthState.UNKNOWN, ["No check is configured."])


def test_passed_failed_and_wanted(tmp_path: Path) -> None:
    script(tmp_path, "required.d/10-good", "echo fine")
    config = only_scripts(tmp_path)
    health = checked(config)
    assert (health.state, health.reasons) == (HealthState.HEALTHY, [])
    assert the_check(health, "required.d/10-good").output == ""

    script(tmp_path, "wanted.d/20-hmm", "echo $TWINROOT_CHECK; exit 2")
    health = checked(config)
    assert (health.state, health.reasons) == (
        HealthState.DEGRADED,
        ["wanted.d/20-hmm: exited with code 2: wanted."],
    )
    assert the_check(health, "wanted.d/20-hmm").output == "wanted"

    script(tmp_path, "required.d/30-bad", "echo out; echo err >&2; exit 3")
    health = checked(config)
    assert (health.state, health.reasons) == (
        HealthState.UNHEALTHY,
        ["required.d/30-bad: exited with code 3: err.", "wanted.d/20-hmm: exited with code 2: wanted."],
    )
    bad = the_check(health, "required.d/30-bad")
    assert (bad.state, bad.required, bad.output) == (CheckState.FAILED, True, "out\nerr")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("printf 'one\\n\\n web: refused \\n\\n \\n'; exit 1", "exited with code 1: web: refused"),
        ("exit 1", "exited with code 1"),
        (f"echo {'x' * 161}; exit 1", f"exited with code 1: {'x' * 159}…"),
        ("echo killed; kill -9 $$", "was killed by signal 9 (SIGKILL): killed"),
    ],
)
def test_a_failed_check_says_in_one_line_what_it_said_last(tmp_path: Path, body: str, text: str) -> None:
    script(tmp_path, "required.d/10-bad", body)
    assert the_check(checked(only_scripts(tmp_path)), "required.d/10-bad").text == text


def test_what_counts_as_a_script(tmp_path: Path) -> None:
    folder = tmp_path / "check.d"
    script(tmp_path, "required.d/20-b", "")
    script(tmp_path, "required.d/10-a", "")
    script(tmp_path, "required.d/.hidden", "")
    script(tmp_path, "required.d/notes.txt", "", mode=0o644)
    (folder / "required.d/folder").mkdir()
    (folder / "required.d/dangling").symlink_to("nowhere")
    (folder / "required.d/30-link").symlink_to(script(tmp_path, "elsewhere/real", ""))
    script(tmp_path, "wanted.d/05-w", "")
    script(tmp_path, "10-outside", "")
    names = ["required.d/10-a", "required.d/20-b", "required.d/30-link", "wanted.d/05-w"]
    assert [found.name for found in find_scripts([folder, tmp_path / "missing"])] == names


def test_an_earlier_folder_hides_the_same_name_in_a_later_one(tmp_path: Path) -> None:
    own = script(tmp_path / "etc", "required.d/10-a", "")
    vendor = script(tmp_path / "usr", "required.d/10-a", "")
    other = script(tmp_path / "usr", "required.d/20-b", "")
    found = find_scripts([own.parents[1], vendor.parents[1]])
    assert [found_script.path for found_script in found] == [own, other]


@pytest.mark.parametrize(
    ("first", "text"),
    [
        ("#!/no/such/interpreter", "cannot be executed: No such file or directory"),
        ("neither script nor program", "cannot be executed: Exec format error"),
    ],
)
def test_a_check_that_cannot_be_executed_failed(first: str, text: str, tmp_path: Path) -> None:
    script(tmp_path, "required.d/10-broken", "", first=first)
    health = checked(only_scripts(tmp_path))
    assert (health.state, health.reasons) == (HealthState.UNHEALTHY, [f"required.d/10-broken: {text}."])


def test_a_check_killed_by_a_signal_says_so(tmp_path: Path) -> None:
    script(tmp_path, "required.d/10-dies", "kill -SEGV $$")
    assert checked(only_scripts(tmp_path)).reasons == ["required.d/10-dies: was killed by signal 11 (SIGSEGV)."]


def gone(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return True
    # Killed and not yet collected by its adoptive parent counts as gone.
    return " Z " in Path(f"/proc/{int(pid_file.read_text())}/stat").read_text()


def test_a_check_that_hangs_is_killed_with_all_its_children(tmp_path: Path) -> None:
    script(
        tmp_path,
        "required.d/10-hangs",
        f"trap '' TERM\nsleep 1000 &\necho $! > {tmp_path}/child\necho begun\nwhile :; do sleep 1000; done",
    )
    health = checked(only_scripts(tmp_path, limit_s=0.5))
    hung = the_check(health, "required.d/10-hangs")
    assert (hung.state, hung.text, hung.output) == (
        CheckState.TIMED_OUT,
        "ran into its time limit of 0.5 s",
        "begun",
    )
    assert health.state is HealthState.UNHEALTHY
    until(lambda: gone(tmp_path / "child"))


def test_a_check_that_leaves_a_child_behind_does_not_keep_us(tmp_path: Path) -> None:
    script(tmp_path, "required.d/10-leaves", f"sleep 1000 &\necho $! > {tmp_path}/child\necho done; exit 1")
    left = the_check(checked(only_scripts(tmp_path)), "required.d/10-leaves")
    assert (left.state, left.output) == (CheckState.FAILED, "done")
    until(lambda: gone(tmp_path / "child"))


def test_a_child_that_escapes_the_group_does_not_keep_us_either(tmp_path: Path) -> None:
    script(
        tmp_path,
        "required.d/10-daemon",
        f"setsid sh -c 'echo $$ > {tmp_path}/child; while :; do echo noise; done' &\n"
        f"while ! test -s {tmp_path}/child; do :; done; exit 0",
    )
    try:
        assert checked(only_scripts(tmp_path)).state is HealthState.HEALTHY
    finally:
        # Its pipe is closed by now, so that the noise itself ends it.
        until(lambda: gone(tmp_path / "child"))


def test_output_is_cut_to_its_end_and_clean(tmp_path: Path) -> None:
    script(
        tmp_path,
        "required.d/10-loud",
        "i=0; while test $i -lt 3000; do echo line $i ünïcode; i=$((i+1)); done\n"
        "printf '\\033[31mred\\033[0m \\000\\377 end\\r\\n'; exit 1",
    )
    output = the_check(checked(only_scripts(tmp_path)), "required.d/10-loud").output
    assert OUTPUT_BYTES - 16 <= len(output.encode()) <= OUTPUT_BYTES
    assert output.endswith("line 2999 ünïcode\nred \ufffd end")


def test_four_run_at_once_and_no_more(tmp_path: Path) -> None:
    """Each waits until four have begun; that it is not five is seen by what each counts."""
    running = tmp_path / "running"
    running.mkdir()
    for number in range(8):
        script(
            tmp_path,
            f"required.d/{number}",
            f"touch {running}/$$\n"
            f"cd {tmp_path}/begun\n"
            f"test {number} -gt 3 || while test $(ls | wc -l) -lt 4; do touch $$; done\n"
            f"count=$(ls {running} | wc -l); rm {running}/$$; test $count -le 4",
        )
    (tmp_path / "begun").mkdir()
    health = checked(only_scripts(tmp_path))
    assert health.state is HealthState.HEALTHY, health.reasons


def test_cancelling_kills_what_runs(tmp_path: Path) -> None:
    script(tmp_path, "required.d/10-hangs", f"echo $$ > {tmp_path}/child; exec sleep 1000")

    async def scenario() -> None:
        task = asyncio.create_task(run_checks(only_scripts(tmp_path), None))
        async with asyncio.timeout(WITHIN_S):
            while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
                await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    until(lambda: gone(tmp_path / "child"))


@given(st.binary(max_size=300), st.integers(1, 64))
def test_any_output_becomes_text_within_the_limit(output: bytes, limit: int) -> None:
    text = process.readable(output, limit)
    assert len(text.encode()) <= limit
    assert not any(ord(c) < 32 and c not in "\n\t" for c in text)


# --- built-in -------------------------------------------------------------------------------------------------


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


# --- the verdict ----------------------------------------------------------------------------------------------


def check(state: CheckState, *, required: bool = True, name: str = "x") -> Check:
    return Check(name=name, state=state, required=required, text="t")


NAMES = st.sampled_from("abc")
SOME_CHECKS = st.lists(st.builds(check, st.sampled_from(CheckState), required=st.booleans(), name=NAMES))


@given(SOME_CHECKS)
def test_the_verdict_is_the_worst_that_was_found(checks: list[Check]) -> None:
    health = verdict(checks)
    bad = [c for c in checks if c.state in (CheckState.FAILED, CheckState.TIMED_OUT)]
    unknown = [c for c in checks if c.state is CheckState.UNKNOWN]
    assert (health.state is HealthState.UNHEALTHY) == any(c.required for c in bad)
    if health.state is HealthState.HEALTHY:
        assert any(c.state is CheckState.PASSED for c in checks)
        assert not bad
        assert not any(c.required for c in unknown)
    assert (health.reasons == []) == (health.state is HealthState.HEALTHY)
    assert health.checks == checks


@given(SOME_CHECKS, st.booleans())
def test_one_more_failure_never_makes_it_better(checks: list[Check], required: bool) -> None:
    order = [HealthState.HEALTHY, HealthState.DEGRADED, HealthState.UNKNOWN, HealthState.UNHEALTHY]
    if not checks:
        return
    more = [*checks, check(CheckState.FAILED, required=required)]
    before, after = verdict(checks).state, verdict(more).state
    if before is HealthState.UNKNOWN and not required and not any(c.required for c in checks):
        assert after is HealthState.DEGRADED  # now something is known, and it is bad
    else:
        assert order.index(after) >= order.index(before)


def test_required_failures_come_first_among_the_reasons() -> None:
    health = verdict(
        [
            check(CheckState.FAILED, required=False, name="a"),
            check(CheckState.TIMED_OUT, required=True, name="b"),
            check(CheckState.FAILED, required=True, name="c"),
        ]
    )
    assert health.reasons == ["b: t.", "c: t.", "a: t."]


def test_more_than_the_wire_takes_is_cut_and_says_so() -> None:
    passed = [check(CheckState.PASSED, name=f"p{number}") for number in range(CHECKS)]
    failed = [check(CheckState.FAILED, name=f"f{number}") for number in range(REASONS + 2)]
    health = verdict([*passed, *failed])
    assert len(health.reasons) == REASONS
    assert health.reasons[-1] == "And 3 more."
    assert len(health.checks) == CHECKS
    assert {c.name for c in failed} <= {c.name for c in health.checks}


def test_errno_words_are_the_system_s() -> None:
    """The sentences above quote strerror; this fails first where a C library words it otherwise."""
    assert os.strerror(errno.ENOENT) == "No such file or directory"
    assert os.strerror(errno.ENOEXEC) == "Exec format error"
