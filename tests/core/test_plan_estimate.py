"""How long a rollout takes: waves, soaks, windows and canaries, or the sentence why it never ends."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from app.core.estimate import Estimate, estimate
from app.core.group_policy import Amount, GroupPolicy, Window
from app.core.holds import Hold, HoldCode
from app.core.planner import plan
from app.core.policy import Policy
from app.core.rollouts import RolloutState
from app.core.snapshot import MoveTimes, Snapshot
from tests.core.plan_fleets import ALL, NOW, group, node, rollout, service, snapshot, wants

TIMING = Policy(soak_s=600.0, confirm_s=100.0, reboot_deadline_s=200.0)
NODES = [node(f"node-{place}", (0, 1)) for place in range(4)]


def of(view: Snapshot) -> Estimate:
    return estimate(plan(view), view, 0)


def after(view: Snapshot, fastest_s: float, slowest_s: float) -> Estimate:
    """When some of its nodes have moved, in these times."""
    moved = MoveTimes(3, fastest_s, slowest_s)
    found = of(replace(view, rollouts=(replace(view.rollouts[0], moved=moved),)))
    assert found.moved == moved
    return replace(found, moved=None)


def policy(most: Amount = ALL, canary_soak_s: float = 0.0, drain: str = "") -> GroupPolicy:
    return GroupPolicy(timing=TIMING, max_unavailable=most, canary_soak_s=canary_soak_s, drain=drain, drain_s=50.0)


def test_waves_that_wait_for_each_others_soak() -> None:
    """Two of four may be exposed: two waves, each with its move and its soak."""
    view = snapshot(NODES, services=(service("db", 4, None),), rollouts=(rollout(policy=policy(Amount(count=2))),))
    assert of(view) == Estimate(2 * 605.0, 2 * 900.0)
    assert after(view, 60.0, 70.0) == Estimate(2 * 630.0, 2 * 740.0)


def test_what_moved_narrows_the_range_within_what_any_machine_and_the_deadlines_allow() -> None:
    """Nobody is taken to be twice as fast, or twice as slow, as all that moved before."""
    views = (rollout(policy=policy()),)
    view = snapshot(NODES[:1], services=(service("db", 4, None),), rollouts=views)
    assert of(view) == Estimate(605.0, 900.0)
    assert after(view, 20.0, 30.0) == Estimate(610.0, 660.0)
    assert after(view, 1.0, 2.0) == Estimate(605.0, 605.0)
    assert after(view, 280.0, 290.0) == Estimate(740.0, 900.0)


def test_narrow_waves_go_on_while_earlier_ones_soak() -> None:
    """A floor allows one at a time, the rollout four: one soak's worth for all of them together."""
    view = snapshot(NODES, services=(service("db", 4, 3),), rollouts=(rollout(policy=policy()),))
    assert after(view, 120.0, 30.0) == Estimate(4 * 60.0 + 600.0, 4 * 60.0 + 600.0 * 1.75)


def test_the_low_end_is_passed_by_no_machine_however_fast() -> None:
    """A canary and ten others, three exposed at once, seconds of soak: eleven machines that boot in six seconds took
    140 s, floors and domains included."""
    timing = Policy(soak_s=20.0, confirm_s=15.0)
    own = GroupPolicy(timing=timing, max_unavailable=Amount(count=3), canary_soak_s=10.0)
    some = tuple(wants(place, canary=place == 0) for place in range(11))
    nodes = [node(f"node-{place}", (place % 3, 1)) for place in range(11)]
    services = tuple(service(f"db-{one}", 4 if one < 2 else 3, 2) for one in range(3))
    view = snapshot(nodes, services=services, rollouts=(rollout(policy=own, canaries_left=1),), candidates=some)
    assert of(view).low_s == 5.0 + 20.0 + 10.0 + 4 * (5.0 + 20.0) < 140.0


