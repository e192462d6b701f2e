"""The agent starts: the same boot, a new one, one that nobody asked for."""

from __future__ import annotations

from agent.phases.model import Step, WorkKind
from tests.agent.stories import booted_new, codes, ready
from tests.agent.wanted import digest
from tests.agent.world import joined
from wire.messages import (
    BootCause,
    HealthState,
    Result,
)

UNHEALTHY = HealthState.UNHEALTHY


def test_same_boot_with_a_live_lease_arms_and_reboots_again() -> None:
    world = ready()
    world.grant()
    world.one()
    world.one()
    world.crash()
    world.run()
    assert world.state.step is Step.CONFIRMING and world.done.count(WorkKind.ARM) == 2


def test_same_boot_without_the_lease_disarms() -> None:
    world = ready()
    world.grant(duration_s=30)
    world.one()
    world.one()
    world.boot_s += 31
    world.crash()
    world.run()
    assert world.next_boot == "a" and world.state.step is Step.READY
    world.welcome()
    world.run()
    assert world.state.asking is not None


def test_a_passive_slot_that_is_next_boot_without_a_lease_is_disarmed_at_start() -> None:
    world = ready()
    world.next_boot = "b"
    world.crash()
    world.run()
    assert world.next_boot == "a" and "disarmed" in world.kinds()


def test_power_cut_after_staging_boots_the_confirmed_slot() -> None:
    world = ready()
    world.power_cut()
    world.run()
    assert world.booted == "a" and world.state.step is Step.READY
    assert world.events[-1].cause is BootCause.WATCHDOG_OR_POWER


def test_causes_of_boots() -> None:
    world = joined()
    world.shut_down()
    world.reboot(BootCause.PANIC)
    world.reboot()
    assert [event.cause for event in world.events] == [
        BootCause.FIRST_SEEN,
        BootCause.LOCAL_COMMAND,
        BootCause.PANIC,
        BootCause.WATCHDOG_OR_POWER,
    ]


def test_a_slot_that_somebody_else_booted_is_confirmed_by_passing_checks() -> None:
    world = joined()
    world.slots["b"] = type(world.slots["b"])(digest("9"), "9", None, 3)
    world.next_boot = "b"
    world.shut_down()
    world.run()
    assert world.booted == "b" and not world.state.booted.confirmed
    assert world.events[-1].cause is BootCause.OTHER_COORDINATOR
    world.check()
    world.wait(31)
    world.run()
    assert not world.state.booted.confirmed, "not without a welcome"
    world.welcome()
    world.check()
    world.run()
    assert world.state.booted.confirmed and world.slots["b"].good is True


def test_falling_back_during_the_trial_keeps_the_failed_checks() -> None:
    world = booted_new(joined())
    world.welcome()
    world.check(UNHEALTHY)
    world.slots["b"].tries = 0
    world.power_cut()
    world.run()
    report = world.result("op")
    assert report.result is Result.FELL_BACK and report.failed_checks[0].name == "web"
    assert "web" in report.reason


def test_a_power_cut_on_trial_with_tries_left_goes_on_confirming() -> None:
    world = booted_new(joined())
    world.power_cut()
    world.run()
    assert world.state.step is Step.CONFIRMING and world.booted == "b"
    world.welcome()
    world.check()
    world.run()
    assert world.state.step is Step.SOAKING


def test_booted_into_another_digest_is_unknown_and_never_confirmed_by_itself() -> None:
    world = ready()
    world.grant()
    world.one()
    world.one()
    world.slots["b"].digest = digest("evil")
    world.run()
    assert world.result("op").result is Result.UNKNOWN
    world.welcome()
    for _ in range(4):
        world.check()
        world.wait(60)
    world.run()
    assert "needs-a-person" in codes(world) and not world.state.booted.confirmed


def test_a_boot_of_ours_names_its_operation_and_its_author() -> None:
    world = booted_new(joined())
    boot = world.events[-1]
    assert (boot.kind, boot.cause, boot.operation_id) == ("boot", BootCause.OPERATION, "op")
    assert boot.boot_id == "boot-2" and "asked for by ada" in boot.text
    assert world.state.boot is not None and world.state.boot.operation_id == "op"


def test_a_boot_back_names_the_operation_and_the_author_that_led_to_it() -> None:
    world = ready()
    world.broken.add("2")
    world.grant()
    world.run()
    [boot] = [event for event in world.events if event.cause is BootCause.FALLBACK]
    assert boot.operation_id == "op" and "asked for by ada" in boot.text
