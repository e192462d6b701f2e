"""Plans of random fleets: the independent checker passes them, and they say the same every time."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.plan_check import check
from app.core.planner import Standing, admit, plan
from app.core.snapshot import Snapshot
from tests.core.plan_fleets import snapshots


@settings(max_examples=400, deadline=None)
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
