"""Leases: asked for, waited for, running out, given back."""

from __future__ import annotations

from agent.phases.asking import ASKED_KEPT
from agent.phases.inputs import Inhibited, WorkFailed
from agent.phases.model import Step, WorkKind
from tests.agent.stories import booted_new, codes, ready
from tests.agent.wanted import operation
from tests.agent.world import joined
from wire.messages import (
    HealthState,
    Hold,
    LeaseGrant,
    LeaseRequest,
    LeaseReturn,
    LeaseWait,
    Result,
)

UNHEALTHY = HealthState.UNHEALTHY


def test_a_lease_is_asked_for_again_after_ten_seconds() -> None:
    world = ready()
    first = world.state.asking
    world.wait(9)
    assert world.state.asking == first
    world.wait(1.5)
    assert world.state.asking is not None and world.state.asking != first


def test_lease_wait_shows_its_hold_and_asks_later() -> None:
    world = ready()
    asking = world.state.asking
    hold = Hold(code="group-budget", text="2 of 2 are down")
    world.give(LeaseWait(operation_id="op", nonce=asking.nonce, hold=hold, retry_s=30))
    assert codes(world) == ["group-budget"]
    world.wait(29)
    assert world.state.asking is None
    world.wait(2)
    assert world.state.asking is not None


def test_a_node_that_waits_is_called_when_its_turn_comes() -> None:
    world = ready()
    asking = world.state.asking
    hold = Hold(code="group-budget", text="2 of 2 are down")
    world.give(LeaseWait(operation_id="op", nonce=asking.nonce, hold=hold, retry_s=60))
    world.give(LeaseWait(operation_id="other", nonce=asking.nonce, hold=hold, retry_s=0))
    world.wait(1)
    assert world.state.asking is None, "that was for another operation"
    world.give(LeaseWait(operation_id="op", nonce=asking.nonce, hold=hold, retry_s=600))
    world.give(LeaseWait(operation_id="op", nonce=asking.nonce, hold=hold, retry_s=0))
    world.wait(1)
    assert world.state.asking is not None and world.state.asking.nonce != asking.nonce


def test_a_grant_for_another_nonce_counts_nothing() -> None:
    world = ready()
    world.give(LeaseGrant(lease_id="l", operation_id="op", nonce="other", duration_s=60))
    assert world.state.step is Step.READY and world.state.lease is None


def test_answers_that_are_always_late_count_from_the_request_that_they_answer() -> None:
    world = ready()
    first = world.state.asking
    world.wait(25)
    world.wait(10)
    assert world.state.asking.nonce != first.nonce
    hold = Hold(code="group-budget", text="2 of 2 are down")
    world.give(LeaseWait(operation_id="op", nonce=first.nonce, hold=hold, retry_s=30))
    assert codes(world) == ["group-budget"] and world.state.asking is not None, "the present request is still out"
    world.grants["l"] = first.sent_s + 60
    world.give(LeaseGrant(lease_id="l", operation_id="op", nonce=first.nonce, duration_s=60))
    assert world.state.step is Step.ARMING and world.state.lease.until_s == first.sent_s + 60
    assert world.state.asking is None


def test_an_answer_that_is_too_late_takes_nothing_from_the_present_request() -> None:
    """The present one may be answered with the same lease."""
    world = ready()
    first = world.state.asking
    world.wait(11)
    present = world.state.asking
    world.give(LeaseGrant(lease_id="l", operation_id="op", nonce=first.nonce, duration_s=11))
    world.run()
    assert world.state.asking == present and not [m for m in world.sent if isinstance(m, LeaseReturn)]


def test_few_unanswered_requests_are_remembered_and_none_that_was_answered() -> None:
    world = ready()
    for _ in range(100):
        world.wait(10.5)
    assert len(world.state.asking.earlier) == ASKED_KEPT - 1
    assert list(world.state.asking.earlier.values())[-1] == world.boot_s - 10.5, "the newest are kept"
    hold = Hold(code="group-budget", text="2 of 2 are down")
    world.give(LeaseWait(operation_id="op", nonce=world.state.asking.nonce, hold=hold, retry_s=1))
    world.wait(2)
    assert world.state.asking.earlier == {}


