"""From what checks found to the node's health."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.checks import verdict
from wire.limits import CHECKS, REASONS
from wire.messages import Check, CheckState, HealthState


def check(state: CheckState, *, required: bool = True, name: str = "x") -> Check:
    return Check(name=name, state=state, required=required, text="t")


NAMES = st.sampled_from("abc")
SOME_CHECKS = st.lists(st.builds(check, st.sampled_from(CheckState), required=st.booleans(), name=NAMES))


@given(SOME_CHECKS)
def test_the_verdict_is_the_worst_that_was_found(checks: list[Check]) -> None:
    health = verdict(checks)
    bad = [c for c in checks if c.state in (CheckState.FAILED, CheckState.TIMED_OUT)]
    unknown = [c for c in checks if c.state is CheckState.UNKNOWN]
    assert (health.state is HealthState.UNHEALTHY) == any(c.required for c in bad)
    if health.state is HealthState.HEALTHY:
        assert any(c.state is CheckState.PASSED for c in checks)
        assert not bad
        assert not any(c.required for c in unknown)
    assert (health.reasons == []) == (health.state is HealthState.HEALTHY)
    assert health.checks == checks


@given(SOME_CHECKS, st.booleans())
def test_one_more_failure_never_makes_it_better(checks: list[Check], required: bool) -> None:
    order = [HealthState.HEALTHY, HealthState.DEGRADED, HealthState.UNKNOWN, HealthState.UNHEALTHY]
    if not checks:
        return
    more = [*checks, check(CheckState.FAILED, required=required)]
    before, after = verdict(checks).state, verdict(more).state
    if before is HealthState.UNKNOWN and not required and not any(c.required for c in checks):
        assert after is HealthState.DEGRADED  # now something is known, and it is bad
    else:
        assert order.index(after) >= order.index(before)


def test_required_failures_come_first_among_the_reasons() -> None:
    health = verdict(
        [
            check(CheckState.FAILED, required=False, name="a"),
            check(CheckState.TIMED_OUT, required=True, name="b"),
            check(CheckState.FAILED, required=True, name="c"),
        ]
    )
    assert health.reasons == ["b: t.", "c: t.", "a: t."]


def test_more_than_the_wire_takes_is_cut_and_says_so() -> None:
    passed = [check(CheckState.PASSED, name=f"p{number}") for number in range(CHECKS)]
    failed = [check(CheckState.FAILED, name=f"f{number}") for number in range(REASONS + 2)]
    health = verdict([*passed, *failed])
    assert len(health.reasons) == REASONS
    assert health.reasons[-1] == "And 3 more."
    assert len(health.checks) == CHECKS
    assert {c.name for c in failed} <= {c.name for c in health.checks}
