"""Plans of random fleets: the independent checker passes them, and they say the same every time."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.holds import HoldCode
from app.core.plan_check import check
from app.core.planner import Standing, admit, plan
from app.core.snapshot import Snapshot
from tests.core.plan_fleets import ALL, snapshots, without

LIMITS = {
    HoldCode.EXPOSURE,
    HoldCode.GROUP_BUDGET,
    HoldCode.DOMAIN_BUDGET,
    HoldCode.DOMAIN_ORDER,
    HoldCode.SINGLE_REPLICA,
    HoldCode.SERVICE_FLOOR,
}


@settings(max_examples=200, deadline=None)
@given(snapshots())
def test_every_plan_passes_the_checker(snapshot: Snapshot) -> None:
    assert check(plan(snapshot), snapshot) == []


@settings(max_examples=100, deadline=None)
@given(snapshots(), st.randoms(use_true_random=False))
def test_a_standing_brought_up_to_date_admits_what_a_new_one_does(snapshot: Snapshot, dice: random.Random) -> None:
    shuffled = list(snapshot.nodes)
    dice.shuffle(shuffled)
    strange = [replace(one, online=not one.online, placements=(), labels={}, groups=("g0",)) for one in shuffled]
    before = replace(
        snapshot, nodes=tuple(replace(strange[place], id=one.id) for place, one in enumerate(snapshot.nodes))
    )
    standing = Standing.of(before)
    standing.replace_nodes(shuffled)
    rest = (snapshot.rollouts, snapshot.candidates, snapshot.groups, snapshot.services, snapshot.now)
    standing.replace_rest(snapshot.rollouts, (), snapshot.groups, snapshot.services, 0.0)
    standing.replace_rest(*rest, snapshot.fleet_hold)
    assert admit(standing) == admit(Standing.of(snapshot))
    assert set(admit(standing).admitted) == set(plan(snapshot).admitted)
    assert standing.snapshot() == snapshot


@settings(max_examples=50, deadline=None)
@given(snapshots())
def test_a_standing_takes_other_groups_and_more_services(snapshot: Snapshot) -> None:
    """Failure domains that were none before, and services that nobody had seen."""
    plain = without(snapshot, domain_label="")
    unknown = replace(
        plain, services=(), nodes=tuple(replace(one, placements=(), returning=()) for one in snapshot.nodes)
    )
    standing = Standing.of(unknown)
    standing.replace_rest(
        snapshot.rollouts,
        snapshot.candidates,
        snapshot.groups,
        snapshot.services,
        snapshot.now,
        snapshot.fleet_hold,
    )
    standing.replace_nodes(snapshot.nodes)
    assert admit(standing) == admit(Standing.of(snapshot))


@settings(max_examples=100, deadline=None)
@given(snapshots(), st.randoms(use_true_random=False))
def test_the_order_of_candidates_changes_nothing(snapshot: Snapshot, dice: random.Random) -> None:
    places = list(range(len(snapshot.candidates)))
    dice.shuffle(places)
    shuffled = replace(snapshot, candidates=tuple(snapshot.candidates[place] for place in places))
    before, after = plan(snapshot), plan(shuffled)
    assert list(before.admitted) == [places[place] for place in after.admitted]
    assert {places[place]: hold for place, hold in after.holds.items()} == dict(before.holds)
    assert [sorted(wave.nodes) for wave in before.waves] == [sorted(wave.nodes) for wave in after.waves]
    assert (before.worst, before.impossible) == (after.worst, after.impossible)


@settings(max_examples=100, deadline=None)
@given(snapshots())
def test_with_room_for_everybody_nobody_goes_who_could_not_and_all_others_do(snapshot: Snapshot) -> None:
    """Floors and budgets only ever hold; lifting them all admits everybody that they held and who went before."""
    lifted = without(snapshot, max_unavailable=ALL, max_per_domain=0, one_domain_after_another=False)
    lifted = replace(
        lifted,
        services=tuple(replace(one, floor=None) for one in lifted.services),
        rollouts=tuple(replace(one, policy=replace(one.policy, max_unavailable=ALL)) for one in lifted.rollouts),
    )
    before, after = plan(snapshot), plan(lifted)
    assert set(before.admitted) <= set(after.admitted)
    freed = set(after.admitted) - set(before.admitted)
    assert all(before.holds[place].code in LIMITS for place in freed)