def test_draining_counts_where_there_is_a_command() -> None:
    view = snapshot(NODES[:1], services=(service("db", 4, None),), rollouts=(rollout(policy=policy(drain="empty")),))
    assert of(view).high_s == 50.0 + 200.0 + 100.0 + 600.0


def test_canaries_come_first() -> None:
    some = tuple(wants(place, canary=place == 0) for place in range(4))
    views = (rollout(policy=policy(canary_soak_s=1000.0), canaries_left=1),)
    view = snapshot(NODES, services=(service("db", 4, None),), rollouts=views, candidates=some)
    assert of(view).low_s == 605.0 + 1000.0 + 605.0
    soaking = replace(views[0], canaries_left=0, canaries_soaked_at=NOW - 400)
    later = replace(view, rollouts=(soaking,), candidates=tuple(wants(place) for place in range(4)))
    assert of(later).low_s == 600.0 + 605.0


def test_what_is_not_staged_is_staged_first() -> None:
    some = (wants(0, ready=False),)
    view = snapshot(
        NODES[:1], services=(service("db", 4, None),), rollouts=(rollout(policy=policy()),), candidates=some
    )
    assert of(view).low_s == 605.0
    assert of(view).high_s == 900.0 + 60.0 + 1800.0
    staged = replace(view, nodes=(replace(NODES[0], staged_digest="sha-2.0"),))
    assert of(staged).high_s == 900.0, "it waits for its lease, and not for a download"


def test_windows_bound_each_wave() -> None:
    """It is Monday, 14:13:20; open from 15:00 to 15:15 each day: two waves of 660 s begin in each stretch."""
    hour = (Window(frozenset(range(7)), "15:00", "15:15", "UTC"),)
    views = (rollout(policy=policy(Amount(count=1))),)
    view = snapshot(NODES, services=(service("db", 4, None),), groups=(group(windows=hour),), rollouts=views)
    until_opening = 15 * 3600.0 - NOW % 86_400
    assert of(view).low_s == until_opening + 86_400.0 + 2 * 605.0
    glass = replace(view, rollouts=(replace(views[0], break_glass=True),))
    assert of(glass).low_s == 4 * 605.0


def test_more_waves_than_the_coming_windows_have_room_for() -> None:
    short = (Window(frozenset({0}), "15:00", "15:01", "UTC"),)
    nodes = [node(f"node-{place}") for place in range(200)]
    view = snapshot(nodes, groups=(group(windows=short),), rollouts=(rollout(policy=policy(Amount(count=1))),))
    assert math.isinf(of(view).high_s)


@pytest.mark.parametrize("state", [RolloutState.DRAFT, RolloutState.RUNNING])
def test_it_never_ends_and_says_what_would_help(state: RolloutState) -> None:
    nodes = [node("node-0", (0, 1)), node("node-1"), node("node-2", pinned_to="1.0"), node("node-3", pinned_to="1.0")]
    view = snapshot(nodes, services=(service("ledger", 1, 1),), rollouts=(rollout(state=state, policy=policy()),))
    found = of(view)
    assert found.never == (
        "never ends unless this changes: ledger has a single replica, which may not move (another replica, an "
        "allowance for the single replica of ledger or leaving node-0 out would help); node-2 and node-3 are pinned"
    )
    assert found.low_s == 605.0


def test_a_rollout_with_nothing_left_to_move_has_no_time() -> None:
    assert of(snapshot([], candidates=())) == Estimate(0.0, 0.0)


def test_a_freeze_that_holds_all_of_them_is_not_helped_by_leaving_all_of_them_out() -> None:
    hold = Hold(HoldCode.FREEZE, "the whole fleet is frozen by mb: “quarter end”", "")
    frozen = replace(group(), frozen=hold)
    view = snapshot([node(f"node-{place}") for place in range(9)], groups=(frozen,), rollouts=(rollout(),))
    [found] = plan(view).impossible
    assert found.waits and found.helps == ("lifting the freeze", "an end for it")
