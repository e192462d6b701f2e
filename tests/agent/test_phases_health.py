"""Health that flaps, comes late or is not known; a tool that fails on trial; suspended machines."""

from __future__ import annotations

import pytest

from agent.phases.inputs import WorkFailed
from agent.phases.model import Step, WorkKind
from tests.agent.stories import armed, ready
from tests.agent.world import LEASE_S, World
from wire.messages import (
    HealthState,
    Result,
)


def soaking() -> World:
    world = armed(ready())
    world.run()
    world.welcome()
    world.check()
    world.run()
    assert world.state.step is Step.SOAKING
    return world


def test_flapping_through_the_soak_is_not_healthy() -> None:
    world = soaking()
    for _ in range(6):
        world.check(HealthState.UNHEALTHY)
        world.check()
        world.wait(5)
        world.run()
    assert world.result("op").result is Result.UNHEALTHY


def test_hiccups_far_apart_are_forgiven() -> None:
    world = soaking()
    for _ in range(3):
        world.check(HealthState.UNHEALTHY)
        for _ in range(12):
            world.check()
        world.wait(20)
        world.run()
    world.wait(5)
    world.check()
    assert world.result("op").result is Result.SUCCEEDED


def test_bad_rounds_before_the_confirmation_do_not_count_in_the_soak() -> None:
    world = armed(ready())
    world.run()
    world.welcome()
    for _ in range(5):
        world.check(HealthState.UNHEALTHY)
    world.check()
    world.run()
    world.check()
    assert world.state.step is Step.SOAKING


def test_a_soak_does_not_end_well_while_health_is_unknown() -> None:
    world = soaking()
    world.check(HealthState.UNKNOWN)
    world.wait(61)
    world.run()
    assert world.state.step is Step.SOAKING
    world.check()
    assert world.result("op").result is Result.SUCCEEDED


def test_a_soak_whose_health_stays_unknown_ends_unknown_and_fails_no_version() -> None:
    world = soaking()
    for _ in range(10):
        world.wait(30)
        world.check(HealthState.UNKNOWN)
        world.run()
    assert world.result("op").result is Result.UNKNOWN
    assert world.state.failed == [] and world.state.way_back is not None and world.state.way_back.left is None


@pytest.mark.parametrize("broken", [WorkKind.MARK_BAD, WorkKind.ARM])
def test_a_new_version_that_broke_the_tool_is_left_all_the_same(broken: WorkKind) -> None:
    """The boot loader counts tries: a reboot needs no tool."""
    world = armed(ready())
    world.run()
    world.failures[broken] = [WorkFailed(id=0, code="tool", text="no bus")] * 1000
    world.welcome()
    world.check(HealthState.UNHEALTHY)
    for _ in range(40):
        world.wait(121)
        world.run()
    assert world.booted == "a" and world.result("op").result is Result.FELL_BACK


def test_suspended_time_is_no_silence_of_checks_and_no_trial() -> None:
    world = armed(ready())
    world.run()
    world.welcome()
    world.check(HealthState.UNHEALTHY)
    world.sleep(100_000)
    world.run()
    assert world.state.step is Step.CONFIRMING
    world.check()
    world.run()
    assert world.state.step is Step.SOAKING
    world.sleep(100_000)
    world.check()
    assert world.state.step is Step.SOAKING, "nobody saw it healthy meanwhile"
    world.wait(61)
    world.check()
    assert world.result("op").result is Result.SUCCEEDED


def test_a_lease_runs_out_while_the_machine_is_suspended() -> None:
    world = ready()
    world.grant()
    world.sleep(LEASE_S + 1)
    world.run()
    assert WorkKind.ARM not in world.done and world.state.step is Step.READY


def test_a_mark_that_fails_does_not_keep_an_unhealthy_slot() -> None:
    world = armed(ready())
    world.run()
    world.failures[WorkKind.MARK_GOOD] = [WorkFailed(id=0, code="tool", text="no bus")] * 1000
    world.welcome()
    world.check()
    world.run()
    for _ in range(10):
        world.check(HealthState.UNHEALTHY)
        world.wait(60)
        world.run()
    assert world.result("op").result is Result.FELL_BACK and world.booted == "a"


def test_a_check_that_passes_at_the_very_deadline_confirms() -> None:
    world = armed(ready())
    world.run()
    world.welcome()
    world.check(HealthState.UNHEALTHY)
    assert world.state.trial is not None
    world.boot_s = world.state.trial.until_s
    world.check()
    world.run()
    assert world.state.step is Step.SOAKING


def test_a_gateway_that_welcomes_and_dies_has_welcomed() -> None:
    world = armed(ready())
    world.run()
    world.welcome()
    world.lose_link()
    world.standing = False
    world.check()
    world.run()
    assert world.state.step is Step.SOAKING
