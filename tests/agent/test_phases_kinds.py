"""Each kind of operation: reboot, roll back, disarm, rescue; and how long the way back is kept."""

from __future__ import annotations

from agent.phases.model import Step, WorkKind
from agent.phases.show import holds
from tests.agent.stories import codes, ready, updated
from tests.agent.wanted import operation
from tests.agent.world import World, joined
from wire.messages import (
    HealthState,
    OperationKind,
    Result,
)

UNHEALTHY = HealthState.UNHEALTHY


def test_reboot_operation_needs_a_lease_and_ends_when_confirmed() -> None:
    world = ready(OperationKind.REBOOT)
    world.grant()
    world.run()
    assert world.boots == 2 and world.booted == "a" and world.state.step is Step.CONFIRMING
    world.welcome()
    world.check()
    world.run()
    assert world.result("op").result is Result.SUCCEEDED
    assert world.state.way_back is None


def test_reboot_operation_that_is_not_healthy_stays() -> None:
    world = ready(OperationKind.REBOOT)
    world.grant()
    world.run()
    world.welcome()
    world.check(UNHEALTHY)
    world.wait(121)
    world.run()
    assert world.result("op").result is Result.UNHEALTHY
    assert world.state.failed == [] and world.booted == "a"


def test_rollback_boots_the_way_back_without_download() -> None:
    world = updated(joined())
    world.desire(5, operation("back", OperationKind.ROLLBACK, "1"))
    world.run()
    world.grant()
    world.run()
    world.welcome()
    world.check()
    world.run()
    world.wait(61)
    world.check()
    assert world.result("back").result is Result.SUCCEEDED and world.booted == "a"
    assert world.done.count(WorkKind.STAGE) == 1


def test_disarm_makes_the_staged_copy_unbootable() -> None:
    world = joined()
    world.desire(1, operation("x", OperationKind.STAGE))
    world.run()
    world.desire(2, operation("y", OperationKind.DISARM, None))
    world.run()
    assert world.result("y").result is Result.SUCCEEDED
    assert world.slots["b"].good is False and world.next_boot == "a"
    world.desire(3, operation("z"))
    world.run()
    assert world.done.count(WorkKind.STAGE) == 2, "a withdrawn copy is not trusted again"


def test_disarm_spares_the_way_back() -> None:
    world = updated(joined())
    world.desire(5, operation("y", OperationKind.DISARM, None))
    world.run()
    assert world.result("y").result is Result.SUCCEEDED and world.slots["a"].good is True


def test_rescue_confirms_and_frees_the_way_back() -> None:
    world = World()
    world.slots["a"].good = None
    world.start()
    world.welcome()
    world.desire(1, operation("x"))
    world.run()
    assert codes(world)[0] == "not-confirmed" and world.state.step is Step.HELD
    world.desire(2, operation("r", OperationKind.RESCUE, None))
    world.run()
    assert world.result("r").result is Result.SUCCEEDED
    assert world.state.booted.confirmed and "rescued" in world.kinds() and "confirmed" in world.kinds()


def test_the_way_back_is_kept() -> None:
    world = updated(joined())
    world.desire(5, operation("next", version="3"))
    world.run()
    assert world.state.step is Step.HELD and codes(world) == ["keeping-way-back"]
    assert "5 min" in holds(world.state, world.boot_s)[0].text
    world.wait(150)
    world.power_cut()
    world.welcome()
    world.run()
    assert world.state.step is Step.HELD, "a reboot does not shorten it"
    world.wait(301)
    world.run()
    assert world.state.step is Step.READY and world.slots["a"].version == "3"
