"""Draining: under the lease and before arming; undone wherever no reboot follows."""

from __future__ import annotations

import pytest

from agent.phases.drains import ARMING_S
from agent.phases.inputs import Inhibited, SlotsSeen, WorkFailed
from agent.phases.model import Step, WorkKind
from agent.phases.show import phase
from tests.agent.stories import codes
from tests.agent.wanted import operation
from tests.agent.world import World, joined
from wire.messages import Check, CheckState, HealthState, LeaseReturn, OperationKind, Phase, Result

LONG_S = 600.0
DRAINS = {"drain": "move", "drain_s": 300.0}
FAILED = Check(name="drain.d/move", state=CheckState.FAILED, text="exited with code 1", output="no budget")
FAILURE = WorkFailed(id=0, code="drain", text="drain.d/move: exited with code 1", check=FAILED)


def ready(kind: OperationKind = OperationKind.ACTIVATE, **more: object) -> World:
    world = joined()
    version = None if kind is OperationKind.REBOOT else "2"
    world.desire(1, operation("op", kind, version, **(DRAINS | more)))
    world.run()
    assert world.state.step is Step.READY
    return world


def draining() -> World:
    world = ready()
    world.grant(LONG_S)
    assert world.state.step is Step.DRAINING
    return world


def returns(world: World) -> list[str]:
    return [message.reason for message in world.sent if isinstance(message, LeaseReturn)]


@pytest.mark.parametrize("kind", [OperationKind.ACTIVATE, OperationKind.REBOOT])
def test_a_node_is_drained_before_arming_and_undrained_when_confirmed(kind: OperationKind) -> None:
    world = ready(kind)
    world.grant(LONG_S)
    assert phase(world.state) is Phase.DRAINING
    world.run()
    assert world.state.step is Step.CONFIRMING and world.drained_by == "move"
    arming = WorkKind.DISARM if kind is OperationKind.REBOOT else WorkKind.ARM
    assert world.done[-4:] == [WorkKind.DRAIN, WorkKind.PROBE, arming, WorkKind.REBOOT]
    world.welcome()
    world.check()
    world.run()
    assert world.state.step is (Step.IDLE if kind is OperationKind.REBOOT else Step.SOAKING)
    assert not world.drained_by and world.state.drained is None
    told = [kind for kind in world.kinds() if "drain" in kind]
    assert told == ["drained", "undrained"]
    assert {event.operation_id for event in world.events if event.kind in told} == {"op"}


def test_without_a_name_nothing_is_drained() -> None:
    world = ready(drain="")
    world.grant()
    assert world.state.step is Step.ARMING
    world.run()
    assert WorkKind.DRAIN not in world.done


def test_draining_that_fails_returns_the_lease_undrains_and_tries_again_at_growing_distances() -> None:
    world = ready()
    world.failures[WorkKind.DRAIN] = [FAILURE, FAILURE]
    world.grant(LONG_S)
    world.run()
    assert world.state.step is Step.READY and codes(world) == ["drain-failed"]
    assert "exited with code 1" in world.state.hold.text
    assert returns(world) == ["draining failed: drain.d/move: exited with code 1"]
    assert world.done[-1] is WorkKind.UNDRAIN and not world.drained_by
    [event] = [event for event in world.events if event.kind == "drain-failed"]
    assert event.checks == [FAILED]
    for pause_s in (30.0, 60.0):
        world.wait(pause_s - 1)
        assert world.state.asking is None
        world.wait(2)
        world.run()
        world.grant(LONG_S)
        world.run()
    assert world.state.step is Step.CONFIRMING and world.state.drain_tries == 0


def test_draining_ends_so_early_that_the_lease_still_covers_arming() -> None:
    world = ready(drain_s=300.0)
    world.grant(200.0)
    work = world.state.work[0]
    assert work.limit_s == pytest.approx(200.0 - ARMING_S) and work.not_after_s is not None


@pytest.mark.parametrize(("drain_s", "lease_s"), [(0.0, 600.0), (300.0, ARMING_S)])
def test_no_time_to_drain_is_said_and_nothing_begins(drain_s: float, lease_s: float) -> None:
    world = ready(drain_s=drain_s)
    world.grant(lease_s)
    world.run()
    assert world.state.step is Step.READY and codes(world) == ["drain-failed"]
    assert "has no time" in world.state.hold.text and WorkKind.DRAIN not in world.done
    assert returns(world) == ["too short to drain"] and world.state.asking is None


def test_a_cancel_while_draining_stops_it_and_undrains() -> None:
    world = draining()
    world.one()
    world.desire(2, None)
    world.run()
    assert world.result("op").result is Result.CANCELLED
    assert not world.drained_by and world.state.drained is None and WorkKind.ARM not in world.done
    assert returns(world) == ["cancelled by the control plane"]


