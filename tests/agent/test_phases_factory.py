"""Rolling back into a slot that was filled at the factory: nobody knows its digest."""

from __future__ import annotations

import pytest

from agent.phases.inputs import SlotsSeen
from agent.phases.model import Step
from agent.phases.show import activity
from tests.agent.wanted import digest, operation
from tests.agent.world import Disk, World
from wire.messages import HealthState, OperationKind, Result

BACK = OperationKind.ROLLBACK


def from_the_factory(**changes: object) -> World:
    """On version 2 in slot a; slot b is as it left the factory."""
    passive: dict[str, object] = {"digest": None, "version": "1", "good": True, "tries": None}
    world = World(slots={"a": Disk(digest("2"), "2", True, None), "b": Disk(**(passive | changes))})
    world.start()
    world.welcome()
    world.check()
    world.run()
    return world


def sent_back(world: World) -> World:
    """Up to the trial in the factory's slot."""
    world.desire(1, operation("back", BACK, version=None))
    world.run()
    assert activity(world.state, world.boot_s).target == "1"
    world.grant()
    world.run()
    assert world.state.step is Step.CONFIRMING and world.booted == "b"
    return world


def test_it_is_booted_confirmed_and_soaked() -> None:
    world = sent_back(from_the_factory())
    world.welcome()
    world.check()
    world.run()
    world.wait(61)
    world.check()
    world.run()
    report = world.result("back")
    assert report.result is Result.SUCCEEDED
    assert (report.evidence.booted_slot, report.evidence.booted_digest) == ("b", None)
    shown = activity(world.state, world.boot_s)
    assert shown.outcome is not None and shown.outcome.version == "1"
    assert shown.way_back is not None and shown.way_back.digest == digest("2")
    world.check_quiet()


def test_not_healthy_there_it_comes_back_and_marks_the_slot() -> None:
    world = sent_back(from_the_factory())
    for _ in range(3):
        world.wait(61)
        world.check(HealthState.UNHEALTHY)
        world.run()
    assert world.booted == "a" and world.result("back").result is Result.FELL_BACK
    assert not world.state.failed, "a version is remembered by its digest"
    world.desire(2, operation("again", BACK, version=None))
    world.run()
    assert world.result("again").result is Result.REFUSED and world.booted == "a"


def test_a_boot_that_does_not_come_up_fell_back() -> None:
    world = from_the_factory()
    world.broken = {"1"}
    world.desire(1, operation("back", BACK, version=None))
    world.run()
    world.grant()
    world.run()
    assert world.booted == "a" and world.result("back").result is Result.FELL_BACK


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({"digest": digest("3"), "version": "3"}, "the passive slot holds 3"),
        ({"good": None}, "the passive slot holds 1"),
        ({"good": False}, "the passive slot holds 1"),
        ({"version": None, "good": False}, "the passive slot holds nothing known"),
    ],
)
def test_only_a_confirmed_slot_of_unknown_contents(changes: dict[str, object], holds: str) -> None:
    world = from_the_factory(**changes)
    world.desire(1, operation("back", BACK, version=None))
    world.run()
    report = world.result("back")
    assert report.result is Result.REFUSED
    assert report.reason == f"way-back-gone: {holds}, not a confirmed slot of unknown contents"
    assert not world.done


def test_a_slot_that_is_filled_while_it_waits_for_the_lease_is_not_booted() -> None:
    world = from_the_factory()
    world.desire(1, operation("back", BACK, version=None))
    world.run()
    assert world.state.step is Step.READY
    world.slots["b"] = Disk(digest("9"), "9", None, 0)
    world.give(SlotsSeen(slots=world.shown()))
    world.run()
    assert world.result("back").result is Result.REFUSED and world.booted == "a"
