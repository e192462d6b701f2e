"""kill -9 and power cuts in every step, of the agent, of its machine and of the control plane: all end exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from signal import SIGKILL

import pytest

from agent.phases.model import Step
from app.core.holds import HoldCode
from app.core.policy_json import DAYS as WEEK
from sim.local import LocalNode
from tests.agent.image_server import ImageServer
from tests.e2e import rollouts
from tests.e2e.kit import Fleet
from wire.messages import Result

WAITS = """\
#!/bin/sh
[ ! -e "$(dirname "$0")/../../not-yet" ] || { echo "the database is still starting"; exit 1; }
"""


@pytest.fixture
def slow_image(fleet: Fleet) -> Iterator[tuple[str, ImageServer]]:
    """Version and server of an image whose first download stops half-way, until the server is released."""
    version = f"2.{len(fleet.ledger.images())}.0"
    with ImageServer(b"") as server:
        server.content = fleet.lies_at(version, server.url)
        server.answers = [server.hang_after(len(server.content) // 2)]
        yield version, server


# --- the agent --------------------------------------------------------------------------------------------------


def test_agent_killed_while_it_downloads(fleet: Fleet, node: LocalNode, slow_image: tuple[str, ImageServer]) -> None:
    version, server = slow_image
    operation = fleet.update(node, version)
    fleet.until(node, lambda: server.requests, "it downloads")
    fleet.kill_agent_in(node, Step.STAGING)
    fleet.ended(node, operation, Result.SUCCEEDED)
    assert fleet.row(node)["version"] == version
    assert server.requests[-1][1], "went on where it was"


def test_agent_killed_while_another_node_has_the_lease(fleet: Fleet, node: LocalNode) -> None:
    holder = fleet.node()
    first = fleet.update_from_ready(holder, "1.1.0")
    fleet.until_step(holder, Step.CONFIRMING, Step.SOAKING)
    holder.stop()
    second = fleet.update(node, "1.1.0")
    fleet.wait(node, lambda row: "1 node away, at most 1" in str(row["why"]))
    fleet.kill_agent_in(node, Step.READY)
    fleet.wait(node, lambda row: row["phase"] == "staged" and "1 node away" in str(row["why"]))
    assert node.boot()["slot"] == "A" and not fleet.ledger.leases(second)
    holder.start()
    fleet.ended(holder, first, Result.SUCCEEDED)
    fleet.ended(node, second, Result.SUCCEEDED)


def test_agent_killed_with_the_lease_in_hand(fleet: Fleet) -> None:
    with ImageServer(b"") as witness:
        witness.answers = [witness.hang_after(None)]
        node = fleet.node(witnesses=f'["{witness.url}"]')
        operation = fleet.update(node, "1.1.0")
        fleet.until(node, lambda: witness.requests, "the witness is asked before arming")
        fleet.kill_agent_in(node, Step.ARMING)
        fleet.ended(node, operation, Result.SUCCEEDED)
        assert len(fleet.ledger.leases(operation)) == 1, "the lease in hand still counted"


@pytest.mark.parametrize("step", [Step.REBOOTING, Step.SOAKING])
def test_agent_killed_in_a_short_step(fleet: Fleet, node: LocalNode, step: Step) -> None:
    operation = fleet.update_from_ready(node, "1.1.0")
    fleet.kill_agent_in(node, step)
    fleet.ended(node, operation, Result.SUCCEEDED)
    assert (fleet.row(node)["version"], node.boot()["slot"]) == ("1.1.0", "B")


def test_agent_killed_on_trial(fleet: Fleet) -> None:
    node = fleet.node(check=WAITS)
    (node.root / "not-yet").touch()
    operation = fleet.update(node, "1.1.0")
    fleet.kill_agent_in(node, Step.CONFIRMING)
    fleet.wait(node, lambda row: row["phase"] == "confirming")
    (node.root / "not-yet").unlink()
    fleet.ended(node, operation, Result.SUCCEEDED)
    assert node.boot()["slot"] == "B"


def test_agent_killed_while_it_goes_back(fleet: Fleet, node: LocalNode) -> None:
    operation = fleet.update(node, "1.2.0")
    fleet.kill_agent_in(node, Step.ROLLING_BACK)
    fleet.ended(node, operation, Result.FELL_BACK)
    assert (fleet.row(node)["version"], node.boot()["slot"]) == ("1.0.0", "A")
    assert [failed["version"] for failed in fleet.ledger.failed_versions(fleet.id_of(node))] == ["1.2.0"]


# --- the power --------------------------------------------------------------------------------------------------


def test_power_cut_while_staging(fleet: Fleet, node: LocalNode, slow_image: tuple[str, ImageServer]) -> None:
    version, server = slow_image
    operation = fleet.update(node, version)
    fleet.until(node, lambda: server.requests, "it downloads")
    assert fleet.cut_power_in(node, Step.STAGING) == "A"
    fleet.ended(node, operation, Result.SUCCEEDED)
    causes = [event["cause"] for event in fleet.ledger.events(fleet.id_of(node), "boot")]
    assert causes == ["first seen", "watchdog or power", "operation"]


def test_power_cut_after_staging_boots_the_confirmed_slot(fleet: Fleet, node: LocalNode) -> None:
    with fleet.inhibited(node):
        operation = fleet.update(node, "1.1.0")
        assert fleet.cut_power_in(node, Step.READY) == "A", "staged is never next boot"
        fleet.wait(node, lambda row: row["phase"] == "staged" and "inhibited" in str(row["why"]))
    fleet.ended(node, operation, Result.SUCCEEDED)
    assert len(fleet.ledger.events(fleet.id_of(node), "staged", operation)) == 1, (
        "what is verified is not written again"
    )


@pytest.mark.parametrize("step", [Step.CONFIRMING, Step.SOAKING])
def test_power_cut_on_the_new_slot(fleet: Fleet, step: Step) -> None:
    node = fleet.node(check=WAITS)
    if step is Step.CONFIRMING:
        (node.root / "not-yet").touch()
    operation = fleet.update_from_ready(node, "1.1.0")
    assert fleet.cut_power_in(node, step) == "B", "tries are left, or it is confirmed"
    (node.root / "not-yet").unlink(missing_ok=True)
    fleet.ended(node, operation, Result.SUCCEEDED)
    restarted = fleet.ledger.events(fleet.id_of(node), "soak-restarted", operation)
    assert len(restarted) == (1 if step is Step.SOAKING else 0)


def test_a_slot_on_trial_that_always_loses_its_power_falls_back(fleet: Fleet) -> None:
    node = fleet.node(check=WAITS)
    (node.root / "not-yet").touch()
    operation = fleet.update(node, "1.1.0")
    slots = [fleet.cut_power_in(node, Step.CONFIRMING) for _ in range(3)]
    assert slots == ["B", "B", "A"]
    (node.root / "not-yet").unlink()
    fleet.ended(node, operation, Result.FELL_BACK)
    assert fleet.row(node)["version"] == "1.0.0"


def test_power_cut_to_all_that_a_rollout_has_staged(fleet: Fleet) -> None:
    """It stages outside its window too; until the window opens, every node boots what it has confirmed."""
    later = WEEK[(datetime.now(UTC).weekday() + 3) % 7]
    rollouts.make_group(fleet, "nightly", "cut=yes", f"windows={later} 02:00-03:00 UTC")
    nodes = [fleet.powered_off_node() for _ in range(3)]
    rollouts.join_all(fleet, nodes, [["cut=yes"]] * len(nodes))
    names = {node.name for node in nodes}
    number = rollouts.start(fleet, "nightly", "1.1.0")
    rollouts.until(fleet, number, lambda: {fleet.row(node)["phase"] for node in nodes} == {"staged"}, "all are staged")
    rollouts.until(
        fleet, number, lambda: rollouts.holds(fleet, number, names) == {HoldCode.WINDOW}, "the window holds them"
    )
    boots = {node.name: node.boot()["boot_id"] for node in nodes}
    for node in nodes:
        node.power_cut()
    for node in nodes:
        fleet.until(node, lambda node=node: node.boot()["boot_id"] != boots[node.name], "boots again")
    assert [(node.boot()["slot"], node.boot()["cause"]) for node in nodes] == [("A", "power-cut")] * len(nodes)
    for node in nodes:
        fleet.wait(node, lambda row: row["connection"] == "online" and row["phase"] == "staged")
        slot = next(slot for slot in fleet.ledger.node(fleet.id_of(node))["slots"] if slot["booted"])
        assert (slot["name"], slot["version"], slot["good"]) == ("A", "1.0.0", True)

    fleet.plane.run("group", "set", "nightly", "windows=", "--reason", "now")
    assert rollouts.until_ended(fleet, number)["state"] == "succeeded"
    for node in nodes:
        assert (fleet.row(node)["version"], node.boot()["slot"]) == ("1.1.0", "B")
        assert len(fleet.ledger.events(fleet.id_of(node), "staged")) == 1, "what is verified is not written again"


# --- the control plane ------------------------------------------------------------------------------------------


def test_control_plane_killed_while_a_node_stages(
    fleet: Fleet, node: LocalNode, slow_image: tuple[str, ImageServer]
) -> None:
    version, server = slow_image
    operation = fleet.update(node, version)
    fleet.until(node, lambda: server.requests, "it downloads")
    fleet.kill_plane()
    fleet.wait(node, lambda row: row["connection"] == "online" and row["phase"] == "staging")
    server.released.set()
    fleet.ended(node, operation, Result.SUCCEEDED)
    assert fleet.row(node)["version"] == version


@pytest.mark.parametrize(
    ("version", "step", "result"),
    [
        ("1.1.0", Step.REBOOTING, Result.SUCCEEDED),
        ("1.1.0", Step.SOAKING, Result.SUCCEEDED),
        ("1.2.0", Step.ROLLING_BACK, Result.FELL_BACK),
    ],
)
def test_control_plane_killed(fleet: Fleet, node: LocalNode, version: str, step: Step, result: Result) -> None:
    operation = fleet.update_from_ready(node, version)
    fleet.until_step(node, step)
    fleet.kill_plane()
    fleet.ended(node, operation, result)
    assert fleet.row(node)["version"] == ("1.1.0" if result is Result.SUCCEEDED else "1.0.0")


def test_control_plane_killed_while_a_node_is_ready(fleet: Fleet, node: LocalNode) -> None:
    with fleet.inhibited(node):
        operation = fleet.update(node, "1.1.0")
        fleet.until_step(node, Step.READY)
        fleet.kill_plane()
        fleet.wait(node, lambda row: row["connection"] == "online" and row["phase"] == "staged")
        assert not fleet.ledger.leases(operation)
    fleet.ended(node, operation, Result.SUCCEEDED)


def test_control_plane_killed_before_it_heard_the_end(fleet: Fleet, node: LocalNode) -> None:
    operation = fleet.update_from_ready(node, "1.1.0")
    fleet.until_step(node, Step.SOAKING)
    fleet.plane.process.stop(SIGKILL)
    fleet.until(node, lambda: fleet.state(node).ended, "it ends on the node")
    assert fleet.ledger.operation(operation)["state"] == "open"
    fleet.plane.start()
    fleet.ended(node, operation, Result.SUCCEEDED)
