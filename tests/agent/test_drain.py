"""drain.d with real executables: which of them run, how they end, and what a killed agent leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.checks.scripts import OUTPUT_BYTES
from agent.drain import DrainMissing, Drains, Verb
from agent.facts import process_started
from wire.messages import Check, CheckState

WITHIN_S = 20.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "drain.d"
    made.mkdir(mode=0o755)
    return made


@pytest.fixture
def drains(tmp_path: Path, folder: Path) -> Drains:
    return Drains([folder, tmp_path / "missing"], tmp_path / "run" / "draining.json")


def script(folder: Path, body: str, name: str = "move", mode: int = 0o755) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(mode)
    return path


def run(drains: Drains, verb: Verb = Verb.DRAIN, limit_s: float = 10.0, name: str = "move") -> Check:
    return asyncio.run(asyncio.wait_for(drains.run(name, verb, limit_s), WITHIN_S))


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not reached():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("verb", list(Verb))
def test_it_gets_its_verb_and_its_limit(drains: Drains, folder: Path, verb: Verb) -> None:
    script(folder, 'echo "$@" $TWINROOT_LIMIT_S')
    check = run(drains, verb)
    assert (check.name, check.state) == ("drain.d/move", CheckState.PASSED)
    assert check.output == f"{verb} 10" and check.text == f"{verb} exited with code 0"


def test_a_failure_keeps_its_last_words_and_the_end_of_its_output(drains: Drains, folder: Path) -> None:
    script(folder, "yes filler | head -c 20000; echo; echo no budget left >&2; exit 3")
    check = run(drains)
    assert check.state is CheckState.FAILED and check.text == "drain exited with code 3: no budget left"
    assert len(check.output.encode()) <= OUTPUT_BYTES and check.output.endswith("no budget left")


def test_the_limit_ends_it_and_all_that_it_started(drains: Drains, folder: Path, tmp_path: Path) -> None:
    script(folder, f"sleep 600 & echo $! > {tmp_path}/child; wait")
    check = run(drains, limit_s=0.3)
    assert check.state is CheckState.TIMED_OUT and check.text == "drain ran into its time limit of 0 s"
    asyncio.run(until(lambda: not alive(tmp_path)))


def alive(tmp_path: Path) -> bool:
    """Whether the child of a script runs; what was killed and not reaped does not."""
    stat = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_cancelling_ends_it(drains: Drains, folder: Path, tmp_path: Path) -> None:
    script(folder, f"sleep 600 & echo $! > {tmp_path}/child.new; mv {tmp_path}/child.new {tmp_path}/child; wait")

    async def scene() -> None:
        work = asyncio.ensure_future(drains.run("move", Verb.DRAIN, 60.0))
        await until((tmp_path / "child").exists)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await until(lambda: not alive(tmp_path))

    asyncio.run(scene())
    assert not (tmp_path / "run" / "draining.json").exists()


def test_what_a_killed_agent_left_running_is_ended_before_the_next_begins(
    drains: Drains, folder: Path, tmp_path: Path
) -> None:
    script(folder, "exit 0")
    left = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        note = tmp_path / "run" / "draining.json"
        note.parent.mkdir()
        note.write_text(json.dumps([left.pid, process_started(left.pid)]))
        assert run(drains, Verb.UNDRAIN).state is CheckState.PASSED
        assert left.wait(WITHIN_S) == -9 and not note.exists()
    finally:
        left.kill()
        left.wait()


def test_another_process_under_the_same_number_is_left_alone(drains: Drains, folder: Path, tmp_path: Path) -> None:
    script(folder, "exit 0")
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        note = tmp_path / "run" / "draining.json"
        note.parent.mkdir()
        for content in (json.dumps([other.pid, "1"]), "no json", "7"):
            note.write_text(content)
            assert run(drains).state is CheckState.PASSED
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_while_it_runs_its_number_is_on_disk(drains: Drains, folder: Path, tmp_path: Path) -> None:
    script(folder, f"cat {tmp_path}/run/draining.json; echo; echo $$")
    pid, started = 0, ""
    for _ in range(5):  # it may print before the note is there
        note, _, own = run(drains).output.rpartition("\n")
        if note.startswith("["):
            pid, started = json.loads(note)
            assert pid == int(own)
            break
    assert pid and started


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../move", "a/b", "/bin/sh", ".hidden", "-rf", "mo ve", "move\n", "é", "x" * 129]
)
def test_only_a_plain_name_is_looked_for(drains: Drains, folder: Path, name: str) -> None:
    script(folder, "exit 0")
    with pytest.raises(DrainMissing, match="the name must be"):
        drains.find(name)
    assert run(drains, name=name).state is CheckState.FAILED


def test_one_that_is_not_there_says_where_it_was_looked_for(drains: Drains, folder: Path) -> None:
    check = run(drains, name="gone")
    assert check.state is CheckState.FAILED and str(folder) in check.text and "no such file" in check.text


def test_one_that_cannot_be_executed(drains: Drains, folder: Path) -> None:
    script(folder, "exit 0", mode=0o644)
    assert "is not executable" in run(drains).text
    (folder / "odd").write_text("#!/no/such/interpreter\n")
    (folder / "odd").chmod(0o755)
    assert run(drains, name="odd").text.startswith("cannot be executed")
    (folder / "folder").mkdir(mode=0o755)
    assert "is not executable" in run(drains, name="folder").text


@pytest.mark.parametrize("mode", [0o757, 0o775])
def test_what_others_can_write_is_not_run(drains: Drains, folder: Path, mode: int) -> None:
    script(folder, "exit 0", mode=mode)
    assert "can be written by others" in run(drains).text
    script(folder, "exit 0")
    folder.chmod(mode)
    assert "can be written by others" in run(drains).text


def test_a_link_counts_as_what_it_leads_to(drains: Drains, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "lib"
    elsewhere.mkdir(mode=0o755)
    target = script(elsewhere, "exit 0")
    (folder / "move").symlink_to(target)
    assert run(drains).state is CheckState.PASSED
    elsewhere.chmod(0o777)
    assert "can be written by others" in run(drains).text


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_what_belongs_to_somebody_else_is_not_run(drains: Drains, folder: Path) -> None:
    os.chown(script(folder, "exit 0"), 12345, -1)
    assert "belongs to user id 12345" in run(drains).text


def test_an_earlier_folder_hides_the_same_name(tmp_path: Path) -> None:
    folders = [tmp_path / "etc", tmp_path / "usr"]
    for folder in folders:
        folder.mkdir(mode=0o755)
        script(folder, f"echo {folder.name}")
    script(folders[1], "echo vendor", name="only")
    drains = Drains(folders, tmp_path / "draining.json")
    assert run(drains).output == "etc" and run(drains, name="only").output == "vendor"


def test_a_note_that_cannot_be_written_stops_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    script(folder, f"sleep 1; touch {tmp_path}/ran")
    check = run(Drains([folder], tmp_path / "file" / "draining.json"))
    assert check.state is CheckState.FAILED and not (tmp_path / "ran").exists()
