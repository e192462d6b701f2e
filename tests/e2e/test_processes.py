"""`twinroot web`, `gateway` and `conductor` as processes of their own on PostgreSQL: each may die in mid-update."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.phases.model import Step
from sim.local import LocalNode, LocalProcess, wait_until
from tests import postgres
from tests.agent.image_server import ImageServer
from tests.e2e.kit import POLICY, ControlPlane, Fleet, publish
from tests.e2e.ledger import Ledger
from tests.e2e.operator_client import Operator
from wire.messages import Result

DATABASE = "twinroot_processes"


class Processes(ControlPlane):
    """One process for each part; `process` is the gateway, which the kit asks for its last words."""

    def __init__(self, folder: Path, database_url: str) -> None:
        super().__init__(folder, TWINROOT_DATABASE_URL=database_url)
        self.web, self.process, self.conductor = (self.part(name) for name in ("web", "gateway", "conductor"))
        self.second_conductor = self.part("conductor", "conductor-2")

    def part(self, command: str, name: str = "") -> LocalProcess:
        words = [sys.executable, "-m", "app.cli", command]
        return LocalProcess(f"twinroot {command}", words, self.folder / f"{name or command}.log", self.environ)

    def start(self) -> None:
        migrated = self.part("migrate")
        migrated.start()
        wait_until(lambda: not migrated.running, "the database is migrated")
        assert migrated.stop() == 0, migrated.tail()
        for part in (self.web, self.process, self.conductor):
            part.start()
        self.until_ready()

    def until_ready(self) -> None:
        wait_until(self._ready, f"web and gateway are ready: {self.web.tail(5)} {self.process.tail(5)}")

    def stop(self) -> None:
        for part in (self.second_conductor, self.conductor, self.process, self.web):
            part.stop()


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory, postgres_server: str) -> Iterator[Processes]:
    postgres.execute(postgres_server, f"CREATE DATABASE {DATABASE}")
    made = Processes(tmp_path_factory.mktemp("processes"), postgres.url(postgres_server, DATABASE))
    try:
        made.start()
        yield made
    finally:
        made.stop()
        postgres.execute(postgres_server, f"DROP DATABASE {DATABASE} WITH (FORCE)")


@pytest.fixture(scope="module")
def fleet(plane: Processes, postgres_server: str) -> Iterator[Fleet]:
    plane.run("policy", "set", *POLICY, "--reason", "tests")
    files, keys = publish(plane, plane.folder)
    ledger = Ledger(postgres.url(postgres_server, DATABASE))
    made = Fleet(plane.folder, plane, Operator(plane.url, plane.login_link()), files, keys, ledger)
    yield made
    for node in made.nodes:
        node.stop()


def killed(part: LocalProcess) -> None:
    assert part.stop(signal.SIGKILL) == -signal.SIGKILL


@pytest.fixture
def witness() -> Iterator[ImageServer]:
    """What a node on trial goes by until the gateway is back."""
    with ImageServer(b"here") as server:
        yield server


@pytest.mark.parametrize(
    ("version", "step", "result"),
    [
        ("1.1.0", Step.STAGING, Result.SUCCEEDED),
        ("1.1.0", Step.CONFIRMING, Result.SUCCEEDED),
        ("1.2.0", Step.CONFIRMING, Result.FELL_BACK),
    ],
)
def test_the_gateway_is_killed(
    fleet: Fleet, plane: Processes, witness: ImageServer, version: str, step: Step, result: Result
) -> None:
    node = fleet.node(witnesses=f'["{witness.url}"]')
    operation = fleet.update(node, version)
    order = list(Step)
    fleet.until_step(node, *order[order.index(step) :])  # a short step may be over before anybody sees it
    killed(plane.process)
    plane.process.start()
    plane.until_ready()
    fleet.ended(node, operation, result)
    assert fleet.row(node)["version"] == ("1.1.0" if result is Result.SUCCEEDED else "1.0.0")
    assert len(fleet.ledger.leases(operation)) == 1


def test_of_two_conductors_one_is_killed(fleet: Fleet, plane: Processes) -> None:
    plane.second_conductor.start()
    nodes = [fleet.node(), fleet.node()]
    operations = [fleet.update(node, "1.1.0") for node in nodes]
    fleet.until(nodes[0], lambda: any(fleet.ledger.leases(operation) for operation in operations), "a lease is out")
    killed(plane.conductor)
    for node, operation in zip(nodes, operations, strict=True):
        fleet.ended(node, operation, Result.SUCCEEDED, timeout_s=90)
        assert len(fleet.ledger.leases(operation)) == 1
    first, second = sorted(
        (lease for operation in operations for lease in fleet.ledger.leases(operation)),
        key=lambda lease: lease["granted_at"],
    )
    assert first["ended_at"] <= second["granted_at"], "one at a time"
    plane.conductor.start()
    assert plane.second_conductor.stop() == 0


def test_without_the_web_nodes_go_on(fleet: Fleet, plane: Processes, node: LocalNode) -> None:
    with fleet.inhibited(node):
        operation = fleet.update(node, "1.1.0")
        fleet.until_step(node, Step.READY)
        killed(plane.web)
    fleet.until(node, lambda: fleet.ledger.operation(operation)["state"] == "ended", "it ends without any page")
    plane.web.start()
    plane.until_ready()
    fleet.ended(node, operation, Result.SUCCEEDED)


def test_each_part_ends_cleanly(fleet: Fleet, plane: Processes) -> None:
    """SIGTERM: no traceback, nothing lost, and all of it comes back."""
    node = fleet.node()
    for part in (plane.conductor, plane.process, plane.web):
        assert part.stop(signal.SIGTERM) == 0, part.tail()
        assert "Traceback" not in part.log.read_text()
    for part in (plane.web, plane.process, plane.conductor):
        part.start()
    plane.until_ready()
    fleet.ended(node, fleet.update(node, "1.1.0"), Result.SUCCEEDED)
