"""Tools that say done and did nothing, machines that boot what nobody asked for, servers that lie or forget."""

from __future__ import annotations

import msgspec
import pytest

from agent.phases.inputs import Checked, Inhibited, SlotsSeen, WorkDone, WorkFailed
from agent.phases.model import Step, Work, WorkKind
from agent.phases.show import holds
from agent.phases.turn import OUTBOX_CHARS, OUTBOX_EVENTS, RETURNED_KEPT
from tests.agent.stories import armed, ready
from tests.agent.wanted import digest, operation
from tests.agent.world import Disk, World, joined
from wire.messages import (
    Ack,
    BootCause,
    Check,
    CheckState,
    Health,
    HealthState,
    LeaseGrant,
    LeaseReturn,
    NodeEvent,
    OperationKind,
    OperationReport,
    Result,
)


class Liar(World):
    """The tool says that it did these kinds of work, and did nothing."""

    lies: frozenset[WorkKind] = frozenset()

    def _do(self, work: Work) -> None:
        if work.kind in self.lies:
            self.done.append(work.kind)
            self.give(WorkDone(id=work.id, slots=self.shown(), witnesses={"route": True}))
        else:
            super()._do(work)


def liar(*kinds: WorkKind) -> Liar:
    world = Liar()
    world.lies = frozenset(kinds)
    world.start()
    world.welcome()
    world.check()
    world.run()
    return world


def returned(world: World) -> list[str]:
    return [message.lease_id for message in world.sent if isinstance(message, LeaseReturn)]


# --- tools --------------------------------------------------------------------------------------------------


def test_a_tool_that_did_not_arm_leads_to_no_reboot() -> None:
    world = ready(world=liar(WorkKind.ARM))
    world.grant()
    for _ in range(6):
        world.run()
        world.wait(20)
    world.run()
    assert WorkKind.REBOOT not in world.done and world.boots == 1
    report = world.result("op")
    assert report.result is Result.NEVER_SWITCHED and "next boot" in report.reason


def test_a_reboot_does_not_begin_while_the_other_slot_is_next_boot() -> None:
    world = ready(OperationKind.REBOOT, liar(WorkKind.DISARM))
    world.slots["b"] = Disk(digest("9"), "9", None, 3)
    world.next_boot = "b"
    world.grant()
    for _ in range(6):
        world.run()
        world.wait(20)
    assert WorkKind.REBOOT not in world.done and world.booted == "a"


def test_a_tool_that_did_not_disarm_is_asked_again_at_a_distance_and_named() -> None:
    world = ready(world=liar(WorkKind.DISARM))
    world.next_boot = "b"
    world.crash()
    world.run()
    tries = world.done.count(WorkKind.DISARM)
    assert 1 <= tries <= 2, "no busy loop"
    assert "driver" in [hold.code for hold in holds(world.state, world.boot_s)]
    assert world.kinds().count("disarmed") == 1
    world.wait(3600)
    world.run()
    assert world.done.count(WorkKind.DISARM) > tries and world.kinds().count("disarmed") == 1
    world.lies = frozenset()
    world.wait(3600)
    world.run()
    assert world.next_boot == "a" and not world.state.work


def test_nothing_is_staged_when_the_tool_shows_another_booted_slot_in_the_same_boot() -> None:
    world = joined()
    world.slots["b"] = Disk(digest("9"), "9", None, 0)
    swapped = [
        msgspec.structs.replace(slot, booted=not slot.booted, next_boot=not slot.booted) for slot in world.shown()
    ]
    world.give(SlotsSeen(slots=swapped))
    world.desire(1, operation("op"))
    world.run()
    assert not world.done and world.state.step is Step.HELD
    assert [hold.code for hold in holds(world.state, world.boot_s)] == ["slots-unclear"]
    world.give(SlotsSeen(slots=world.shown()))
    world.run()
    assert world.state.step is Step.READY