def test_the_lease_that_ends_while_draining_ends_it() -> None:
    world = draining()
    world.todo.clear()  # it hangs
    world.wait(LONG_S)
    assert world.state.step is Step.READY and world.state.lease is None
    world.run()
    assert world.done[-1] is WorkKind.UNDRAIN


def test_an_inhibitor_that_comes_while_draining_ends_it() -> None:
    world = draining()
    world.give(Inhibited(names=["backup"]))
    world.run()
    assert world.state.step is Step.READY and codes(world) == ["inhibited"] and not world.drained_by


def test_an_agent_killed_while_draining_undrains_and_asks_anew() -> None:
    world = draining()
    world.answer_lost = True
    world.one()
    assert world.drained_by == "move" and world.state.step is Step.READY
    world.run()
    assert not world.drained_by
    world.welcome()
    world.run()
    assert returns(world) and world.state.asking is not None


def test_the_power_cut_while_draining_boots_the_confirmed_slot_and_undrains() -> None:
    world = draining()
    world.answer_lost = False
    world.drained_by = "move"  # half way
    world.power_cut()
    world.run()
    assert world.booted == "a" and not world.drained_by and world.state.drained is None


def test_a_reboot_that_never_happens_undrains() -> None:
    world = draining()
    while world.state.step is not Step.REBOOTING:
        world.one()
    work = world.state.work[0]
    world.todo.clear()
    world.give(WorkFailed(id=work.id, code="lease-ended", text="over"))
    world.run()
    assert world.state.step is Step.READY and not world.drained_by


def test_a_node_that_fell_back_undrains() -> None:
    world = ready()
    world.broken.add("2")
    world.grant(LONG_S)
    world.run()
    assert world.result("op").result is Result.FELL_BACK and world.booted == "a"
    assert not world.drained_by


def test_a_node_that_goes_back_by_itself_undrains_only_after_it() -> None:
    world = ready()
    world.grant(LONG_S)
    world.run()
    world.welcome()
    while world.state.step is Step.CONFIRMING:
        world.wait(60)
        world.check(HealthState.UNHEALTHY)
    assert world.drained_by == "move", "no services come to a slot on trial"
    world.run()
    assert world.booted == "a" and not world.drained_by


def test_undraining_that_fails_is_told_once_shown_and_tried_for_ever() -> None:
    world = ready()
    world.failures[WorkKind.UNDRAIN] = [WorkFailed(id=0, code="drain", text="no answer")] * 6
    world.grant(LONG_S)
    world.run()
    world.welcome()
    world.check()
    world.run()
    assert world.state.step is Step.SOAKING and codes(world) == ["undrain-failed"]
    world.wait(61)
    world.check()
    world.run()
    assert world.result("op").result is Result.SUCCEEDED
    world.desire(5, operation("next", version="3"))
    world.run()
    assert world.state.step is Step.HELD and codes(world) == ["undrain-failed"], "nothing is begun meanwhile"
    for _ in range(12):
        world.wait(900)
        world.check()
        world.run()
    assert not world.drained_by and "undrain-failed" not in codes(world)
    assert world.kinds().count("undrain-failed") == 1 and world.kinds().count("undrained") == 1
    assert WorkKind.STAGE in world.done[-3:]


def test_what_leads_back_does_not_wait_for_undraining() -> None:
    world = ready()
    world.grant(LONG_S)
    world.failures[WorkKind.UNDRAIN] = [WorkFailed(id=0, code="drain", text="no answer")] * 3
    world.run()
    world.welcome()
    world.check()
    world.run()
    world.desire(2, operation("back", OperationKind.ROLLBACK, "1", **DRAINS))
    world.run()
    assert world.state.step is Step.READY and world.state.asking is not None
    world.grant(LONG_S)
    world.run()
    assert world.booted == "a"


def test_nothing_comes_back_to_a_slot_that_a_person_has_to_look_at() -> None:
    world = ready(OperationKind.ACTIVATE)
    world.grant(LONG_S)
    world.run()
    world.welcome()
    world.slots["a"].good = False  # the other slot is no way back
    world.check(HealthState.UNHEALTHY)
    world.give(SlotsSeen(slots=world.shown()))
    world.wait(130)
    world.check(HealthState.UNHEALTHY)
    world.run()
    assert "needs-a-person" in codes(world) and world.drained_by == "move"
    world.desire(2, operation("rescue", OperationKind.RESCUE, None))
    world.run()
    assert not world.drained_by
