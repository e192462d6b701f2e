"""What came back moments ago and has not started all its containers: plans count on them, admission does not."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from app.core.estimate import estimate
from app.core.holds import HoldCode
from app.core.plan_check import check
from app.core.planner import plan
from app.core.snapshot import Snapshot
from tests.core.plan_fleets import node, rollout, service, snapshot, snapshots, wants


def soaking(*, returning: bool, moves: int = 3) -> Snapshot:
    """Three of four replicas of a service with floor 3 serve; the fourth starts again on the node that soaks."""
    back = node("node-0", soaking=True, exposed_to="rollout 1", returning=((0, 1),) if returning else ())
    nodes = [back, *(node(f"node-{place}", (0, 1)) for place in range(1, 4))]
    return snapshot(
        nodes, services=(service("search", 4, 3),), candidates=tuple(wants(one + 1) for one in range(moves))
    )


def test_a_rollout_of_which_a_node_just_booted_ends() -> None:
    view = soaking(returning=True)
    made = plan(view)
    assert made.impossible == () and [len(wave.nodes) for wave in made.waves] == [1, 1, 1]
    assert estimate(made, view, 0).never == ""
    assert check(made, view) == []


def test_nobody_is_admitted_before_the_replica_serves() -> None:
    made = plan(soaking(returning=True))
    assert made.admitted == ()
    assert {(hold.code, hold.text.split(";")[0]) for hold in made.holds.values()} == {
        (HoldCode.SERVICE_FLOOR, "waits for search: without it 2 of 4 replicas would be left, floor 3")
    }


def test_the_node_itself_takes_what_it_brings_back() -> None:
    """Where it has to move again, another that runs the service is not in its wave."""
    view = soaking(returning=True)
    made = plan(replace(view, candidates=(*view.candidates, wants(0, 1)), rollouts=(rollout(), rollout("rollout 2"))))
    assert [len(wave.nodes) for wave in made.waves] == [1, 1, 1, 1]
    assert made.worst[0].left == 3 and made.worst[0].healthy_now == 3


def test_what_is_gone_for_longer_is_named_and_no_lower_floor_is_advised() -> None:
    [found] = plan(soaking(returning=False, moves=1)).impossible
    assert found.text == "search has 3 of 4 replicas healthy, floor 3"
    assert found.helps == ("the return of the missing replica", "another replica", "leaving node-1 out")


@settings(max_examples=100, deadline=None)
@given(snapshots())
def test_what_comes_back_admits_nobody(view: Snapshot) -> None:
    without = replace(view, nodes=tuple(replace(one, returning=()) for one in view.nodes))
    assert plan(view).admitted == plan(without).admitted
