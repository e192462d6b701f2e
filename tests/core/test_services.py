"""What is expected of a service, what its floor is, and what explains that replicas came or went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from app.core.services import (
    NOTHING_SAID,
    ChangeCause,
    NodeMoment,
    Said,
    Seen,
    explain,
    label_of,
    rising,
    scope_of,
    serves,
    view,
)

KEY = ("shop", "web")


@pytest.mark.parametrize(
    ("said", "seen", "frozen", "expected"),
    [
        (NOTHING_SAID, Seen(healthy=2), 0, 2),
        (NOTHING_SAID, Seen(healthy=2, peak=3), 0, 3),
        (NOTHING_SAID, Seen(healthy=4, peak=3), 0, 3),  # one is being moved
        (NOTHING_SAID, Seen(healthy=4, peak=4), 3, 3),  # frozen: what is seen meanwhile lifts nothing
        (NOTHING_SAID, Seen(healthy=5, labelled=5), 3, 5),  # who says that more are wanted is heard
        (NOTHING_SAID, Seen(healthy=2, peak=3, labelled=5), 0, 5),
        (NOTHING_SAID, Seen(healthy=9, peak=9, labelled=2), 0, 2),  # a label is the word of the orchestrator
        (NOTHING_SAID, Seen(healthy=1, labelled=2), 4, 4),  # frozen when a rollout began
        (Said(expected=2), Seen(healthy=9, labelled=5), 4, 2),  # an operator lowers all of it
    ],
)
def test_expected_replicas(said: Said, seen: Seen, frozen: int, expected: int) -> None:
    assert view(KEY, said, seen, frozen=frozen).expected == expected


@pytest.mark.parametrize(
    ("said", "seen", "floor"),
    [
        (NOTHING_SAID, Seen(peak=3), 2),
        (NOTHING_SAID, Seen(peak=1), 1),
        (Said(single_allowed=True), Seen(peak=1), 0),
        (Said(single_allowed=True), Seen(peak=2), 1),  # only a single replica is freed by it
        (Said(floor=3), Seen(peak=3), 3),
        (Said(floor=1, single_allowed=True), Seen(peak=1), 0),
        (NOTHING_SAID, Seen(peak=0), 0),
        (NOTHING_SAID, Seen(peak=5, per_node=True), None),
        (Said(floor=2), Seen(peak=5, per_node=True), 2),
    ],
)
def test_floors(said: Said, seen: Seen, floor: int | None) -> None:
    found = view(KEY, said, seen, allowed_for=("rollout_a",))
    assert (found.floor, found.allowed_for) == (floor, ("rollout_a",)), "what a rollout may is no floor for all"


def heard(now: float, deaf: tuple[float, float] = (0, 0)) -> Callable[[float], float]:
    """Somebody listens all the time but between two moments."""
    return lambda since: now - since - max(0.0, min(now, deaf[1]) - max(since, deaf[0]))


def told(*steps: tuple[float, int], deaf: tuple[float, float] = (0, 0)) -> list[int]:
    """How many count after each look, at (seconds, healthy then)."""
    rise, counted, found = None, 0, []
    for now, healthy in steps:
        seen, rise = rising(rise, counted, healthy, now, heard(now, deaf))
        counted = max(counted, seen)
        found.append(counted)
    return found


def test_more_than_ever_counts_when_it_has_lasted() -> None:
    start = [(0.0, 3), (600.0, 3)]
    assert told(*start, (660.0, 4), (720.0, 3), (1200.0, 3)) == [3, 3, 3, 3, 3], "a move"
    assert told(*start, (660.0, 4), (959.0, 4), (960.0, 4)) == [3, 3, 3, 3, 4]
    assert told(*start, (660.0, 4), (800.0, 3), (801.0, 4), (1000.0, 4), (1101.0, 4)) == [3, 3, 3, 3, 3, 3, 4]
    assert told(*start, (660.0, 6), (800.0, 4), (960.0, 5), (1260.0, 5)) == [3, 3, 3, 3, 4, 5], "the least of it"


def test_a_service_that_starts_up_is_taken_as_it_is() -> None:
    assert told((0.0, 1), (10.0, 2), (299.0, 5), (301.0, 6)) == [1, 2, 5, 5]


def test_what_nobody_could_have_heard_the_end_of_does_not_last() -> None:
    steps = [(0.0, 3), (600.0, 3), (660.0, 4), (1000.0, 4)]
    assert told(*steps, (1060.0, 4), deaf=(700.0, 900.0)) == [3, 3, 3, 3, 3]
    assert told(*steps, (1161.0, 4), deaf=(700.0, 900.0)) == [3, 3, 3, 3, 4]


def test_a_clock_that_was_set_back_begins_again() -> None:
    assert told((0.0, 3), (4000.0, 3), (4060.0, 4), (1000.0, 4), (1200.0, 4), (1301.0, 4)) == [3, 3, 3, 3, 3, 4]


def test_scopes_and_names() -> None:
    assert (scope_of("shop", "edge"), scope_of("", "edge"), scope_of("", "")) == ("shop", "edge", "")
    assert (label_of(KEY), label_of(("", "web"))) == ("shop/web", "web")


@pytest.mark.parametrize(
    ("state", "health", "serving"),
    [
        ("running", "healthy", True),
        ("running", "none", True),
        ("running", "starting", False),
        ("running", "unhealthy", False),
        ("exited", "healthy", False),
    ],
)
def test_what_counts_as_a_healthy_replica(state: str, health: str, serving: bool) -> None:
    assert serves(state, health) is serving


NODE = NodeMoment(
    name="n1",
    member=True,
    online=True,
    placement_known=True,
    rebooted=False,
    boot_cause="",
    operation="",
    under_way=False,
)
UPDATE = replace(NODE, operation="Update to 2.0 by mb (rollout 7)")


@pytest.mark.parametrize(
    ("moved", "node", "cause", "text"),
    [
        (False, replace(NODE, member=False, online=False), ChangeCause.LEFT, "n1 left the fleet"),
        (
            False,
            replace(UPDATE, under_way=True, online=False),
            ChangeCause.OPERATION,
            "n1: Update to 2.0 by mb (rollout 7)",
        ),
        (False, replace(UPDATE, online=False), ChangeCause.OFFLINE, "n1 went offline"),  # long after that update
        (
            False,
            replace(NODE, rebooted=True, boot_cause="panic"),
            ChangeCause.REBOOT,
            "n1 rebooted without us (panic)",
        ),
        (False, replace(NODE, placement_known=False), ChangeCause.UNSEEN, "n1 cannot see its containers"),
        (True, NODE, ChangeCause.MOVED, "moved away from n1"),
        (False, NODE, ChangeCause.CONTAINER, "stopped or turned unhealthy on n1"),
    ],
)
def test_why_replicas_went(moved: bool, node: NodeMoment, cause: ChangeCause, text: str) -> None:
    assert explain(-1, moved, node, None) == (cause, text)


@pytest.mark.parametrize(
    ("moved", "node", "lost_by", "cause", "text"),
    [
        (False, UPDATE, ChangeCause.OPERATION, ChangeCause.OPERATION, f"back on n1 after {UPDATE.operation}"),
        (
            False,
            replace(NODE, rebooted=True, boot_cause="local command"),
            ChangeCause.OFFLINE,
            ChangeCause.REBOOT,
            "back: n1 rebooted without us (local command)",
        ),
        (False, NODE, ChangeCause.OFFLINE, ChangeCause.OFFLINE, "n1 is back"),
        (False, NODE, ChangeCause.UNSEEN, ChangeCause.UNSEEN, "n1 sees its containers again"),
        (True, NODE, ChangeCause.CONTAINER, ChangeCause.MOVED, "moved to n1"),
        (False, NODE, None, ChangeCause.CONTAINER, "runs and is healthy on n1"),
    ],
)
def test_why_replicas_came(
    moved: bool, node: NodeMoment, lost_by: ChangeCause | None, cause: ChangeCause, text: str
) -> None:
    assert explain(1, moved, node, lost_by) == (cause, text)
