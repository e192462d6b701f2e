"""After the reboot: confirmed, gone back by itself, soaked."""

from __future__ import annotations

import msgspec
import pytest

from agent.phases.inputs import SlotsSeen
from agent.phases.model import Step
from tests.agent.stories import booted_new, codes, ready
from tests.agent.wanted import digest, operation
from tests.agent.world import joined
from wire.messages import (
    BootCause,
    HealthState,
    OperationKind,
    Result,
)

UNHEALTHY = HealthState.UNHEALTHY


def test_an_image_that_does_not_boot_falls_back_and_is_remembered() -> None:
    world = ready()
    world.broken.add("2")
    world.grant()
    world.run()
    report = world.result("op")
    assert (report.result, report.reason) == (Result.FELL_BACK, "did not boot")
    assert [failed.version for failed in world.state.failed] == ["2"]
    assert world.booted == "a" and world.slots["b"].good is False
    assert [event.cause for event in world.events if event.kind == "boot"][-1] is BootCause.FALLBACK
    world.welcome()
    world.desire(2, operation("again"))
    world.run()
    assert world.result("again").result is Result.REFUSED and "failed-here" in world.result("again").reason


@pytest.mark.parametrize("how", ["override", "cleared"])
def test_a_failed_version_can_be_tried_again_when_cleared(how) -> None:
    world = ready()
    world.broken.add("2")
    world.grant()
    world.run()
    world.broken.clear()
    world.welcome()
    if how == "override":
        world.desire(2, operation("again", override_failed=True))
    else:
        world.desire(2, operation("again"), cleared_digests=[digest("2")])
    world.run()
    assert world.state.step is Step.READY
    world.grant()
    world.run()
    world.welcome()
    world.check()
    world.run()
    world.wait(61)
    world.check()
    assert world.result("again").result is Result.SUCCEEDED and world.state.failed == []


def test_what_failed_again_is_not_forgotten_because_it_was_cleared_before() -> None:
    """The server says the same order on every connection, also before it has heard of the failure."""
    world = ready()
    world.broken.add("2")
    world.grant()
    world.run()
    world.welcome()
    world.desire(2, operation("again"), cleared_digests=[digest("2")])
    world.run()
    world.grant()
    world.run()
    assert [failed.version for failed in world.state.failed] == ["2"]
    world.welcome()
    world.desire(2, operation("again"), cleared_digests=[digest("2")])
    world.run()
    assert [failed.version for failed in world.state.failed] == ["2"]


def test_never_healthy_goes_back_by_itself() -> None:
    world = booted_new(joined())
    world.welcome()
    world.check(UNHEALTHY)
    world.wait(100)
    world.check(UNHEALTHY)
    assert world.state.step is Step.CONFIRMING
    world.wait(21)
    world.run()
    report = world.result("op")
    assert report.result is Result.FELL_BACK and report.failed_checks[0].output == "connection refused"
    assert world.booted == "a" and world.slots["a"].good is True and world.slots["b"].good is False
    assert world.state.failed[0].version == "2" and world.state.booted.confirmed
    assert world.state.outcome.failed_checks == report.failed_checks


def test_checks_that_hang_count_as_failed() -> None:
    world = booted_new(joined())
    world.welcome()
    world.wait(130)
    world.run()
    assert world.result("op").result is Result.FELL_BACK


def test_gateway_away_and_witnesses_standing_stays_on_trial() -> None:
    world = booted_new(joined())
    for _ in range(20):
        world.check()
        world.wait(60)
        world.run()
    assert world.state.step is Step.CONFIRMING and codes(world) == ["gateway-away"]
    world.check(UNHEALTHY)
    world.run()
    assert world.state.step is Step.CONFIRMING, "a single bad round sends nobody back"
    world.check()
    world.welcome()
    world.run()
    assert world.state.step is Step.SOAKING


def test_witnesses_gone_too_goes_back_and_calls_nothing_bad() -> None:
    world = booted_new(joined())
    world.standing = False
    world.check()
    world.wait(60)
    world.check()
    world.wait(61)
    world.run()
    report = world.result("op")
    assert report.result is Result.UNREACHABLE
    assert world.booted == "a" and world.state.failed == [] and world.slots["b"].good is None
    assert world.slots["b"].tries == 0 and world.slots["a"].good is True


