"""Simulated nodes on real connections: `twinroot sim` as a process beside `twinroot up` as another."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.commands.sim import sim
from app.services import nodes as verbs
from app.store.database import open_database
from sim.crowd import Crowd, Place
from sim.dialling import SimError, allow_files, source_address
from sim.local import LocalProcess, free_port, wait_until
from sim.scenario import parse_scenario
from tests.e2e.kit import ControlPlane, publish
from tests.e2e.ledger import Ledger, Row
from tests.server_kit import OPERATOR
from wire.messages import Result

NODES = 50
SCENARIO = f"""
seed = 3
[fleet]
nodes = {NODES}
os = "twinroot-demo"
labels = {{ role = "edge" }}
[durations]
boot_s = 0.2
shutdown_s = 0.1
containers_s = 0.1
download_mib_s = 50
checks_s = 0.3
trial_checks_s = 0.2
[[services]]
name = "api"
replicas = 10
[[faults]]
kind = "no-boot"
version = "1.1.0"
nodes = [2]
"""


class Running:
    """A control plane with a simulated fleet that has joined it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plane = ControlPlane(folder)
        self.fleet = LocalProcess("sim", [], folder / "sim.log", self.plane.environ)

    def begin(self) -> None:
        folder = self.folder
        self.plane.start()
        self.plane.run("policy", "set", "soak_s=1", "confirm_s=6", "lease_s=30", "--reason", "tests")
        publish(self.plane, folder)
        self.ledger = Ledger.of_file(folder / "control-plane" / "twinroot.db")
        self.database_url = f"sqlite:///{folder / 'control-plane' / 'twinroot.db'}"
        _, _, self.url, token, _, fingerprint = self.plane.join_command("--admit", "--uses", "500")
        scenario = folder / "fleet.toml"
        scenario.write_text(SCENARIO)
        options = ["--url", self.url, "--token", token, "--fingerprint", fingerprint]
        command = [sys.executable, "-m", "app.cli", "sim", str(scenario), *options]
        self.fleet = LocalProcess("sim", command, folder / "sim.log", self.plane.environ)
        self.fleet.start()

    def rows(self) -> list[Row]:
        return self.ledger.nodes()

    def node(self, name: str) -> Row:
        return next(row for row in self.rows() if row["name"] == name)

    def update(self, name: str, version: str) -> str:
        with closing(open_database(self.database_url)) as db:
            image = self.ledger.image_id(version)
            return verbs.update(db, OPERATOR, str(self.node(name)["id"]), image, "test", time.time())

    def until(self, condition: object, what: str) -> None:
        try:
            wait_until(condition, what)  # type: ignore[arg-type]
        except Exception as error:
            error.add_note(f"{self.fleet.tail()}\n{self.plane.process.tail(10)}")
            raise


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Running(tmp_path_factory.mktemp("sim"))
    try:
        made.begin()
        made.until(lambda: sum(row["connection"] == "online" for row in made.rows()) == NODES, "all are online")
        yield made
    finally:
        made.fleet.stop()
        made.plane.stop()


def test_the_fleet_joins_and_shows_what_it_is(running: Running) -> None:
    rows = running.rows()
    assert {row["name"] for row in rows} == {f"sim-{number:05}" for number in range(1, NODES + 1)}
    assert {row["admission"] for row in rows} == {"admitted"}
    assert {row["labels"]["zone"] for row in rows} == {"a", "b", "c"}
    running.until(lambda: all(row["health_state"] == "healthy" for row in running.rows()), "all are healthy")


def test_one_is_updated_and_one_falls_back(running: Running) -> None:
    good, bad = running.update("sim-00001", "1.1.0"), running.update("sim-00002", "1.1.0")
    for operation, result in ((good, Result.SUCCEEDED), (bad, Result.FELL_BACK)):
        running.until(lambda operation=operation: running.ledger.operation(operation)["state"] == "ended", "it ends")
        assert running.ledger.operation(operation)["result"] == result
    slots = {row["name"]: [slot["version"] for slot in row["slots"] if slot["booted"]] for row in running.rows()}
    assert (slots["sim-00001"], slots["sim-00002"]) == (["1.1.0"], ["1.0.0"])


def test_it_stops_in_order(running: Running) -> None:
    assert running.fleet.stop() == 0
    assert "Stopped." in running.fleet.tail()
    running.until(lambda: not any(row["gateway_id"] for row in running.rows()), "the gateway has let all go")


def test_a_token_that_is_unknown_ends_the_run(running: Running, tmp_path: Path) -> None:
    scenario = tmp_path / "fleet.toml"
    scenario.write_text("[fleet]\nnodes = 2\n")
    done = CliRunner().invoke(sim, [str(scenario), "--url", running.url, "--token", "trj_wrong", "--for", "30"])
    assert done.exit_code == 1
    assert "the join of sim-0000" in done.output and "was refused" in done.output


def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    scenario = tmp_path / "fleet.toml"
    scenario.write_text("")
    url = f"ws://127.0.0.1:{free_port()}/agent"
    done = CliRunner().invoke(sim, [str(scenario), "--url", url, "--token", "trj_x", "--nodes", "1", "--seed", "5"])
    assert done.exit_code == 1
    assert done.output.strip() == f"Error: {url}: Connection refused"


def test_a_bad_scenario_is_one_line(tmp_path: Path) -> None:
    scenario = tmp_path / "fleet.toml"
    scenario.write_text("[fleet]\nnodes = -1\n")
    done = CliRunner().invoke(sim, [str(scenario), "--url", "ws://127.0.0.1:1/agent", "--token", "trj_x"])
    assert done.exit_code == 1
    assert "`fleet.nodes`" in done.output


def test_large_fleets_use_more_loopback_addresses() -> None:
    assert source_address("ws://127.0.0.1:8090/agent", 20_000) is None
    assert source_address("ws://127.0.0.1:8090/agent", 20_001) == ("127.0.0.3", 0)
    assert source_address("ws://localhost:8090/agent", 50_000) == ("127.0.0.4", 0)
    assert source_address("wss://gateway.example/agent", 50_000) is None


def test_too_few_files_are_an_error_before_anything_is_connected() -> None:
    with pytest.raises(SimError, match="ulimit -n"):
        allow_files(10**10)


def test_a_run_that_is_cancelled_leaves_no_task_behind() -> None:
    async def run() -> None:
        crowd = Crowd(parse_scenario("[fleet]\nnodes = 3\n"), Place(f"ws://127.0.0.1:{free_port()}/agent", "trj_x"))
        with pytest.raises(SimError):
            await crowd.run()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