def test_no_booted_slot_is_a_hold_with_a_name() -> None:
    world = joined()
    world.give(SlotsSeen(slots=[msgspec.structs.replace(slot, booted=False) for slot in world.shown()]))
    world.desire(1, operation("op"))
    world.run()
    assert not world.done
    assert [hold.code for hold in holds(world.state, world.boot_s)] == ["slots-unclear"]


# --- boots --------------------------------------------------------------------------------------------------


def test_a_reboot_that_lands_in_the_other_slot_confirms_nothing() -> None:
    """The confirmed slot did not come up again: what runs instead was never confirmed and is not called so."""
    world = joined()
    world.slots["b"] = Disk(digest("9"), "9", None, 3)
    ready(OperationKind.REBOOT, world)
    armed(world)
    world.next_boot, world.slots["b"].tries = "b", 3
    world.run()
    assert world.booted == "b"
    report = world.result("op")
    assert report.result in (Result.NEVER_SWITCHED, Result.FELL_BACK, Result.UNKNOWN)
    assert world.state.booted is not None and not world.state.booted.confirmed
    assert WorkKind.MARK_GOOD not in world.done and world.slots["a"].good is not False
    assert world.state.failed == [], "a reboot says nothing against a version"
    world.welcome()
    world.desire(2, operation("next", version="3"))
    world.run()
    assert world.state.step is Step.HELD and world.slots["a"].version == "1", "the way back is written"


def test_a_reboot_on_trial_that_falls_to_the_other_slot_confirms_nothing() -> None:
    world = joined()
    world.slots["b"] = Disk(digest("9"), "9", None, 3)
    ready(OperationKind.REBOOT, world)
    armed(world)
    world.run()
    assert world.state.step is Step.CONFIRMING and world.booted == "a"
    world.next_boot, world.slots["b"].tries = "b", 3
    world.power_cut()
    world.run()
    assert world.booted == "b" and world.state.booted is not None and not world.state.booted.confirmed
    assert world.state.failed == [] and WorkKind.MARK_BAD not in world.done


def test_somebody_else_switches_back_during_the_soak() -> None:
    """The new version is still good and not next boot: it did not fail, somebody chose the other slot."""
    world = armed(ready())
    world.run()
    world.welcome()
    world.check()
    world.run()
    assert world.state.step is Step.SOAKING
    world.next_boot = "a"
    world.shut_down()
    world.run()
    report = world.result("op")
    assert report.result is Result.UNKNOWN and world.booted == "a"
    assert world.state.failed == [] and WorkKind.MARK_BAD not in world.done
    assert world.state.boot is not None and world.state.boot.cause is BootCause.OTHER_COORDINATOR
    assert world.state.booted is not None and world.state.booted.confirmed


def test_the_machine_itself_leaves_the_new_slot_during_the_soak() -> None:
    world = armed(ready())
    world.run()
    world.welcome()
    world.check()
    world.run()
    world.broken.add("2")
    world.slots["b"].good = False
    world.power_cut()
    world.run()
    assert world.result("op").result is Result.FELL_BACK
    assert [failed.version for failed in world.state.failed] == ["2"]


# --- orders -------------------------------------------------------------------------------------------------


def test_a_cancel_that_came_while_armed_is_taken_when_the_reboot_does_not_happen() -> None:
    world = armed(ready())
    world.desire(2, None)
    work = world.todo.popleft().work
    world.boot_s += 600
    world.give(WorkFailed(id=work.id, code="lease-ended", text="over"))
    world.run()
    report = world.result("op")
    assert report.result is Result.CANCELLED and report.reason == "cancelled by the control plane"
    assert world.next_boot == "a" and world.state.step is Step.IDLE


@pytest.mark.parametrize("wanted", [None, OperationKind.DISARM])
def test_after_a_crash_an_armed_operation_that_is_cancelled_is_not_armed_again(wanted: OperationKind | None) -> None:
    world = armed(ready())
    world.desire(2, operation("d", wanted, None) if wanted else None)
    world.crash()
    world.run()
    assert world.result("op").result is Result.CANCELLED
    assert world.boots == 1 and world.next_boot == "a"


