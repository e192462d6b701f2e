"""A real control plane, and nodes of the `files` driver, as processes; one control plane for a module's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sim.local import LocalNode
from tests.agent.image_server import ImageServer
from tests.e2e.kit import POLICY, ControlPlane, Fleet, publish
from tests.e2e.ledger import Ledger
from tests.e2e.operator_client import Operator


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    plane = ControlPlane(folder)
    plane.start()
    try:
        plane.run("policy", "set", *POLICY, "--reason", "tests")
        files, keys = publish(plane, folder)
        ledger = Ledger.of_file(folder / "control-plane" / "twinroot.db")
        operator = Operator(plane.url, plane.login_link())
        with ImageServer(b"here") as witness:
            made = Fleet(folder, plane, operator, files, keys, ledger, witnesses=f'["{witness.url}"]')
            try:
                yield made
            finally:
                for node in made.nodes:
                    node.stop()
    finally:
        plane.stop()


@pytest.fixture(autouse=True)
def _nodes_of_the_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nodes that a test made leave the fleet with it, however it ends: one left behind holds the next test up."""
    if "fleet" not in request.fixturenames:
        yield
        return
    fleet: Fleet = request.getfixturevalue("fleet")
    before = list(fleet.nodes)
    yield
    for made in [node for node in fleet.nodes if node not in before]:
        fleet.remove(made)


@pytest.fixture
def node(fleet: Fleet) -> LocalNode:
    """A joined, running and confirmed node on 1.0.0, of the test's own."""
    return fleet.node()
