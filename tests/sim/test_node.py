"""A simulated node does what a real one does: it is updated, falls back, survives what befalls it."""

from __future__ import annotations

import pytest

from agent.phases.model import Step
from sim.machine import Deed
from sim.node import SimNode
from sim.watch import Cause, Watch
from tests.sim.desk import SOAK_S, Desk, desk
from wire.messages import BootCause, HealthState, LeaseGrant, OperationKind, Result

UPDATE_S = 400.0
"""Longer than download, reboot, trial and soak of one node together."""


class Witness(Watch):
    """Keeps what it saw."""

    def __init__(self, services: int = 0) -> None:
        super().__init__(services)
        self.deeds: list[tuple[Deed, str]] = []
        self.lowest = 10**6
        self.causes: list[tuple[int, Cause]] = []

    def deed(self, node: SimNode, deed: Deed, slot: str, now: float) -> None:
        self.deeds.append((deed, slot))
        if deed is Deed.WRITES:
            assert slot != node.machine.booted

    def replicas(self, node: SimNode, services: object, change: int, cause: Cause, now: float) -> None:
        super().replicas(node, services, change, cause, now)  # type: ignore[arg-type]
        self.causes.append((change, cause))
        self.lowest = min([self.lowest, *self.healthy])


def only(made: Desk) -> SimNode:
    (node,) = made.fleet.nodes
    return node


def test_a_node_is_updated_and_shows_it() -> None:
    witness = Witness()
    made = desk(watch=witness)
    node = only(made)
    made.update(node, "2.0.0")
    made.run(UPDATE_S)

    assert made.result(node).result is Result.SUCCEEDED
    assert (node.machine.booted, node.machine.running.version) == ("B", "2.0.0")
    deeds = [deed for deed, _ in witness.deeds]
    assert deeds[:5] == [Deed.WRITES, Deed.WROTE, Deed.ARMED, Deed.GOES_DOWN, Deed.BOOTED]
    shown = [status.slots for status in made.statuses[1] if status.slots]
    assert [slot.version for slot in shown[-1] if slot.booted] == ["2.0.0"]
    boots = [event for event in made.events[1] if event.kind == "boot"]
    assert [event.cause for event in boots] == [BootCause.FIRST_SEEN, BootCause.OPERATION]


def test_nothing_is_armed_without_a_lease() -> None:
    witness = Witness()
    made = desk(watch=witness)
    made.grants = False
    made.update(only(made), "2.0.0")
    made.run(UPDATE_S)
    assert only(made).state.step is Step.READY
    assert (Deed.WROTE, "B") in witness.deeds
    assert Deed.ARMED not in [deed for deed, _ in witness.deeds]


def test_a_version_that_does_not_boot_falls_back() -> None:
    witness = Witness()
    made = desk("[[faults]]\nkind = 'no-boot'\nversion = '2.0.0'", witness)
    made.update(only(made), "2.0.0")
    made.run(UPDATE_S)
    assert made.result(only(made)).result is Result.FELL_BACK
    assert only(made).machine.booted == "A"
    assert [deed for deed, _ in witness.deeds].count(Deed.PANICKED) == 3, "each try was used"


def test_checks_that_fail_on_trial_send_it_back() -> None:
    made = desk("[[faults]]\nkind = 'checks-fail'\nversion = '2.0.0'")
    made.update(only(made), "2.0.0")
    made.run(UPDATE_S)
    report = made.result(only(made))
    assert report.result is Result.FELL_BACK
    assert report.failed_checks[0].output.startswith("GET /healthz")


def test_checks_that_fail_later_end_the_soak() -> None:
    made = desk(f"[[faults]]\nkind = 'checks-fail'\nversion = '2.0.0'\nafter_s = {SOAK_S / 2}")
    made.update(only(made), "2.0.0")
    made.run(UPDATE_S)
    assert made.result(only(made)).result is Result.UNHEALTHY
    assert only(made).machine.booted == "B", "it stays where it is"
    assert only(made).health.state is HealthState.UNHEALTHY


@pytest.mark.parametrize("claim", ["success", "digest"])
def test_a_liar_reports_success_and_boots_the_old_slot(claim: str) -> None:
    made = desk(f"[[faults]]\nkind = 'lies'\nclaim = '{claim}'")
    node = only(made)
    made.update(node, "2.0.0")
    made.run(UPDATE_S)
    assert made.result(node).result is Result.SUCCEEDED
    assert (node.machine.booted, node.machine.running.version) == ("A", "1.0.0")


def test_a_dead_download_is_tried_again_until_it_lives() -> None:
    made = desk("[[faults]]\nkind = 'dead-download'\nfor_s = 200")
    made.update(only(made), "2.0.0")
    made.run(150.0)
    assert only(made).state.step in (Step.RETRYING, Step.STAGING)
    made.run(UPDATE_S)
    assert made.result(only(made)).result is Result.SUCCEEDED


