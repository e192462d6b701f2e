"""An image is withdrawn: its staged copies become unbootable, and nothing else is touched."""

from __future__ import annotations

import pytest

from agent.phases.inputs import SlotsSeen
from agent.phases.model import Step, WorkKind
from tests.agent.stories import booted_new, ready, updated
from tests.agent.wanted import operation
from tests.agent.world import World, joined
from wire.messages import OperationKind, Result


def staged() -> World:
    world = joined()
    world.desire(1, operation("x", OperationKind.STAGE))
    world.run()
    return world


def withdraw(world: World, version: str | None) -> None:
    world.done.clear()
    world.desire(50, operation("y", OperationKind.DISARM, version))
    world.run()


def test_the_staged_copy_is_made_unbootable_and_refused_until_it_is_written_anew() -> None:
    world = staged()
    withdraw(world, "2")
    assert world.result("y").result is Result.SUCCEEDED
    assert world.slots["b"].good is False and world.next_boot == "a" and world.state.staged is None
    world.desire(51, operation("back", OperationKind.ROLLBACK, "2"))
    world.run()
    report = world.result("back")
    assert report.result is Result.REFUSED and report.reason.startswith("way-back-bad")
    world.desire(52, operation("again"))
    world.run()
    assert world.done.count(WorkKind.STAGE) == 1 and world.state.step is Step.READY


def test_an_operation_that_waits_for_its_lease_ends_first() -> None:
    world = ready()
    withdraw(world, "2")
    assert world.result("op").result is Result.CANCELLED and world.result("y").result is Result.SUCCEEDED
    assert world.slots["b"].good is False


@pytest.mark.parametrize("version", ["3", "2"])
def test_where_it_is_not_staged_nothing_is_touched(version: str) -> None:
    world = joined() if version == "2" else staged()
    before = world.shown()
    withdraw(world, version)
    report = world.result("y")
    assert (
        report.result is Result.SUCCEEDED
        and report.reason == f"{version} is not in the passive slot: nothing was touched"
    )
    assert world.shown() == before and world.done == []


def test_where_it_runs_nothing_is_touched_and_the_way_back_stays() -> None:
    world = updated(joined())
    before, way_back = world.shown(), world.state.way_back
    withdraw(world, "2")
    report = world.result("y")
    assert report.result is Result.SUCCEEDED and report.reason == "slot b (2) runs it: nothing was touched"
    assert world.shown() == before and world.state.way_back == way_back and world.done == []


def test_where_it_is_on_trial_the_trial_ends_first() -> None:
    world = booted_new(joined())
    withdraw(world, "2")
    assert world.state.step is Step.CONFIRMING
    world.welcome()
    world.check()
    world.run()
    assert world.result("y").reason == "slot b (2) runs it: nothing was touched"
    assert world.booted == "b" and world.slots["b"].good is True


def test_a_way_back_that_is_withdrawn_is_none_any_more() -> None:
    world = updated(joined())
    withdraw(world, "1")
    assert world.slots["a"].good is False and world.state.way_back is None
    world.desire(51, operation("next", version="3"))
    world.run()
    assert world.state.step is Step.READY, "there is nothing left to keep"


def test_without_an_image_the_staged_copy_goes_and_the_way_back_stays() -> None:
    world = updated(joined())
    withdraw(world, None)
    assert world.slots["a"].good is True and world.state.way_back is not None


def test_a_roll_back_that_waits_sees_that_its_slot_was_marked_bad() -> None:
    world = updated(joined())
    world.desire(5, operation("back", OperationKind.ROLLBACK, "1"))
    world.run()
    assert world.state.step is Step.READY
    world.slots["a"].good = False
    world.give(SlotsSeen(slots=world.shown()))
    assert world.result("back").reason.startswith("way-back-bad")
