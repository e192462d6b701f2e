"""Every hold is true, and a rule that is taken away moves exactly the nodes that it held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from app.core.group_policy import Amount, GroupPolicy
from app.core.holds import Hold, HoldCode
from app.core.planner import plan
from app.core.planning.words import service_name
from app.core.rollouts import RolloutState
from app.core.snapshot import Snapshot
from tests.core.hold_truth import FOR_GOOD, GATES, ROOM, Case, is_true, lacks
from tests.core.plan_fleets import ALL, NOW, group, node, rollout, snapshot, snapshots, target, wants, without


@settings(max_examples=250, deadline=None)
@given(snapshots())
def test_every_hold_is_true(snapshot: Snapshot) -> None:
    made = plan(snapshot)
    for place, hold in made.holds.items():
        case = Case(snapshot, made, place)
        assert lacks(case, hold) if hold.code in ROOM else is_true(hold.code, case), (place, hold)


@settings(max_examples=250, deadline=None)
@given(snapshots())
def test_of_several_reasons_the_first_of_the_chain_speaks(snapshot: Snapshot) -> None:
    """What holds for good comes before all that does not, and who is held by none of the gates waits for others."""
    made = plan(snapshot)
    moves = {node for wave in made.waves for node in wave.nodes}
    for place in range(len(snapshot.candidates)):
        case = Case(snapshot, made, place)
        first = next((code for code in GATES if is_true(code, case)), None)
        hold = made.holds.get(place)
        if first in FOR_GOOD or (case.candidate.node in moves and first is not None):
            assert hold is not None and hold.code is first, (place, hold, first)
        elif first is None:
            assert hold is None or hold.code not in GATES, (place, hold)


def _nodes(**given: Any) -> Callable[[Snapshot], Snapshot]:
    return lambda snapshot: replace(snapshot, nodes=tuple(replace(one, **given) for one in snapshot.nodes))


def _of_rollouts(**given: Any) -> Callable[[Snapshot], Snapshot]:
    return lambda snapshot: replace(snapshot, rollouts=tuple(replace(one, **given) for one in snapshot.rollouts))


def _of_targets(**given: Any) -> Callable[[Snapshot], Snapshot]:
    return lambda snapshot: replace(
        snapshot,
        rollouts=tuple(
            replace(one, targets=tuple(replace(image, **given) for image in one.targets)) for one in snapshot.rollouts
        ),
    )


def _with_another_image(snapshot: Snapshot) -> Snapshot:
    other = target(os_id="other", digest="sha-2.0-other")
    return replace(snapshot, rollouts=tuple(replace(one, targets=(*one.targets, other)) for one in snapshot.rollouts))


def _without_policy(**given: Any) -> Callable[[Snapshot], Snapshot]:
    return lambda snapshot: without(snapshot, **given)


def _thawed(snapshot: Snapshot) -> Snapshot:
    groups = tuple(replace(one, frozen=None) for one in snapshot.groups)
    return replace(snapshot, groups=groups, fleet_hold=None)


def _all_ready(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, candidates=tuple(replace(one, ready=True) for one in snapshot.candidates))


def _nobody_keeps(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, candidates=tuple(replace(one, kept=None) for one in snapshot.candidates))


def _healthy(snapshot: Snapshot) -> Snapshot:
    return without(_of_rollouts(gates=())(snapshot), health_gate=False)


REMOVED: dict[HoldCode, Callable[[Snapshot], Snapshot]] = {
    HoldCode.NOT_COMMANDABLE: _nodes(commandable=True),
    HoldCode.PINNED: _nodes(pinned_to="", pin_digest=""),
    HoldCode.VERSION_EDGE: _of_targets(must_pass=(), not_from=()),
    HoldCode.DOWNGRADE: _of_rollouts(allow_downgrade=True),
    HoldCode.NO_IMAGE: _with_another_image,
    HoldCode.WITHDRAWN: _of_targets(withdrawn=False),
    HoldCode.BAD_VERSION: _of_targets(bad=""),
    HoldCode.NOT_RUNNING: _of_rollouts(state=RolloutState.RUNNING),
    HoldCode.FAILED_HERE: _nodes(failed=frozenset()),
    HoldCode.KEEPING_WAY_BACK: _nobody_keeps,
    HoldCode.FREEZE: _thawed,
    HoldCode.WINDOW: _without_policy(windows=()),
    HoldCode.MINIMUM_AGE: _without_policy(minimum_age_s=0.0),
    HoldCode.NOT_READY: _all_ready,
    HoldCode.CANARIES: _of_rollouts(canaries_left=0, canaries_soaked_at=None),
    HoldCode.PLACEMENT_UNKNOWN: _nodes(placement_known=True),
    HoldCode.HEALTH_GATE: _healthy,
}


LIMITS: dict[HoldCode, dict[str, Any]] = {
    HoldCode.GROUP_BUDGET: {"max_unavailable": ALL},
    HoldCode.DOMAIN_BUDGET: {"max_per_domain": 0},
    HoldCode.DOMAIN_ORDER: {"one_domain_after_another": False},
}
"""What takes the limit of this code away from all groups."""


def _exposing(snapshot: Snapshot) -> Snapshot:
    rollouts = [replace(one, policy=replace(one.policy, max_unavailable=ALL)) for one in snapshot.rollouts]
    return replace(snapshot, rollouts=tuple(rollouts))


def _bare(snapshot: Snapshot, code: HoldCode) -> Snapshot:
    """Without services, and with no limit but the one of this code: nobody moves in another's place."""
    for limit, none in LIMITS.items():
        snapshot = snapshot if limit is code else without(snapshot, **none)
    snapshot = snapshot if code is HoldCode.EXPOSURE else _exposing(snapshot)
    if code is not HoldCode.CANARIES:  # who is freed may be the canary that all others wait for
        snapshot = _of_rollouts(canaries_left=0)(snapshot)
    if code is HoldCode.NOT_RUNNING:  # a rollout that runs takes nodes from one that does not
        wants = tuple(one for one in snapshot.candidates if one.rollout == 0)
        snapshot = replace(snapshot, candidates=wants)
    return replace(_nodes(placements=(), returning=())(snapshot), services=())


