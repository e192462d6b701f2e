"""Clocks advance only while silence could have been heard (rule 4)."""

from __future__ import annotations

import pytest

from app.core.clocks import (
    GATEWAY_FRESH_S,
    LONGEST_STEP_S,
    STEP_S,
    GatewaySeen,
    could_hear,
    counted_since,
    deadline_s,
    listened_s,
    presumed_gone,
    step_s,
    timed_out_text,
)
from app.core.policy import Policy
from tests.core.builders import operation
from tests.server_kit import NOW
from wire.messages import Phase

POLICY = Policy()
ALLOWANCE_S = POLICY.reconnect_allowance_s


def gateway(id: str, up_s: float, silent_s: float = 0.0, stopped_s: float | None = None) -> GatewaySeen:
    """Started, last heard and stopped that long ago."""
    return GatewaySeen(id, NOW - up_s, NOW - silent_s, None if stopped_s is None else NOW - stopped_s)


OLD = gateway("old", 3600)
YOUNG = gateway("young", ALLOWANCE_S - 1)
DEAD = gateway("dead", 3600, silent_s=GATEWAY_FRESH_S + 1)
LONG_DEAD = gateway("long-dead", 3600, silent_s=ALLOWANCE_S + 1)
STOPPED = gateway("stopped", 3600, stopped_s=5)

HEARD = [
    ([], None, False),
    ([OLD], None, True),
    ([YOUNG], None, False),  # just started: agents return with jitter
    ([YOUNG], "young", True),  # connected to it already
    ([DEAD], "dead", False),
    ([DEAD], None, False),
    ([STOPPED], "stopped", False),
    ([OLD, DEAD], "dead", False),  # its gateway died just now: it gets the allowance
    ([OLD, STOPPED], "stopped", False),
    ([OLD, LONG_DEAD], "long-dead", True),
    ([YOUNG, LONG_DEAD], "long-dead", False),
    ([OLD], "forgotten", True),
]


@pytest.mark.parametrize(("gateways", "own", "heard"), HEARD)
def test_could_hear(gateways: list[GatewaySeen], own: str | None, heard: bool) -> None:
    assert could_hear({one.id: one for one in gateways}, own, NOW, POLICY) is heard


PATIENCE_S = ALLOWANCE_S + POLICY.offline_grace_s
GONE = [
    ([OLD], "old", False),
    ([DEAD], "dead", False),  # nobody could have heard the node: it stays as it was
    ([OLD, DEAD], "dead", False),
    ([OLD, gateway("gone", 3600, silent_s=PATIENCE_S + 1)], "gone", True),
    ([YOUNG, gateway("gone", 3600, silent_s=PATIENCE_S + 1)], "gone", False),
    ([OLD, gateway("gone", 3600, silent_s=PATIENCE_S + 1, stopped_s=PATIENCE_S - 1)], "gone", False),
    ([OLD], "forgotten", True),
]


@pytest.mark.parametrize(("gateways", "own", "gone"), GONE)
def test_presumed_gone(gateways: list[GatewaySeen], own: str, gone: bool) -> None:
    assert presumed_gone({one.id: one for one in gateways}, own, NOW, POLICY) is gone


@pytest.mark.parametrize(
    ("passed_s", "counted_s"), [(0.5, 0.0), (STEP_S, STEP_S), (20.0, 20.0), (3600.0, LONGEST_STEP_S), (-5.0, 0.0)]
)
def test_an_outage_of_ours_is_not_the_nodes_time(passed_s: float, counted_s: float) -> None:
    assert step_s(NOW - passed_s, NOW) == counted_s


def test_a_clock_begins_at_nothing() -> None:
    assert step_s(None, NOW) == 0.0


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_has_a_deadline_and_its_words(phase: Phase) -> None:
    one = operation(phase=phase)
    assert deadline_s(one, POLICY) > 0
    assert timed_out_text(one, POLICY).startswith("the node ")


def test_kept_way_back_is_no_delay_of_the_node() -> None:
    kept = Policy(keep_way_back_s=86_400.0)
    assert deadline_s(operation(), kept) >= 86_400.0


def seen(id: str, started_s: float, until_s: float, *, stopped: bool = True) -> GatewaySeen:
    """A gateway that was up from and to so many seconds after NOW."""
    return GatewaySeen(id, NOW + started_s, NOW + until_s, NOW + until_s if stopped else None)


@pytest.mark.parametrize(
    ("gateways", "heard_s"),
    [
        ([], 0),
        ([seen("a", -100, 50)], 50),  # up when the node went away
        ([seen("a", -100, -10)], 0),
        ([seen("a", 10, 30), seen("b", 20, 60)], 50),  # both at once count once
        ([seen("b", 80, 90), seen("a", 10, 30)], 30),  # and what was between them not at all
        ([seen("a", 0, 100), seen("b", 20, 30)], 100),
        ([seen("a", 0, 500, stopped=False)], 100),  # a heartbeat of the future is from before our clock was set back
    ],
)
def test_for_how_long_somebody_could_have_heard_a_node(gateways: list[GatewaySeen], heard_s: float) -> None:
    assert listened_s(gateways, NOW, NOW + 100) == heard_s


def test_what_is_counted_by_steps_has_a_beginning_by_the_clock_as_it_goes() -> None:
    assert counted_since(NOW, 100.0, NOW) == NOW - 100
    assert counted_since(NOW, 100.0, NOW + 20) == NOW - 100, "the step that runs counts already"
    assert counted_since(NOW, 100.0, NOW + 3600) == NOW + 3600 - 100 - LONGEST_STEP_S
    assert counted_since(NOW, 100.0, NOW - 3600) == NOW - 3600 - 100
