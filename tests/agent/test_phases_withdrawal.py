"""An image is withdrawn: its staged copies become unbootable, and nothing else is touched."""

from __future__ import annotations

import pytest

from agent.phases.inputs import SlotsSeen, WorkFailed
from agent.phases.model import Step, WorkKind
from tests.agent.stories import booted_new, ready, updated
from tests.agent.wanted import digest, operation
from tests.agent.world import World, joined
from wire.messages import HealthState, OperationKind, Result


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


def test_what_is_written_over_the_way_back_is_no_way_back() -> None:
    """Rolled back from 2, then 3 and 2 again were written there: that copy of 2 never ran."""
    world = updated(joined())
    world.wait(301)
    for generation, version in ((5, "3"), (6, "4")):
        world.desire(generation, operation(f"stage-{version}", OperationKind.STAGE, version))
        world.run()
        assert world.state.way_back is None and world.slots["a"].version == version
    world.desire(7, operation("plain", OperationKind.DISARM, None))
    world.run()
    assert world.slots["a"].good is False


def test_a_download_that_fails_leaves_the_way_back_known() -> None:
    world = updated(joined())
    world.wait(301)
    world.failures[WorkKind.STAGE] = [WorkFailed(id=0, code="download", text="not found")]
    world.desire(5, operation("next", OperationKind.STAGE, "3"))
    world.run()
    assert world.result("next").result is Result.STAGE_FAILED
    assert world.state.way_back is not None and world.state.way_back.digest == digest("1")


def test_a_withdrawn_way_back_stays_until_the_new_version_has_soaked() -> None:
    world = booted_new(joined())
    withdraw(world, "1")
    world.welcome()
    world.check()
    world.run()
    assert world.state.step is Step.SOAKING and world.slots["a"].good is True
    withdraw_again(world)
    assert world.state.step is Step.SOAKING and world.slots["a"].good is True
    world.wait(61)
    world.check()
    world.run()
    assert world.result("op").result is Result.SUCCEEDED and world.result("z").result is Result.SUCCEEDED
    assert world.slots["a"].good is False and world.state.way_back is None


def withdraw_again(world: World, generation: int = 51) -> None:
    world.desire(generation, operation("z", OperationKind.DISARM, "1"))
    world.run()


def test_a_withdrawn_way_back_of_a_version_that_did_not_prove_itself_stays() -> None:
    world = booted_new(joined())
    world.welcome()
    world.check()
    world.run()
    for _ in range(2):
        world.wait(5)
        world.check(HealthState.UNHEALTHY)
    world.run()
    assert world.result("op").result is Result.UNHEALTHY
    withdraw(world, "1")
    report = world.result("y")
    assert report.result is Result.REFUSED and report.reason.startswith("only-way-back")
    assert world.slots["a"].good is True and world.state.way_back is not None
    world.desire(60, operation("rescue", OperationKind.RESCUE, None))
    world.run()
    withdraw_again(world, 61)
    assert world.slots["a"].good is False
