"""The control plane is away while a healthy node is on trial: its witnesses decide (rule 6)."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from agent.phases.model import Step
from sim.local import LocalNode
from tests.agent.image_server import ImageServer
from tests.e2e.kit import Fleet
from wire.messages import Result


@pytest.fixture
def witness() -> Iterator[ImageServer]:
    with ImageServer(b"here") as server:
        yield server


def on_trial_alone(fleet: Fleet, witness: ImageServer) -> tuple[LocalNode, str]:
    """A node that has booted the new slot after the control plane went away, and its operation."""
    node = fleet.node(witnesses=f'["{witness.url}"]')
    operation = fleet.update_from_ready(node, "1.1.0")
    fleet.until_step(node, Step.REBOOTING)
    fleet.plane.process.stop(signal.SIGKILL)
    fleet.until(node, lambda: node.boot()["slot"] == "B", "the new slot is booted")
    return node, operation


def test_it_stays_on_trial_while_its_witnesses_answer(fleet: Fleet, witness: ImageServer) -> None:
    node, operation = on_trial_alone(fleet, witness)

    def stays() -> bool:
        trial, hold = fleet.state(node).trial, fleet.state(node).hold
        return bool(trial and trial.standing and hold and hold.code == "gateway-away")

    fleet.until(node, stays, "is past its confirm deadline")
    asked = len(witness.requests)
    fleet.until(node, lambda: len(witness.requests) >= asked + 3, "asks its witnesses again and again")
    state = fleet.state(node)
    assert state.step is Step.CONFIRMING and state.booted is not None and not state.booted.confirmed
    fleet.plane.start()
    fleet.ended(node, operation, Result.SUCCEEDED)
    assert (fleet.row(node)["version"], node.boot()["slot"]) == ("1.1.0", "B")
    assert len(fleet.ledger.events(fleet.id_of(node), "boot", operation)) == 1


def test_it_goes_back_when_they_are_away_too_and_nothing_calls_the_version_bad(
    fleet: Fleet, witness: ImageServer
) -> None:
    node, operation = on_trial_alone(fleet, witness)
    witness.close()
    fleet.until(node, lambda: node.boot()["slot"] == "A", "goes back")
    fleet.until(node, lambda: fleet.state(node).ended, "it has ended on the node")
    assert not fleet.state(node).failed
    assert fleet.ledger.operation(operation)["state"] == "open", "nobody has heard of it"

    fleet.plane.start()
    ended = fleet.ended(node, operation, Result.UNREACHABLE)
    assert "neither gateway nor witnesses answered" in ended["result_text"]
    assert (fleet.row(node)["version"], fleet.row(node)["booted_slot"]) == ("1.0.0", "A")
    assert not fleet.ledger.failed_versions(fleet.id_of(node))
    page = fleet.page(node)
    assert "unreachable 1.1.0" in page and "Will not try" not in page and "marked bad" not in page

    again = fleet.update(node, "1.1.0")
    fleet.ended(node, again, Result.SUCCEEDED)
    assert not fleet.ledger.events(fleet.id_of(node), "staged", again), "its copy was good all the time"


def test_before_arming_nothing_is_started_without_the_control_plane(fleet: Fleet, node: LocalNode) -> None:
    with fleet.inhibited(node):
        operation = fleet.update(node, "1.1.0")
        fleet.wait(node, lambda row: row["phase"] == "staged")
        fleet.plane.stop()
    fleet.until(node, lambda: not fleet.state(node).inhibitors and fleet.link_says(node) != "", "it is alone")
    assert fleet.step(node) is Step.READY and node.boot()["slot"] == "A"
    fleet.plane.start()
    fleet.ended(node, operation, Result.SUCCEEDED)
