"""Requests for leases, and when budget returns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core.clocks import GATEWAY_FRESH_S
from app.core.leases import ANSWER_WITHIN_S, LONG_RETRY_S, Asking, Held, reason_to_return, retry_s
from app.core.policy import Policy
from tests.server_kit import NOW

POLICY = Policy()


def asking(**given: object) -> Asking:
    values: dict[str, object] = {
        "operation_id": "op_a",
        "node_id": "node_a",
        "node_name": "a",
        "kind": "activate",
        "nonce": "nonce-a",
        "asked_at": NOW - 60,
        "nonce_at": NOW - 1,
        "answered": False,
        "retry_s": 0.0,
    }
    return Asking(**(values | given))  # type: ignore[arg-type]


def test_a_request_that_its_node_has_given_up_is_not_answered() -> None:
    assert asking().can_be_answered(NOW)
    assert not asking(nonce_at=NOW - ANSWER_WITHIN_S - 1).can_be_answered(NOW)


def test_answered_requests_are_not_answered_again() -> None:
    assert not asking(answered=True, retry_s=5.0).can_be_answered(NOW)


def test_whoever_was_told_to_wait_still_asks_until_it_is_late() -> None:
    told = asking(answered=True, retry_s=5.0, nonce_at=NOW - 4)
    assert told.waits(NOW)
    assert not told.waits(NOW + 120)


def test_a_long_queue_asks_seldom() -> None:
    retries = [retry_s(place) for place in range(500)]
    assert retries == sorted(retries)
    assert retries[0] < 10 and retries[-1] == LONG_RETRY_S


def test_who_asks_alone_among_ten_thousand_that_wait_asks_as_seldom_as_they() -> None:
    assert retry_s(0, 10_000) == LONG_RETRY_S
    assert 2_000 / retry_s(0, 2_000) < 11, "requests a second of all together"
    assert retry_s(0, 3) < 6


HELD = Held(
    id="lease_1",
    operation_id="op_1",
    operation_open=True,
    node_id="node_1",
    node_name="a",
    duration_s=POLICY.lease_s,
    old_boot_id="boot-1",
    granted_at=NOW,
    counted_s=0.0,
    counted_at=NOW,
    boot_id="boot-1",
    phase="rebooting",
    on_trial=False,
    booted_good=True,
    retired=False,
    seen_at=None,
)
OVER_S = POLICY.lease_s + POLICY.reboot_deadline_s + GATEWAY_FRESH_S
LATER = NOW + OVER_S
OVER = replace(HELD, counted_s=OVER_S + 1)

RETURNS = [
    (replace(HELD), NOW + 10, False),
    (OVER, LATER + 10_000, False),  # expired and never seen: expiry alone returns nothing
    (replace(OVER, seen_at=NOW + 5), LATER + 10_000, False),  # seen before the shutdown limit only
    (replace(OVER, seen_at=LATER + 1), LATER + 2, True),
    (replace(HELD, counted_s=OVER_S, seen_at=LATER + 1), LATER + 2, False),  # our clock jumped: it was not that long
    (replace(HELD, retired=True), NOW + 1, True),
    (replace(HELD, boot_id="boot-2", phase="confirming", on_trial=True), NOW + 300, False),
    (replace(HELD, boot_id="boot-2", phase="confirming", on_trial=True), LATER + 10_000, False),
    (replace(HELD, boot_id="boot-2", phase="soaking"), NOW + 300, True),
    (replace(HELD, boot_id="boot-2", phase="rolling-back"), NOW + 300, False),
    (replace(HELD, boot_id="boot-2", phase="idle", booted_good=False), NOW + 300, False),
    (replace(HELD, boot_id="boot-2", phase="idle", booted_good=False, operation_open=False), NOW + 300, True),
    (replace(HELD, boot_id="boot-2", phase="idle"), NOW + 300, True),
    (replace(HELD, boot_id=""), LATER + 10_000, False),
]


@pytest.mark.parametrize(("held", "now", "returned"), RETURNS)
def test_budget_returns_only_when_the_node_was_seen_through(held: Held, now: float, returned: bool) -> None:
    assert (reason_to_return(held, now, POLICY) is not None) is returned
