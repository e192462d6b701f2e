"""Checks with real scripts, real folders and made-up machines."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.checks import ChecksConfig, process, run_checks
from agent.checks.scripts import OUTPUT_BYTES, find_scripts
from wire.messages import Check, CheckState, Health, HealthState, Placement

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
