"""Rule 1: what a node claims counts as far as the server saw it."""

from __future__ import annotations

import pytest

from app.core.policy import Policy
from app.core.verdict import Seen, judge
from tests.core.builders import booted, operation, slot
from tests.server_kit import NOW, digest_of
from wire.messages import OperationKind, OperationReport, Order, Result, Slot

OLD = (booted("1.0"), slot("B", "2.0"))
NEW = (slot("A", "1.0"), booted("2.0", "B"))
ARMED = (booted("1.0", next_boot=False), slot("B", "2.0", next_boot=True))
OTHER = (slot("A", "1.0"), booted("3.0", "B"))
UNCONFIRMED = (booted("1.0", good=None), slot("B", None))

ACTIVATE, ROLLBACK, REBOOT = OperationKind.ACTIVATE, OperationKind.ROLLBACK, OperationKind.REBOOT
SOAK_S = Policy().soak_s
STAGE, DISARM, RESCUE = OperationKind.STAGE, OperationKind.DISARM, OperationKind.RESCUE


def verdict(
    kind: OperationKind,
    claim: Result,
    slots: tuple[Slot, ...],
    boot: str,
    health: str = "healthy",
    since_s: float = SOAK_S,
    **given: object,
) -> tuple[Result | None, str]:
    report = OperationReport(
        seq=1, operation_id="op_1", order=Order(epoch=1, generation=3), result=claim, at=NOW, reason="said so"
    )
    found = judge(operation(kind, **given), report, Seen(boot, slots, health, since_s))
    return found.result, found.text


OLD_BOOT, NEW_BOOT = "boot-1", "boot-2"

TABLE = [
    # kind, claim, slots seen, boot seen, accepted
    (ACTIVATE, Result.SUCCEEDED, NEW, NEW_BOOT, True),
    (ACTIVATE, Result.SUCCEEDED, NEW, OLD_BOOT, False),
    (ACTIVATE, Result.SUCCEEDED, NEW, "", False),
    (ACTIVATE, Result.SUCCEEDED, OLD, NEW_BOOT, False),
    (ACTIVATE, Result.SUCCEEDED, OTHER, NEW_BOOT, False),
    (ACTIVATE, Result.SUCCEEDED, (), NEW_BOOT, False),
    (ROLLBACK, Result.SUCCEEDED, NEW, NEW_BOOT, True),
    (ROLLBACK, Result.SUCCEEDED, OLD, NEW_BOOT, False),
    (ACTIVATE, Result.UNHEALTHY, NEW, NEW_BOOT, True),
    (ACTIVATE, Result.UNHEALTHY, OLD, OLD_BOOT, False),
    (ACTIVATE, Result.FELL_BACK, OLD, NEW_BOOT, True),
    (ACTIVATE, Result.FELL_BACK, NEW, NEW_BOOT, False),
    (ACTIVATE, Result.FELL_BACK, OLD, OLD_BOOT, False),
    (ACTIVATE, Result.UNREACHABLE, OLD, NEW_BOOT, True),
    (ACTIVATE, Result.UNREACHABLE, NEW, NEW_BOOT, False),
    (ACTIVATE, Result.NEVER_SWITCHED, OLD, OLD_BOOT, True),
    (ACTIVATE, Result.NEVER_SWITCHED, OLD, NEW_BOOT, True),
    (ACTIVATE, Result.NEVER_SWITCHED, NEW, NEW_BOOT, False),
    (STAGE, Result.SUCCEEDED, OLD, OLD_BOOT, True),
    (STAGE, Result.SUCCEEDED, ARMED, OLD_BOOT, False),
    (STAGE, Result.SUCCEEDED, UNCONFIRMED, OLD_BOOT, False),
    (REBOOT, Result.SUCCEEDED, OLD, NEW_BOOT, True),
    (REBOOT, Result.SUCCEEDED, OLD, OLD_BOOT, False),
    (REBOOT, Result.SUCCEEDED, NEW, NEW_BOOT, False),
    (REBOOT, Result.UNHEALTHY, OLD, NEW_BOOT, True),
    (REBOOT, Result.UNHEALTHY, OLD, OLD_BOOT, False),
    (DISARM, Result.SUCCEEDED, OLD, OLD_BOOT, True),
    (DISARM, Result.SUCCEEDED, ARMED, OLD_BOOT, False),
    (RESCUE, Result.SUCCEEDED, OLD, OLD_BOOT, True),
    (RESCUE, Result.SUCCEEDED, UNCONFIRMED, OLD_BOOT, False),
]


