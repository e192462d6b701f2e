"""A person confirms the slot on trial as it is: at once, and the way back stays protected."""

from __future__ import annotations

import pytest

from agent.phases.inputs import WorkFailed
from agent.phases.model import Step, WorkKind
from agent.phases.show import holds
from tests.agent.wanted import operation
from tests.agent.world import World, joined
from wire.messages import HealthState, OperationKind, Result

UNHEALTHY = HealthState.UNHEALTHY


def on_trial(kind: OperationKind = OperationKind.ACTIVATE) -> World:
    world = joined()
    world.desire(1, operation("op", kind, None if kind is OperationKind.REBOOT else "2"))
    world.run()
    world.grant()
    world.run()
    assert world.state.step is Step.CONFIRMING
    return world


def rescue(world: World) -> None:
    world.desire(5, operation("r", OperationKind.RESCUE, None))
    world.run()


@pytest.mark.parametrize("welcomed", [True, False])
@pytest.mark.parametrize("health", [UNHEALTHY, HealthState.UNKNOWN, HealthState.HEALTHY, None])
def test_rescue_on_trial_confirms_at_once(health: HealthState | None, welcomed: bool) -> None:
    world = on_trial()
    if welcomed:
        world.welcome()
    if health is not None and health is not HealthState.HEALTHY:
        world.check(health)
    rescue(world)
    assert world.result("r").result is Result.SUCCEEDED and world.state.step is Step.IDLE
    report = world.result("op")
    assert (report.result, report.reason) == (Result.CANCELLED, "superseded by r")
    assert world.booted == "b" and world.next_boot == "b" and world.slots["b"].good is True
    assert world.state.booted is not None and world.state.booted.confirmed
    assert world.state.failed == [] and "rescued" in world.kinds() and "confirmed" in world.kinds()
    world.check(UNHEALTHY)
    world.wait(1000)
    world.run()
    assert world.booted == "b" and world.boots == 2, "nothing goes back after a person decided"


def test_the_slot_is_confirmed_before_the_operation_ends() -> None:
    """The budget returns with the report: by then the node must be seen confirmed."""
    world = on_trial()
    world.desire(5, operation("r", OperationKind.RESCUE, None))
    assert not world.reports, "not while the mark is under way"
    world.one()
    assert world.slots["b"].good is True and world.result("op").result is Result.CANCELLED


def test_the_way_back_stays_protected_as_in_a_soak_cut_short() -> None:
    world = on_trial()
    rescue(world)
    kept = world.state.way_back
    assert kept is not None and kept.slot == "a" and kept.left is not None
    assert kept.left.at(world.boot_s) == pytest.approx(360), "soak and keep_way_back_s"
    world.welcome()
    world.desire(6, operation("next", version="3"))
    world.run()
    assert [hold.code for hold in holds(world.state, world.boot_s)] == ["keeping-way-back"]
    world.desire(7, operation("back", OperationKind.ROLLBACK, "1"))
    world.run()
    assert world.state.step is Step.READY


def test_rescue_frees_a_way_back_that_waits_for_a_person() -> None:
    world = on_trial()
    world.welcome()
    world.check()
    world.run()
    world.check(UNHEALTHY)
    world.check(UNHEALTHY)
    world.run()
    assert world.state.way_back is not None and world.state.way_back.left is None
    rescue(world)
    world.desire(6, operation("next", version="3"))
    world.run()
    assert world.state.step is Step.READY and world.slots["a"].version == "3"


def test_rescue_of_a_reboot_on_trial() -> None:
    world = on_trial(OperationKind.REBOOT)
    world.check(UNHEALTHY)
    rescue(world)
    assert world.result("op").result is Result.CANCELLED and world.result("r").result is Result.SUCCEEDED
    assert world.state.way_back is None


def test_rescue_waits_for_a_mark_that_fails_and_never_goes_back() -> None:
    world = on_trial()
    world.failures[WorkKind.MARK_GOOD] = [WorkFailed(id=0, code="tool", text="no bus")] * 4
    world.check(UNHEALTHY)
    world.desire(5, operation("r", OperationKind.RESCUE, None))
    for _ in range(5):
        world.run()
        world.check(UNHEALTHY)
        world.wait(90)
    world.run()
    assert world.boots == 2 and world.result("r").result is Result.SUCCEEDED


@pytest.mark.parametrize("cut", ["crash", "answer lost"])
@pytest.mark.parametrize("at", range(4))
def test_rescue_survives_an_accident_anywhere(at: int, cut: str) -> None:
    world = on_trial()
    world.check(UNHEALTHY)
    world.desire(5, operation("r", OperationKind.RESCUE, None))
    for count in range(20):
        if count == at:
            if cut == "crash":
                world.crash()
            else:
                world.answer_lost = True
        if world.todo:
            world.one()
    assert world.result("r").result is Result.SUCCEEDED and world.result("op").result is Result.CANCELLED
    assert len(world.reports) == 2 and world.booted == "b"


def test_a_rescue_that_has_ended_ends_no_later_trial() -> None:
    world = on_trial()
    rescue(world)
    world.welcome()
    world.acknowledge()
    world.wait(400)
    world.desire(6, operation("next", version="3"))
    world.run()
    world.grant()
    world.run()
    assert world.state.step is Step.CONFIRMING and world.booted == "a"
    world.desire(7, operation("r", OperationKind.RESCUE, None))
    world.run()
    assert world.state.step is Step.CONFIRMING, "it was said again, not decided again"
    world.welcome()
    world.check()
    world.run()
    assert world.state.step is Step.SOAKING


def test_going_back_under_way_is_not_stopped() -> None:
    world = on_trial()
    world.check(UNHEALTHY)
    world.wait(121)
    assert world.state.step is Step.ROLLING_BACK
    world.desire(5, operation("r", OperationKind.RESCUE, None))
    world.run()
    assert world.booted == "a" and world.result("op").result is Result.FELL_BACK
    assert world.result("r").result is Result.SUCCEEDED
