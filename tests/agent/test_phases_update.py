"""The phase machine through whole operations on an invented machine."""

from __future__ import annotations

import pytest

from agent.phases.inputs import Instructed, WorkFailed
from agent.phases.model import Step, WorkKind
from agent.phases.show import activity
from tests.agent.stories import codes, updated
from tests.agent.wanted import digest, image, operation
from tests.agent.world import joined
from wire.messages import (
    BootCause,
    Desired,
    HealthState,
    OperationKind,
    Order,
    Phase,
    Result,
)

UNHEALTHY = HealthState.UNHEALTHY


def test_a_whole_update() -> None:
    world = updated(joined())
    report = world.result("op")
    assert report.result is Result.SUCCEEDED
    assert (report.evidence.old_boot_id, report.evidence.boot_id) == ("boot-1", "boot-2")
    assert report.evidence.booted_digest == digest("2")
    assert world.kinds() == ["boot", "staged", "armed", "boot", "confirmed", "soaked"]
    assert world.events[3].cause is BootCause.OPERATION and "ada" in world.events[3].text
    assert world.done == [
        WorkKind.STAGE,
        WorkKind.PROBE,
        WorkKind.ARM,
        WorkKind.REBOOT,
        WorkKind.MARK_GOOD,
    ]
    shown = activity(world.state, world.boot_s)
    assert shown.phase is Phase.IDLE and shown.way_back is not None and shown.way_back.version == "1"
    assert shown.outcome is not None and shown.outcome.result is Result.SUCCEEDED


def test_first_start_says_so() -> None:
    world = joined()
    assert [event.cause for event in world.events] == [BootCause.FIRST_SEEN]


def test_older_orders_are_refused_once() -> None:
    world = joined()
    world.desire(5, None)
    world.desire(4, operation("old"))
    world.desire(4, operation("old"))
    assert world.kinds().count("order-refused") == 1
    assert world.state.operation is None
    world.desire(1, operation("new-epoch"), epoch=2)
    assert world.state.operation is not None


def test_equal_orders_are_idempotent() -> None:
    world = joined()
    world.desire(1, operation("op"))
    world.run()
    before = world.state
    world.desire(1, operation("op"))
    assert world.state == before and not world.todo


def test_a_fresh_address_replaces_the_old_one() -> None:
    world = joined()
    world.failures[WorkKind.STAGE] = [WorkFailed(id=0, code="no-connection", text="refused", transient=True)]
    world.desire(1, operation("op"))
    world.run()
    assert world.state.step is Step.RETRYING
    again = operation("op")
    again = type(again)(id="op", kind=again.kind, image=image("2", url="http://127.0.0.1/fresh"))
    world.desire(1, again)
    world.run()
    assert world.state.step is Step.READY
    assert world.state.operation is not None and world.state.operation.image is not None
    assert world.state.operation.image.url == "http://127.0.0.1/fresh"


@pytest.mark.parametrize(
    ("wanted", "code", "words"),
    [
        (operation("x", version=None), "no-image", ""),
        (
            type(operation("x"))(id="x", kind=OperationKind.STAGE, image=image("2", os="other")),
            "wrong-os",
            "other",
        ),
        (
            type(operation("x"))(id="x", kind=OperationKind.ACTIVATE, image=image("2", arch="arm64")),
            "wrong-arch",
            "arm64",
        ),
        (operation("x", OperationKind.ROLLBACK), "way-back-gone", "2"),
    ],
)
def test_refusals_name_what_is_wrong(wanted, code, words) -> None:
    world = joined()
    world.desire(1, wanted)
    world.run()
    report = world.result("x")
    assert report.result is Result.REFUSED and report.reason.startswith(code) and words in report.reason
    assert not world.done and world.state.outcome is None


def test_an_untrusted_image_is_refused() -> None:
    world = joined()
    world.give(Instructed(desired=Desired(order=Order(1, 1), operation=operation("x")), distrust="no keys"))
    world.run()
    report = world.result("x")
    assert report.result is Result.REFUSED and report.reason == "untrusted-image: no keys"


def test_already_running_succeeds_at_once() -> None:
    world = joined()
    world.desire(1, operation("x", version="1"))
    world.run()
    assert world.result("x").result is Result.SUCCEEDED and "already running" in world.result("x").reason
    assert not world.done


def test_stage_leaves_the_booted_slot_next() -> None:
    world = joined()
    world.desire(1, operation("x", OperationKind.STAGE))
    world.run()
    assert world.result("x").result is Result.SUCCEEDED
    assert world.next_boot == "a" and world.slots["b"].version == "2"
    world.desire(2, operation("y"))
    world.run()
    assert world.done.count(WorkKind.STAGE) == 1 and world.state.step is Step.READY


def test_staging_failures() -> None:
    world = joined()
    world.failures[WorkKind.STAGE] = [WorkFailed(id=0, code="wrong-digest", text="not these bytes")]
    world.desire(1, operation("x"))
    world.run()
    report = world.result("x")
    assert (report.result, report.reason) == (Result.STAGE_FAILED, "not these bytes")


def test_transient_downloads_are_tried_again_until_the_deadline() -> None:
    world = joined()
    failed = WorkFailed(id=0, code="no-connection", text="connection refused", transient=True)
    world.failures[WorkKind.STAGE] = [failed] * 1000
    world.desire(1, operation("x"))
    for _ in range(200):
        world.run()
        if world.reports:
            break
        assert codes(world) == ["download"]
        world.wait(60)
    report = world.result("x")
    assert report.result is Result.STAGE_FAILED and "connection refused" in report.reason
    assert world.state.step is Step.IDLE


def test_an_address_that_ran_out_is_forgiven_three_times() -> None:
    world = joined()
    failed = WorkFailed(id=0, code="address-ended", text="403", transient=True)
    world.failures[WorkKind.STAGE] = [failed] * 10
    world.desire(1, operation("x"))
    for _ in range(3):
        world.run()
        world.wait(120)
    world.run()
    assert world.result("x").result is Result.STAGE_FAILED


def test_cancel_while_staged_disarms() -> None:
    world = joined()
    world.desire(1, operation("x"))
    world.run()
    world.desire(2, None)
    world.run()
    assert world.result("x").result is Result.CANCELLED
    assert world.result("x").reason == "cancelled by the control plane"
    assert world.done[-1] is WorkKind.DISARM


def test_supersede_while_staging_stops_the_work() -> None:
    world = joined()
    world.desire(1, operation("x"))
    running = world.todo[0].work.id
    world.todo.clear()
    world.desire(2, operation("y", version="3"))
    assert world.todo[0].work_id == running
    world.run()
    assert world.result("x").reason == "superseded by y"
    assert world.slots["b"].version == "3" and world.state.step is Step.READY


def test_ended_operations_are_reported_again_and_never_run_again() -> None:
    world = updated(joined())
    world.acknowledge()
    world.desire(1, operation("op"))
    assert len([r for r in world.reports if r.operation_id == "op"]) == 2
    world.desire(9, operation("op"))
    world.run()
    assert world.state.step is Step.IDLE and world.result("op").result is Result.SUCCEEDED
