"""The machine as a process: it boots, restarts, reboots, loses power and stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.drivers.files import FilesDriver
from agent.drivers.files_machine import QUICK_DEATHS, FilesMachine
from agent.drivers.files_node import REBOOT_EXIT, NodeFiles
from tests.agent.drivers.images import content_of, write_image
from tests.agent.drivers.rauc_machine import wait_until

AGENT = f"""
trap 'echo orderly >> "$0/lives"; exit 0' TERM
life=$(cat "$0/run/boot.json"); echo "$life" >> "$0/lives"
while :; do
    if [ -e "$0/reboot-now" ]; then rm "$0/reboot-now"; echo x > "$0/run/reboot"; exit {REBOOT_EXIT}; fi
    if [ -e "$0/exit-now" ]; then rm "$0/exit-now"; exit {REBOOT_EXIT}; fi
    sleep 0.02
done
"""


class Running:
    """A machine process whose agent is a shell script that writes down each of its lives."""

    def __init__(self, folder: Path, agent: str = AGENT) -> None:
        self.root = folder / "node"
        write_image(folder / "old", content_of("1.0"), "1.0")
        self.image = write_image(folder / "new", content_of("2.0"), "2.0")
        self.payload = folder / "new"
        self.files = NodeFiles(self.root)
        self.lives_file = self.root / "lives"
        module = [sys.executable, "-m", "agent.drivers.files_machine", str(self.root)]
        command = ["sh", "-c", agent, str(self.root)]
        self.process = subprocess.Popen(
            [*module, "--create", str(folder / "old"), "--", *command], stderr=subprocess.PIPE, text=True
        )

    def lives(self) -> list[dict[str, str]]:
        if not self.lives_file.exists():
            return []
        return [json.loads(line) for line in self.lives_file.read_text().splitlines() if line.startswith("{")]

    def wait_for_lives(self, count: int) -> list[dict[str, str]]:
        wait_until(lambda: len(self.lives()) >= count, f"the agent lived {count} times")
        return self.lives()

    def agent_pid(self) -> int:
        """The agent may live before the machine has written down its number."""
        file = self.files.agent_pid
        wait_until(lambda: file.exists() and file.read_text() != "", "the agent's number is written")
        return int(file.read_text())

    def do(self, step: Callable[[FilesDriver], object]) -> None:
        asyncio.run(step(FilesDriver(self.root, on_reboot=lambda: None)))  # type: ignore[arg-type]

    def stop(self) -> str:
        """What the machine said on its way."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=20)
        return said


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    machine = Running(tmp_path)
    yield machine
    if machine.process.poll() is None:
        machine.stop()
    if machine.process.stderr:
        machine.process.stderr.close()


def test_it_creates_boots_and_stops_in_order(running: Running) -> None:
    life = running.wait_for_lives(1)[0]
    assert (life["slot"], life["cause"]) == ("A", "power-on")
    agent = running.agent_pid()
    said = running.stop()
    assert running.process.returncode == 0
    assert "slot A: booted" in said
    assert "orderly" in running.lives_file.read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(agent, 0)


def test_a_killed_agent_comes_back_in_the_same_boot(running: Running) -> None:
    first = running.wait_for_lives(1)[0]
    os.kill(running.agent_pid(), signal.SIGKILL)
    assert running.wait_for_lives(2)[1]["boot_id"] == first["boot_id"]


def test_the_exit_code_alone_is_no_reboot(running: Running) -> None:
    first = running.wait_for_lives(1)[0]
    (running.root / "exit-now").touch()
    assert running.wait_for_lives(2)[1]["boot_id"] == first["boot_id"]


def test_a_reboot_switches_over(running: Running) -> None:
    first = running.wait_for_lives(1)[0]
    running.do(lambda driver: driver.stage(running.image, running.payload, lambda share: None))
    running.do(lambda driver: driver.arm("B"))
    (running.root / "reboot-now").touch()
    second = running.wait_for_lives(2)[1]
    assert (second["slot"], second["cause"]) == ("B", "reboot")
    assert second["boot_id"] != first["boot_id"]
    assert "VERSION_ID=2.0" in running.files.os_release.read_text()


def test_a_power_cut_after_staging_boots_the_confirmed_slot(running: Running) -> None:
    first = running.wait_for_lives(1)[0]
    running.do(lambda driver: driver.stage(running.image, running.payload, lambda share: None))
    running.process.send_signal(signal.SIGUSR1)
    second = running.wait_for_lives(2)[1]
    assert (second["slot"], second["cause"]) == ("A", "power-cut")
    assert second["boot_id"] != first["boot_id"]
    assert "orderly" not in running.lives_file.read_text()


def test_an_agent_that_always_dies_makes_a_trial_fall_back(tmp_path: Path) -> None:
    write_image(tmp_path / "old", content_of("1.0"), "1.0")
    image = write_image(tmp_path / "new", content_of("2.0"), "2.0")
    root = tmp_path / "node"
    FilesMachine.create(root, tmp_path / "old").power_on()
    driver = FilesDriver(root, tries=1)
    asyncio.run(driver.stage(image, tmp_path / "new", lambda share: None))
    asyncio.run(driver.arm("B"))
    said: list[str] = []
    machine = FilesMachine(root, backoff_s=0.001, say=said.append)
    die_on_b = f'echo >> {root}/lives; grep -q \'"slot":"B"\' {root}/run/boot.json && exit 1; exec sleep 60'

    async def scene() -> None:
        run = asyncio.ensure_future(machine.run(["sh", "-c", die_on_b]))
        while "slot A: booted (watchdog)" not in said:
            assert not run.done()
            await asyncio.sleep(0.02)
        run.cancel()
        await asyncio.wait([run])

    asyncio.run(asyncio.wait_for(scene(), 60))
    assert (root / "lives").read_text().count("\n") >= QUICK_DEATHS


def test_nothing_that_boots_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "image").write_text("no image")
    module = [sys.executable, "-m", "agent.drivers.files_machine", str(tmp_path / "node")]
    done = subprocess.run(
        [*module, "--create", str(tmp_path / "image"), "--", "true"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("files_machine: not an image")
    assert done.stderr.count("\n") == 1


def test_the_driver_ends_the_process_with_the_exit_code_of_a_reboot(tmp_path: Path) -> None:
    write_image(tmp_path / "old", content_of("1.0"), "1.0")
    FilesMachine.create(tmp_path / "node", tmp_path / "old").power_on()
    script = (
        "import asyncio, sys, pathlib; from agent.drivers.files import FilesDriver\n"
        "print('last words'); asyncio.run(FilesDriver(pathlib.Path(sys.argv[1])).reboot()); print('never')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "node")], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (REBOOT_EXIT, "last words\n")
    assert NodeFiles(tmp_path / "node").reboot.exists()
