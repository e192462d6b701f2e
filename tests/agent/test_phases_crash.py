"""kill -9 and power cuts at every point of a whole operation: it goes on and ends exactly once."""

from __future__ import annotations

import pytest

from agent.phases.model import Step, WorkKind
from tests.agent.wanted import operation
from tests.agent.world import World, joined
from wire.messages import HealthState, OperationKind, Result

MOST = 400


def drive(world: World, *, cut_at: int = -1, how: str = "crash", health: HealthState = HealthState.HEALTHY) -> int:
    """Play gateway and clock until the operation has ended; one accident before the given command.

    Returns how many commands there were.
    """
    count = 0
    for _ in range(MOST):
        while world.todo:
            if count == cut_at:
                _accident(world, how)
            count += 1
            if world.todo:
                world.one()
            world.check_quiet()
        if world.reports and world.state.step is Step.IDLE and not world.state.work:
            assert not world.drained_by and world.state.drained is None
            return count
        if not world.linked:
            world.welcome()
        elif world.state.asking is not None:
            world.grant()
        else:
            world.wait(20)
            world.check(health)
    raise AssertionError(f"did not end: {world.state.step} {world.state.hold} {world.state.work}")


def _accident(world: World, how: str) -> None:
    match how:
        case "crash":
            world.crash()
        case "power cut":
            world.power_cut()
        case "answer lost":
            world.answer_lost = True


def begun(kind: OperationKind = OperationKind.ACTIVATE, drain: str = "") -> World:
    world = joined()
    world.desire(1, operation("op", kind, None if kind is OperationKind.REBOOT else "2", drain=drain, drain_s=60.0))
    return world


UNDISTURBED = drive(begun())


@pytest.mark.parametrize("how", ["crash", "power cut", "answer lost"])
@pytest.mark.parametrize("cut_at", range(UNDISTURBED))
def test_an_update_survives_an_accident_anywhere(cut_at: int, how: str) -> None:
    world = begun()
    drive(world, cut_at=cut_at, how=how)
    result = world.result("op").result
    assert len(world.reports) == 1
    if how == "power cut":
        # Cut between arming under the lease and the reboot: whatever booted, the verdict says what was seen.
        expected = Result.SUCCEEDED if world.booted == "b" else Result.NEVER_SWITCHED
        assert result is expected
    else:
        assert result is Result.SUCCEEDED and world.booted == "b"
    assert world.slots[world.booted].good is True and world.next_boot == world.booted
    assert world.state.booted is not None and world.state.booted.confirmed


UNHEALTHY = drive(begun(), health=HealthState.UNHEALTHY)


@pytest.mark.parametrize("how", ["crash", "power cut", "answer lost"])
@pytest.mark.parametrize("cut_at", range(UNHEALTHY))
def test_going_back_survives_an_accident_anywhere(cut_at: int, how: str) -> None:
    world = begun()
    drive(world, cut_at=cut_at, how=how, health=HealthState.UNHEALTHY)
    allowed = {Result.FELL_BACK, Result.NEVER_SWITCHED} if how == "power cut" else {Result.FELL_BACK}
    assert world.result("op").result in allowed and len(world.reports) == 1
    assert world.booted == "a" and world.slots["a"].good is True and world.next_boot == "a"


REBOOT = drive(begun(OperationKind.REBOOT))


@pytest.mark.parametrize("how", ["crash", "power cut", "answer lost"])
@pytest.mark.parametrize("cut_at", range(REBOOT))
def test_a_reboot_survives_an_accident_anywhere(cut_at: int, how: str) -> None:
    world = begun(OperationKind.REBOOT)
    drive(world, cut_at=cut_at, how=how)
    assert world.result("op").result is Result.SUCCEEDED and world.booted == "a"


DRAINED = drive(begun(drain="move"))


@pytest.mark.parametrize("health", [HealthState.HEALTHY, HealthState.UNHEALTHY])
@pytest.mark.parametrize("how", ["crash", "power cut", "answer lost"])
@pytest.mark.parametrize("cut_at", range(DRAINED))
def test_a_drained_node_is_undrained_after_an_accident_anywhere(cut_at: int, how: str, health: HealthState) -> None:
    world = begun(drain="move")
    drive(world, cut_at=cut_at, how=how, health=health)
    good = health is HealthState.HEALTHY
    allowed = {Result.SUCCEEDED} if good else {Result.FELL_BACK}
    if how == "power cut":
        allowed |= {Result.NEVER_SWITCHED}
    assert world.result("op").result in allowed and len(world.reports) == 1
    assert world.kinds().count("drained") <= world.done.count(WorkKind.DRAIN)
    assert world.next_boot == world.booted


def test_the_undisturbed_runs_are_what_they_seem() -> None:
    assert UNDISTURBED >= 6 and UNHEALTHY >= 8 and REBOOT >= 4 and DRAINED >= UNDISTURBED + 2
