"""The one line that lists say of a node: the most urgent reason speaks."""

from __future__ import annotations

from app.core.fleet import NodeState
from app.core.why import why
from wire.messages import Activity, Hold, Outcome, Phase, Result, Trial

FELL_BACK = Outcome(result=Result.FELL_BACK, operation_id="op_1", at=1.0, version="2.0", reason="web is down")
HOLD = Hold(code="not-confirmed", text="the booted slot a is not confirmed good")


def said(phase: Phase = Phase.IDLE, operation_hold: str | None = None, **activity: object) -> str:
    return why(
        state=NodeState.HEALTHY,
        conflict=False,
        phase=phase,
        activity=Activity(phase=phase, **activity),  # type: ignore[arg-type]
        operation_hold=operation_hold,
        pinned_to="version 1.0",
        pin_reason="certified",
    )


def test_an_operation_that_may_not_begin_says_why() -> None:
    assert said(operation_id="op_2", holds=[HOLD], outcome=FELL_BACK) == HOLD.text


def test_what_stops_it_now_comes_before_what_happened_last() -> None:
    assert said(holds=[HOLD], outcome=FELL_BACK) == HOLD.text
    assert said(operation_hold="waits for web-01, which is being updated") == "waits for web-01, which is being updated"


def test_how_it_ended_comes_before_the_pin() -> None:
    assert said(outcome=FELL_BACK) == "fell back from 2.0: web is down"
    assert said() == "pinned to version 1.0: “certified”"


def test_under_way() -> None:
    assert said(Phase.STAGING, target="2.0", progress=0.5) == "staging 2.0, 50 %"
    assert said(Phase.STAGED, target="2.0", holds=[HOLD]) == HOLD.text
    assert said(Phase.SOAKING, trial=Trial(confirmed=True, left_s=3.0)) == "soaks"
