"""Which action is possible in which state, and the sentence when it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core.nodes import Admission, Connection, FailedHere, Node
from app.core.operations import (
    GATES,
    Action,
    ends_at_once,
    refusal,
    refusal_of_image,
    refusal_to_roll_back,
    refusal_to_update,
)
from tests.core.builders import booted, image, node, operation, pin, slot
from tests.server_kit import NOW, digest_of
from wire.messages import EvidenceClass, OperationKind, Phase

WAY_BACK = (booted(), slot("B", "0.9", good=True))


def under_way(phase: Phase, **given: object) -> Node:
    """A node with a way back, whose operation is in this phase."""
    return node(slots=WAY_BACK, operation=operation(phase=phase), desired_operation_id="op_1", **given)


STATES = {
    "idle": node(slots=WAY_BACK),
    "pending": node(slots=WAY_BACK, admission=Admission.PENDING),
    "retired": node(slots=WAY_BACK, admission=Admission.RETIRED),
    "conflict": node(slots=WAY_BACK, conflict={"since": NOW}),
    "protocol only": node(slots=WAY_BACK, evidence=EvidenceClass.PROTOCOL_ONLY.value),
    "pinned": node(slots=WAY_BACK, pin=pin()),
    "no way back": node(),
    "offline": node(slots=WAY_BACK, connection=Connection.OFFLINE),
    "leased": node(slots=WAY_BACK, operation=replace(operation(phase=Phase.STAGED), holds_lease=True)),
    "cancelled": node(slots=WAY_BACK, operation=operation(phase=Phase.STAGED, cancel_asked_at=NOW)),
    "going back": node(slots=WAY_BACK, operation=operation(OperationKind.ROLLBACK, Phase.STAGED)),
    **{phase.value: under_way(phase) for phase in Phase if phase is not Phase.IDLE},
    "not begun": under_way(Phase.IDLE),
}

_COMMANDS = (Action.UPDATE, Action.REBOOT, Action.RESCUE, Action.ROLL_BACK)
_BUSY = ("draining", "rebooting", "confirming", "rolling-back", "leased")
_OPEN = {"not begun", "staging", "staged", "leased", "going back"}

REFUSED: dict[tuple[Action, str], str] = {
    **{(action, "retired"): "retired" for action in Action},
    **{(action, "pending"): "not-admitted" for action in (*_COMMANDS, Action.LOST)},
    **{(action, "conflict"): "identity-conflict" for action in _COMMANDS},
    **{(action, "protocol only"): "protocol-only" for action in _COMMANDS},
    **{(action, state): "busy" for action in (Action.UPDATE, Action.REBOOT) for state in _BUSY},
    **{(Action.RESCUE, state): "busy" for state in _BUSY if state != "confirming"},
    **{(Action.ROLL_BACK, state): "busy" for state in ("draining", "rebooting", "rolling-back")},
    (Action.ROLL_BACK, "no way back"): "no-way-back",
    (Action.ROLL_BACK, "going back"): "already-underway",
    **{(Action.CANCEL, state): "nothing-to-cancel" for state in STATES if state not in _OPEN},
    **{
        (Action.CANCEL, state): "too-late"
        for state in ("draining", "rebooting", "confirming", "soaking", "rolling-back")
    },
    (Action.CANCEL, "cancelled"): "cancel-asked",
    (Action.CANCEL, "retired"): "retired",
    **{(Action.UNPIN, state): "not-pinned" for state in STATES if state not in ("pinned", "retired")},
    **{(Action.APPROVE, state): "admitted-already" for state in STATES if state not in ("pending", "retired")},
    **{(Action.SETTLE_CONFLICT, state): "no-conflict" for state in STATES if state not in ("conflict", "retired")},
}
"""Every other pair of action and state is possible."""


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", Action)
def test_every_action_in_every_state(action: Action, state: str) -> None:
    found = refusal(action, STATES[state])
    assert (found.code if found else None) == REFUSED.get((action, state))
    if found is not None:
        assert STATES[state].name in found.text and found.text.endswith(".")


def test_every_action_has_gates() -> None:
    assert set(GATES) == set(Action)


def refused(of: Node, target: str = "2.0", *, override: bool = False, pinned: str | None = None) -> str | None:
    found = refusal_to_update(of, image(target), override_failed=override, pinned_image_id=pinned)
    return found.code if found else None


def test_update_to_a_fitting_image() -> None:
    assert refused(node()) is None


def test_image_for_another_os_or_architecture_is_refused_by_name() -> None:
    for wrong, words in (({"os": "other"}, "other amd64"), ({"arch": "arm64"}, "demo arm64")):
        found = refusal_of_image(node(), image(**wrong))
        assert found is not None and found.code == "wrong-image"
        assert words in found.text and "web-03" in found.text and "demo amd64" in found.text


def test_withdrawn_image() -> None:
    found = refusal_of_image(node(), image(withdrawn=True))
    assert found is not None and found.code == "withdrawn"


def test_the_booted_version_is_no_update() -> None:
    assert refused(node(), "1.0") == "already-running"


def test_back_to_the_booted_version_takes_an_update_away_again() -> None:
    assert refused(under_way(Phase.STAGING), "1.0") is None


def test_an_update_that_is_under_way_is_not_begun_again() -> None:
    assert refused(under_way(Phase.STAGING)) == "already-underway"
    assert refused(node(operation=operation(phase=Phase.STAGING, cancel_asked_at=NOW))) is None


def test_pinned_elsewhere_says_by_whom_and_why() -> None:
    found = refusal_to_update(node(pin=pin()), image(), override_failed=False, pinned_image_id="image_1.0")
    assert found is not None and found.code == "pinned"
    assert "ana" in found.text and "version 1.0" in found.text and "fair" in found.text


def test_the_pinned_image_itself_is_possible() -> None:
    assert refused(node(pin=pin()), pinned="image_2.0") is None


def test_failed_here_unless_overridden_or_cleared() -> None:
    failed = FailedHere("2.0", digest_of("2.0"), "did not boot", NOW, None)
    assert refused(node(failed=(failed,))) == "failed-here"
    assert refused(node(failed=(failed,)), override=True) is None
    assert refused(node(failed=(replace(failed, cleared_at=NOW),))) is None


def test_pins_and_failures_elsewhere_never_stop_rolling_back() -> None:
    failed = FailedHere("2.0", digest_of("2.0"), "did not boot", NOW, None)
    assert refusal_to_roll_back(node(slots=WAY_BACK, pin=pin(), failed=(failed,))) is None


def test_a_way_back_that_failed_here_is_not_booted_again() -> None:
    failed = FailedHere("0.9", digest_of("0.9"), "panics", NOW, None)
    found = refusal_to_roll_back(node(slots=WAY_BACK, failed=(failed,)))
    assert found is not None and found.code == "failed-here"


@pytest.mark.parametrize(
    ("given", "phase", "expected"),
    [
        ({"connection": Connection.OFFLINE, "connected_at": NOW - 600, "last_seen_at": NOW - 60}, Phase.IDLE, True),
        ({"connection": Connection.NEVER, "connected_at": None, "last_seen_at": None}, Phase.IDLE, True),
        ({"connection": Connection.ONLINE}, Phase.IDLE, False),
        # it came and went since: it may have heard of it
        ({"connection": Connection.OFFLINE, "connected_at": NOW + 5, "last_seen_at": NOW + 9}, Phase.IDLE, False),
        ({"connection": Connection.OFFLINE, "connected_at": NOW - 600, "last_seen_at": NOW + 1}, Phase.IDLE, False),
        ({"connection": Connection.OFFLINE, "connected_at": NOW - 9, "last_seen_at": NOW - 5}, Phase.STAGING, False),
    ],
)
def test_only_what_was_never_sent_ends_without_the_nodes_word(
    given: dict[str, object], phase: Phase, expected: bool
) -> None:
    assert ends_at_once(node(**given), operation(phase=phase)) is expected


def test_a_lease_out_always_needs_the_nodes_word() -> None:
    gone = node(connection=Connection.OFFLINE, connected_at=NOW - 9, last_seen_at=NOW - 5)
    assert not ends_at_once(gone, replace(operation(), holds_lease=True))