def test_a_failing_reboot_gives_way_to_what_is_newer() -> None:
    world = armed(ready())
    world.desire(2, None)
    world.failures[WorkKind.REBOOT] = [WorkFailed(id=0, code="tool", text="no systemctl")]
    world.run()
    assert world.result("op").result is Result.CANCELLED and world.next_boot == "a"


# --- leases -------------------------------------------------------------------------------------------------


def test_a_lease_that_is_granted_again_is_not_given_back_again() -> None:
    """The return was lost, the server renews the same lease for the next request: it is in use now."""
    world = ready()
    world.grant()
    first = world.state.lease
    assert first is not None
    world.give(Inhibited(names=["backup"]))
    world.run()
    assert returned(world) == [first.id]
    world.give(Inhibited(names=[]))
    asking = world.state.asking
    assert asking is not None
    world.grants[first.id] = asking.sent_s + 120
    world.give(LeaseGrant(lease_id=first.id, operation_id="op", nonce=asking.nonce, duration_s=120.0))
    assert world.state.lease is not None and world.state.lease.id == first.id
    world.lose_link()
    world.welcome()
    assert returned(world) == [first.id], "the lease in hand was given back"


def test_leases_that_nobody_asked_for_fill_neither_memory_nor_disk() -> None:
    world = joined()
    for number in range(10 * RETURNED_KEPT):
        for _ in range(2):
            grant = LeaseGrant(lease_id=f"l{number}", operation_id="gone", nonce="n", duration_s=1e9)
            world.give(grant)
    world.run(most=1000)
    assert len(world.state.returned) == RETURNED_KEPT
    ids = [entry.message.lease_id for entry in world.state.returned]
    assert len(set(ids)) == len(ids)


# --- reports ------------------------------------------------------------------------------------------------


def test_a_memory_that_is_older_than_the_servers_says_its_reports_under_new_numbers() -> None:
    """state.json came from a backup: the server would take the next numbers for repetitions and drop them."""
    world = joined()
    world.desire(1, operation("x", OperationKind.STAGE))
    world.run()
    before = [item for item in world.state.outbox if isinstance(item, OperationReport)]
    assert len(before) == 1
    world.give(Ack(seq=500))
    after = world.state.outbox
    assert [item.seq for item in after] == list(range(501, 501 + len(after)))
    assert [item.operation_id for item in after if isinstance(item, OperationReport)] == ["x"]
    world.give(Ack(seq=after[-1].seq))
    assert world.state.outbox == []


def test_a_month_offline_fills_no_memory_and_loses_no_report_and_no_boot() -> None:
    world = joined()
    world.lose_link()
    world.desire(1, operation("x", OperationKind.STAGE))
    world.run()
    world.power_cut()
    loud = Check(name="web", state=CheckState.FAILED, output="x" * 4096)
    for number in range(2 * OUTBOX_EVENTS):
        failed = Health(state=HealthState.UNHEALTHY, reasons=["web: down."], checks=[loud])
        world.give(Checked(health=failed))
        world.check()
        if number % 100 == 0:
            world.power_cut()
    kept = world.state.outbox
    assert len(msgspec.json.encode(kept)) < 2 * OUTBOX_CHARS
    assert [item.operation_id for item in kept if isinstance(item, OperationReport)] == ["x"]
    assert len([item for item in kept if isinstance(item, NodeEvent) and item.kind == "boot"]) == 8
    assert any(isinstance(item, NodeEvent) and item.kind == "check-failed" for item in kept), "the newest ones stay"


def test_a_single_event_that_is_too_large_does_not_stop_the_node() -> None:
    world = joined()
    loud = [Check(name=f"c{n}", state=CheckState.FAILED, output="x" * 8192) for n in range(100)]
    world.give(Checked(health=Health(state=HealthState.UNHEALTHY, reasons=["all down."], checks=loud)))
    assert len(msgspec.json.encode(world.state.outbox)) < OUTBOX_CHARS
