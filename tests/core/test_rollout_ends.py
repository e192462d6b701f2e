"""What ends mean for a rollout, and when it stops by itself."""

from __future__ import annotations

import pytest

from app.core.group_policy import Amount, GroupPolicy
from app.core.rollout_ends import END_WORDS, ENDS, Tally, blames_version, nothing_attempted, stops
from app.core.rollouts import RolloutNodeState
from wire.messages import Phase, Result


def test_every_result_has_its_meaning() -> None:
    assert set(ENDS) == set(Result)
    assert [result for result, state in ENDS.items() if state is RolloutNodeState.DONE] == [Result.SUCCEEDED]
    left = {result for result, state in ENDS.items() if state is RolloutNodeState.LEFT}
    assert set(END_WORDS) == left | {Result.UNREACHABLE}


@pytest.mark.parametrize("result", [Result.CANCELLED, Result.REFUSED])
def test_what_says_nothing_about_the_version_fails_nobody(result: Result) -> None:
    assert ENDS[result] is RolloutNodeState.LEFT


@pytest.mark.parametrize(
    ("phase", "asked", "had_lease", "nothing"),
    [
        (Phase.STAGED, True, False, True),
        (Phase.STAGED, False, False, True),  # held on the node itself: it staged, and did not come to ask
        (Phase.IDLE, True, False, True),  # a reboot stages nothing
        (Phase.IDLE, False, False, False),
        (Phase.STAGING, True, False, False),
        (Phase.STAGED, True, True, False),
        (Phase.REBOOTING, True, False, False),
    ],
)
def test_who_only_waited_for_its_lease_attempted_nothing(
    phase: Phase, asked: bool, had_lease: bool, nothing: bool
) -> None:
    assert nothing_attempted(Result.TIMED_OUT, phase, asked=asked, had_lease=had_lease) is nothing
    assert not nothing_attempted(Result.STAGE_FAILED, phase, asked=asked, had_lease=had_lease)


@pytest.mark.parametrize(
    ("limit", "attempted", "failed", "stopped"),
    [
        (Amount(count=1), 5, 1, False),
        (Amount(count=1), 5, 2, True),
        (Amount(count=0), 5, 1, True),
        (Amount(share=0.1), 100, 10, False),
        (Amount(share=0.1), 100, 11, True),
        (Amount(share=0.1), 1, 1, False),  # below `failure_least` no share stops it
        (Amount(share=0.1), 3, 2, True),
    ],
)
def test_the_failure_limit(limit: Amount, attempted: int, failed: int, stopped: bool) -> None:
    tally = Tally(attempted, failed, first_failure="n1: fell back")
    why = stops(GroupPolicy(failure_limit=limit, failure_least=2), tally)
    assert (why is not None) is stopped
    assert why is None or ("n1: fell back" in why and f"{failed} of {attempted}" in why)


@pytest.mark.parametrize("given", [{"canaries_failed": ("n1",)}, {"canaries_refused": ("n1", "n2")}])
def test_one_canary_is_enough(given: dict[str, tuple[str, ...]]) -> None:
    why = stops(GroupPolicy(failure_limit=Amount(count=9)), Tally(9, 0, **given))  # type: ignore[arg-type]
    assert why is not None and why.startswith("Canary n1")


def test_who_could_reach_nobody_stops_it_and_is_not_held_against_the_version() -> None:
    policy = GroupPolicy(failure_limit=Amount(count=1))
    canary = Tally(1, 1, unreachable=1, canaries_unreachable=("n1",))
    assert stops(policy, canary) == "Canary n1 went back because nothing could be reached"
    two = Tally(9, 2, unreachable=2)
    assert stops(policy, two) == "2 of 9 nodes failed (2 because nothing could be reached), and 1 may"
    assert not blames_version(policy, canary) and not blames_version(policy, two)
    assert not blames_version(policy, Tally(9, 2, unreachable=1)), "one that fell back is within the limit"
    assert blames_version(policy, Tally(9, 3, unreachable=1))
    assert blames_version(policy, Tally(2, 2, ("n2",), unreachable=1, canaries_unreachable=("n1",)))