def test_a_slow_download_takes_its_time() -> None:
    slow = "[durations]\ndownload_mib_s = 10\n[[faults]]\nkind = 'slow-download'\nfactor = 30\nnodes = [2]\n"
    made = desk(slow + "[fleet]\nnodes = 2\n")
    for node in made.fleet.nodes:
        made.update(node, "2.0.0")
    made.run(200.0)
    assert [bool(made.reports[node.spec.number]) for node in made.fleet.nodes] == [True, False]
    made.run(UPDATE_S)
    assert made.result(made.fleet.nodes[1]).result is Result.SUCCEEDED


def test_a_power_cut_boots_the_confirmed_slot() -> None:
    made = desk()
    made.grants = False
    node = only(made)
    made.update(node, "2.0.0")
    made.run(60.0)
    assert node.state.step is Step.READY
    made.fleet.cut_power(node, made.now, 10.0)
    made.run(60.0)
    assert (node.machine.booted, node.machine.boots) == ("A", 2)
    assert made.events[1][-1].cause is BootCause.WATCHDOG_OR_POWER


def test_a_killed_agent_goes_on_where_it_was() -> None:
    """At every input of an update once: between the write of the state and what follows from it."""
    blown = 0
    for fuse in range(1, 40):
        made = desk()
        node = only(made)
        node.fuse = fuse
        made.update(node, "2.0.0")
        made.run(2 * UPDATE_S)
        blown += node.fuse is None
        assert {report.result for report in made.reports[1]} == {Result.SUCCEEDED}, f"fuse {fuse}"
        assert node.machine.running.version == "2.0.0"
    assert blown > 20, "most fuses were reached"


def test_without_a_network_it_comes_back_and_reports() -> None:
    made = desk("[[faults]]\nkind = 'network-lost'\nat_s = 100\nfor_s = 900")
    made.update(only(made), "2.0.0")
    made.run(150.0)
    assert not only(made).linked and not only(made).can_connect
    made.run(1000.0 + UPDATE_S)
    assert only(made).linked
    assert len({report.operation_id for report in made.reports[1]}) == 1


def test_containers_are_gone_while_the_machine_is_down() -> None:
    witness = Witness(1)
    made = desk("[[services]]\nname = 'api'", witness)
    assert witness.healthy == [1]
    made.update(only(made), "2.0.0")
    made.run(UPDATE_S)
    assert (witness.lowest, witness.healthy) == (0, [1])
    assert witness.causes == [(1, Cause.STARTED), (-1, Cause.OPERATION), (1, Cause.STARTED)]


def test_an_image_can_break_the_services_too() -> None:
    witness = Witness(1)
    fault = "[[faults]]\nkind = 'checks-fail'\nversion = '2.0.0'\nafter_s = 30\nbreaks_services = true\n"
    made = desk("[[services]]\nname = 'api'\n" + fault, witness)
    made.update(only(made), "2.0.0")
    made.run(UPDATE_S)
    assert (-1, Cause.UNHEALTHY) in witness.causes
    assert witness.healthy == [0]
    shown = [status.placement for status in made.statuses[1] if status.placement]
    assert [each.health for each in shown[-1].containers] == ["unhealthy"]


def test_roll_back_boots_the_slot_that_is_still_there() -> None:
    made = desk()
    node = only(made)
    made.update(node, "2.0.0")
    made.run(UPDATE_S)
    made.order(node, OperationKind.ROLLBACK, "1.0.0")
    made.run(UPDATE_S)
    assert [report.result for report in made.reports[1]] == [Result.SUCCEEDED] * 2
    assert node.machine.booted == "A"


def test_it_drains_under_the_lease_where_the_policy_says_so() -> None:
    made = desk()
    made.order(only(made), OperationKind.ACTIVATE, "2.0.0", drain="10-move", drain_s=30.0)
    made.run(UPDATE_S)
    kinds = [event.kind for event in made.events[1]]
    assert kinds.index("drained") < kinds.index("armed") < kinds.index("undrained")
    assert made.result(only(made)).result is Result.SUCCEEDED


def test_a_lease_goes_back_when_a_container_moved_here_meanwhile() -> None:
    made = desk("[[services]]\nname = 'api'\n[fleet]\nnodes = 2\n")
    target = next(node for node in made.fleet.nodes if not node.engine.held)
    made.grants = False
    made.update(target, "2.0.0")
    made.run(60.0)
    asking = target.state.asking
    assert asking is not None and target.state.operation is not None
    made.fleet.move(1 - (target.spec.number - 1), made.now)
    made.run(9.0)
    assert made.fleet.watch.healthy == [1] and target.engine.healthy
    grant = LeaseGrant(lease_id="late", operation_id=target.state.operation.id, nonce=asking.nonce, duration_s=120.0)
    made.fleet.receive(target, grant, made.now)
    made.run(1.0)
    assert [given.lease_id for given in made.returns] == ["late"]
    assert made.fleet.watch.healthy == [1]