@pytest.mark.parametrize(("kind", "claim", "slots", "boot", "accepted"), TABLE)
def test_table(kind: OperationKind, claim: Result, slots: tuple[Slot, ...], boot: str, accepted: bool) -> None:
    result, text = verdict(kind, claim, slots, boot)
    if accepted:
        assert (result, text) == (claim, "said so")
    else:
        assert result is Result.UNKNOWN
        assert text.startswith(f"the node claimed “{claim.value}” (said so), but ")


@pytest.mark.parametrize("kind", OperationKind)
@pytest.mark.parametrize(
    "claim", [Result.STAGE_FAILED, Result.REFUSED, Result.CANCELLED, Result.TIMED_OUT, Result.UNKNOWN]
)
def test_claims_of_having_done_nothing_are_taken(kind: OperationKind, claim: Result) -> None:
    assert verdict(kind, claim, OLD, OLD_BOOT)[0] is claim


@pytest.mark.parametrize("kind", [ACTIVATE, ROLLBACK, REBOOT])
def test_success_of_an_unhealthy_node_is_not_known(kind: OperationKind) -> None:
    slots = OLD if kind is REBOOT else NEW
    assert verdict(kind, Result.SUCCEEDED, slots, NEW_BOOT, "unhealthy")[0] is Result.UNKNOWN
    assert verdict(kind, Result.SUCCEEDED, slots, NEW_BOOT, "degraded")[0] is Result.SUCCEEDED


def test_what_ran_already_needs_no_new_boot() -> None:
    same = {"old_digest": digest_of("2.0")}
    assert verdict(ACTIVATE, Result.SUCCEEDED, NEW, OLD_BOOT, **same)[0] is Result.SUCCEEDED
    assert verdict(ACTIVATE, Result.SUCCEEDED, OLD, OLD_BOOT, **same)[0] is Result.UNKNOWN


FACTORY = {"target_digest": "", "target_version": "2.0"}
"""Of a roll back into a slot that was filled at the factory."""


@pytest.mark.parametrize(
    ("back", "accepted"),
    [
        (booted("2.0", "B", digest=None), True),
        (booted(None, "B"), True),
        (booted("3.0", "B", digest=None), False),
        (booted("2.0", "B"), False),
        (booted("2.0", "A", digest=None), False),
    ],
    ids=["as known", "version not shown", "another version", "filled since", "same slot"],
)
def test_a_slot_of_unknown_contents_is_known_by_its_name(back: Slot, accepted: bool) -> None:
    other = slot("B" if back.name == "A" else "A", "1.0")
    found, _ = verdict(ROLLBACK, Result.SUCCEEDED, (other, back), NEW_BOOT, **FACTORY)
    assert found is (Result.SUCCEEDED if accepted else Result.UNKNOWN)
    assert verdict(ROLLBACK, Result.SUCCEEDED, (other, back), OLD_BOOT, **FACTORY)[0] is Result.UNKNOWN


def test_without_digest_and_version_the_other_slot_is_what_can_be_known() -> None:
    blind = {"target_digest": "", "target_version": "", "old_digest": ""}
    new = (slot("A", "1.0", digest=None), slot("B", None, booted=True, next_boot=True))
    assert verdict(ROLLBACK, Result.SUCCEEDED, new, NEW_BOOT, **blind)[0] is Result.SUCCEEDED
    assert verdict(ROLLBACK, Result.SUCCEEDED, OLD, NEW_BOOT, **blind)[0] is Result.UNKNOWN


@pytest.mark.parametrize("kind", [ACTIVATE, ROLLBACK])
@pytest.mark.parametrize(
    ("since_s", "accepted"),
    [(0.0, False), (SOAK_S - 60, False), (SOAK_S, True), (SOAK_S * 0.99, True), (-3600.0, False)],
)
def test_of_a_success_before_the_soak_can_be_over_there_is_no_verdict_yet(
    kind: OperationKind, since_s: float, accepted: bool
) -> None:
    found, text = verdict(kind, Result.SUCCEEDED, NEW, NEW_BOOT, since_s=since_s)
    assert found is (Result.SUCCEEDED if accepted else None)
    assert accepted or f"only {max(since_s, 0):.0f} of 600 seconds" in text


@pytest.mark.parametrize(
    ("slots", "boot", "health"), [(OLD, NEW_BOOT, "healthy"), (NEW, OLD_BOOT, "healthy"), (NEW, NEW_BOOT, "unhealthy")]
)
def test_what_was_seen_otherwise_needs_no_more_time(slots: tuple[Slot, ...], boot: str, health: str) -> None:
    assert verdict(ACTIVATE, Result.SUCCEEDED, slots, boot, health, since_s=0.0)[0] is Result.UNKNOWN


def test_a_failure_needs_no_time() -> None:
    assert verdict(ACTIVATE, Result.UNHEALTHY, NEW, NEW_BOOT, since_s=0.0)[0] is Result.UNHEALTHY