def test_going_back_that_does_not_work_ends_unknown() -> None:
    world = booted_new(joined())
    world.stubborn = True
    world.check(UNHEALTHY)
    world.wait(121)
    world.run()
    assert world.result("op").result is Result.UNKNOWN
    assert world.boots == 5, "one try and two more"
    assert "needs-a-person" in codes(world)
    world.welcome()
    for _ in range(5):
        world.check()
        world.wait(60)
    world.run()
    assert not world.state.booted.confirmed, "nothing confirms it by itself"
    world.desire(5, operation("r", OperationKind.RESCUE, None))
    world.run()
    assert world.state.booted.confirmed and "needs-a-person" not in codes(world)


def test_unhealthy_in_the_soak_ends_it_and_stays() -> None:
    world = booted_new(joined())
    world.welcome()
    world.check()
    world.run()
    world.check(UNHEALTHY)
    assert world.state.step is Step.SOAKING
    world.check(UNHEALTHY)
    world.run()
    report = world.result("op")
    assert report.result is Result.UNHEALTHY and world.booted == "b"
    assert world.state.failed[0].version == "2"
    world.desire(7, operation("fix", version="3"))
    world.run()
    assert codes(world) == ["keeping-way-back"], "never soaked: the way back is not written"
    world.desire(8, operation("back", OperationKind.ROLLBACK, "1"))
    world.run()
    assert world.state.step is Step.READY


def test_a_reboot_during_the_soak_starts_it_over() -> None:
    world = booted_new(joined())
    world.welcome()
    world.check()
    world.run()
    world.wait(50)
    world.power_cut()
    world.welcome()
    world.run()
    world.wait(50)
    world.check()
    assert world.state.step is Step.SOAKING and "soak-restarted" in world.kinds()
    world.wait(11)
    world.check()
    assert world.result("op").result is Result.SUCCEEDED


def test_in_a_soak_only_going_back_disarm_and_rescue_are_taken_at_once() -> None:
    world = booted_new(joined())
    world.welcome()
    world.check()
    world.run()
    world.desire(5, operation("next", version="3"))
    assert world.state.step is Step.SOAKING and world.state.pending is not None
    world.desire(6, operation("back", OperationKind.ROLLBACK, "1"))
    world.run()
    assert world.result("op").result is Result.CANCELLED
    assert world.state.step is Step.READY and world.state.operation.id == "back"
    assert world.state.pending is None


def test_a_rollback_that_came_while_confirming_is_taken_when_the_soak_begins() -> None:
    world = booted_new(joined())
    world.welcome()
    world.desire(5, operation("back", OperationKind.ROLLBACK, "1"))
    world.check()
    world.run()
    assert world.result("op").result is Result.CANCELLED and world.state.operation.id == "back"


def test_what_waited_is_begun_when_the_operation_ends() -> None:
    world = booted_new(joined())
    world.welcome()
    world.desire(5, operation("next", version="3"))
    world.check()
    world.run()
    world.wait(61)
    world.check()
    world.run()
    assert world.result("op").result is Result.SUCCEEDED
    assert world.state.operation.id == "next" and codes(world) == ["keeping-way-back"]


def test_disarm_in_a_soak_protects_the_way_back_through_what_was_left() -> None:
    world = booted_new(joined())
    world.welcome()
    world.check()
    world.run()
    world.desire(5, operation("d", OperationKind.DISARM, None))
    world.run()
    assert world.result("d").result is Result.SUCCEEDED and world.slots["a"].good is True
    assert world.state.way_back.left.at(world.boot_s) == pytest.approx(360)


@pytest.mark.parametrize("state", [HealthState.HEALTHY, UNHEALTHY])
def test_a_trial_waits_while_the_tool_shows_no_booted_slot(state: HealthState) -> None:
    world = booted_new(joined())
    world.welcome()
    odd = [msgspec.structs.replace(slot, booted=False) for slot in world.shown()]
    world.give(SlotsSeen(slots=odd))
    world.wait(400)
    world.check(state)
    world.run()
    assert world.state.step is Step.CONFIRMING and codes(world) == ["slots-unclear"]
    world.give(SlotsSeen(slots=world.shown()))
    world.check(state)
    world.run()
    assert world.booted == ("b" if state is HealthState.HEALTHY else "a")
    assert "slots-unclear" not in codes(world)