@pytest.mark.parametrize("code", [*REMOVED, *LIMITS, HoldCode.EXPOSURE], ids=lambda code: code.value)
@settings(max_examples=25, deadline=None)
@given(snapshots())
def test_a_rule_that_is_taken_away_moves_exactly_the_nodes_that_it_held(code: HoldCode, snapshot: Snapshot) -> None:
    """Those of them that nothing else holds are admitted, and for the others nothing changes."""
    snapshot = _bare(snapshot, code)
    remove = REMOVED.get(code) or (_without_policy(**LIMITS[code]) if code in LIMITS else _exposing)
    before, after = plan(snapshot), plan(remove(snapshot))
    held = {place for place, hold in before.holds.items() if hold.code is code}
    assert {place for place, hold in after.holds.items() if hold.code is code} == set()
    assert set(before.admitted) <= set(after.admitted)
    assert set(after.admitted) - set(before.admitted) == held - after.holds.keys()
    others = before.holds.keys() - held
    assert {place: before.holds[place].code for place in others} == {
        place: hold.code for place, hold in after.holds.items() if place not in held
    }


@settings(max_examples=100, deadline=None)
@given(snapshots())
def test_a_floor_that_is_taken_away_moves_exactly_the_nodes_that_it_held(snapshot: Snapshot) -> None:
    """Where no node runs two services and budgets have room for all."""
    snapshot = without(snapshot, max_unavailable=ALL, max_per_domain=0, one_domain_after_another=False)
    nodes = tuple(replace(one, placements=one.placements[:1], returning=()) for one in snapshot.nodes)
    snapshot = _of_rollouts(policy=GroupPolicy(max_unavailable=ALL))(replace(snapshot, nodes=nodes))
    before = plan(snapshot)
    for service in snapshot.services:
        others = tuple(replace(one, floor=None) if one.key == service.key else one for one in snapshot.services)
        after = plan(replace(snapshot, services=others))
        held = {place for place, hold in before.holds.items() if hold.subject == service_name(service.key)}
        assert set(after.admitted) - set(before.admitted) == {place for place in held if place not in after.holds}
        assert before.holds.keys() - held <= after.holds.keys()
        assert not {place for place, hold in after.holds.items() if hold.subject == service_name(service.key)}


def test_each_group_limits_its_own_domains() -> None:
    """The first group spreads over zones without a limit, the second allows one node of each rack."""
    groups = (group("a", domain_label="zone"), group("b", domain_label="rack", max_per_domain=1))
    nodes = [
        node(f"n{place}", groups=("a", "b"), labels={"zone": "z", "rack": rack}) for place, rack in enumerate("1122")
    ]
    made = plan(snapshot(nodes, groups=groups))
    assert {nodes[place].labels["rack"] for place in made.admitted} == {"1", "2"} and len(made.admitted) == 2
    assert {(hold.code, hold.subject) for hold in made.holds.values()} == {(HoldCode.DOMAIN_BUDGET, "b")}
    assert [len(wave.nodes) for wave in made.waves] == [2, 2]