def test_a_grant_that_came_too_late_goes_back() -> None:
    world = ready()
    asking = world.state.asking
    world.boot_s += 9
    world.give(LeaseGrant(lease_id="l", operation_id="op", nonce=asking.nonce, duration_s=5))
    world.run()
    assert world.state.step is Step.READY
    assert any(isinstance(m, LeaseReturn) and m.lease_id == "l" for m in world.sent)


def test_a_grant_nobody_waits_for_goes_back() -> None:
    world = joined()
    world.give(LeaseGrant(lease_id="l", operation_id="gone", nonce="n", duration_s=5))
    world.run()
    assert [m.lease_id for m in world.sent] == ["l"]


def test_the_grant_that_was_rebooted_under_does_not_go_back_when_it_is_said_again() -> None:
    world = booted_new(joined())
    world.welcome()
    world.give(LeaseGrant(lease_id="l", operation_id="op", nonce="n", duration_s=60))
    world.run()
    assert not [message for message in world.sent if isinstance(message, LeaseReturn)]


def test_a_lease_that_runs_out_before_the_reboot_disarms_and_asks_anew() -> None:
    world = ready()
    world.grant(duration_s=30)
    world.one()  # the probe
    world.one()  # armed, the reboot is next
    assert world.next_boot == "b" and world.state.step is Step.REBOOTING
    world.todo.clear()
    work = world.state.work[0]
    world.boot_s += 60
    world.give(WorkFailed(id=work.id, code="lease-ended", text="over"))
    world.run()
    assert world.next_boot == "a" and world.state.step is Step.READY
    assert any(isinstance(message, LeaseReturn) for message in world.sent)
    assert isinstance(world.sent[-1], LeaseRequest)


def test_the_lease_is_looked_at_between_probe_and_arming() -> None:
    world = ready()
    world.grant(duration_s=30)
    world.boot_s += 31
    world.run()
    assert WorkKind.ARM not in world.done and world.state.step is Step.READY


def test_lost_link_with_a_lease_in_hand_goes_on() -> None:
    world = ready()
    world.grant()
    world.lose_link()
    world.run()
    assert world.state.step is Step.CONFIRMING and world.booted == "b"


def test_without_the_gateway_nothing_is_started() -> None:
    world = ready()
    world.lose_link()
    world.wait(1000)
    world.run()
    assert world.state.step is Step.READY and codes(world) == ["gateway-away"]


def test_inhibited_asks_for_nothing() -> None:
    world = joined()
    world.give(Inhibited(names=["backup"]))
    world.desire(1, operation("op"))
    world.run()
    assert world.state.asking is None and codes(world) == ["inhibited"]
    world.give(Inhibited(names=[]))
    assert world.state.asking is not None


def test_an_inhibitor_that_comes_before_arming_returns_the_lease() -> None:
    world = ready()
    world.grant()
    world.give(Inhibited(names=["backup"]))
    world.run()
    assert WorkKind.ARM not in world.done and world.state.step is Step.READY
    assert any(isinstance(message, LeaseReturn) for message in world.sent)


def test_cancel_with_a_lease_before_arming_returns_it() -> None:
    world = ready()
    world.grant()
    world.desire(2, None)
    world.run()
    assert world.result("op").result is Result.CANCELLED
    assert isinstance(world.sent[-1], LeaseReturn)


def test_cancel_while_armed_waits() -> None:
    world = ready()
    world.grant()
    world.one()
    world.one()
    world.desire(2, None)
    assert world.state.step is Step.REBOOTING
    world.run()
    assert world.state.step is Step.CONFIRMING


def test_arming_that_fails_three_times_ends_the_operation() -> None:
    world = ready()
    world.failures[WorkKind.ARM] = [WorkFailed(id=0, code="tool", text="no bus")] * 3
    world.grant()
    for _ in range(4):
        world.run()
        world.wait(20)
    world.run()
    assert world.result("op").result is Result.NEVER_SWITCHED
    assert world.next_boot == "a" and isinstance(world.sent[-1], LeaseReturn)


def test_a_reboot_that_never_happens_is_undone() -> None:
    world = ready()
    world.grant()
    world.one()
    world.one()
    work = world.todo.popleft().work
    from agent.phases.inputs import WorkDone

    world.give(WorkDone(id=work.id, slots=world.shown()))
    world.wait(601)
    world.run()
    assert world.state.step is Step.READY and world.next_boot == "a"