def test_a_freeze_of_any_of_its_groups_holds_a_node() -> None:
    frozen = Hold(HoldCode.FREEZE, "is frozen by mia", "freeze-1", until=NOW + 3600.0)
    groups = (group("a"), replace(group("b"), frozen=frozen))
    nodes = [node("n0", groups=("a",)), node("n1", groups=("a", "b")), node("n2", groups=("b", "a"))]
    made = plan(snapshot(nodes, groups=groups))
    assert made.admitted == (0,)
    assert dict(made.holds) == {1: frozen, 2: frozen}


def test_who_is_exposed_already_exposes_nobody_more() -> None:
    """The one node that may be exposed is soaking, and has to be activated once more."""
    rollouts = (rollout(policy=GroupPolicy(max_unavailable=Amount(count=1))),)
    made = plan(snapshot([node("n0", exposed_to="rollout 1", soaking=True), node("n1")], rollouts=rollouts))
    assert made.admitted == (0,)
    assert made.holds[1].code is HoldCode.EXPOSURE


def test_nobody_goes_before_the_turn_of_its_domain() -> None:
    """Also where it is first by name and nobody was let go yet; what is under way keeps the turn."""
    groups = (group(domain_label="zone", one_domain_after_another=True),)
    nodes = [node("n0", labels={"zone": "b"}), node("n1", labels={"zone": "a"}), node("n2", labels={"zone": "b"})]
    made = plan(snapshot(nodes, groups=groups))
    assert made.admitted == (1,)
    assert {place: hold.code for place, hold in made.holds.items()} == dict.fromkeys((0, 2), HoldCode.DOMAIN_ORDER)
    nodes[2] = replace(nodes[2], on_trial=True, exposed_to="rollout 1")
    assert plan(snapshot(nodes, groups=groups, candidates=(wants(0), wants(1)))).admitted == (0,)


def test_a_way_back_is_not_kept_from_its_slot() -> None:
    kept = Hold(HoldCode.KEEPING_WAY_BACK, "keeps its way back for rollout 7, which is not over", "r7")
    nodes, wanted = [node("n0"), node("n1")], (wants(0, kept=kept), wants(1))
    made = plan(snapshot(nodes, candidates=wanted))
    assert made.admitted == (1,) and dict(made.holds) == {0: kept}
    back = plan(snapshot(nodes, candidates=wanted, rollouts=(rollout(reverse=True),)))
    assert back.admitted == (0, 1)


def test_who_has_staged_the_target_already_loses_no_way_back() -> None:
    nodes = [node("n0", has_local_way_back=True), node("n1", has_local_way_back=True, staged_digest="sha-2.0")]
    assert plan(snapshot(nodes)).loses_way_back == (0,)


def test_who_keeps_its_way_back_does_not_lose_it() -> None:
    kept = Hold(HoldCode.KEEPING_WAY_BACK, "keeps its way back for rollout 7, which is not over", "r7")
    nodes = [node("n0", has_local_way_back=True), node("n1", has_local_way_back=True)]
    assert plan(snapshot(nodes, candidates=(wants(0, kept=kept), wants(1)))).loses_way_back == (1,)


@pytest.mark.parametrize("of", ["the budget of group g", "zone a of group g"])
@pytest.mark.parametrize(
    ("sick", "words"), [(0, "2 nodes away, at most 2"), (1, "2 nodes away and 1 unhealthy, at most 3")]
)
def test_a_budget_says_what_takes_it(of: str, sick: int, words: str) -> None:
    """Who looks for a node that is down does not find the one that is up and unhealthy."""
    policy = {"max_unavailable": Amount(count=2 + sick)} if "budget" in of else {"max_per_domain": 2 + sick}
    nodes = [
        node(f"n{place}", labels={"zone": "a"}, reserved=0 < place < 3, healthy=place < 3) for place in range(3 + sick)
    ]
    groups = (group(domain_label="zone", health_gate=False, **policy),)
    made = plan(snapshot(nodes, groups=groups, candidates=(wants(0),)))
    assert made.holds[0].text.startswith(f"waits for {of}: {words}")


def test_an_unhealthy_node_does_not_wait_for_the_unhealthy_ones() -> None:
    """Else it could be led to no other version, and its group would stay shut for ever; the healthy one waits."""
    nodes = [node(f"n{place}", healthy=place < 1) for place in range(3)]
    of_one = rollout("an order to n1", direct=True)
    gate = Hold(HoldCode.HEALTH_GATE, "errors is shut", "errors")
    of_shut = rollout("rollout 2", gates=(gate,))
    groups = (group(failure_limit=Amount(count=0)),)
    candidates = (wants(0), wants(1, 1), wants(2, 2))
    made = plan(snapshot(nodes, groups=groups, rollouts=(rollout(), of_one, of_shut), candidates=candidates))
    assert made.admitted == (1,)
    assert made.holds[0].text == "waits for the nodes of group g: 2 are unhealthy"
    assert made.holds[2] == gate, "a query says nothing of who is unhealthy"
