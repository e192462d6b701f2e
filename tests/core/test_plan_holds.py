"""Every hold is true, and a rule that is taken away moves exactly the nodes that it held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from app.core.group_policy import GroupPolicy
from app.core.holds import Hold, HoldCode
from app.core.plan import Plan
from app.core.plan_check import check_admitted
from app.core.plan_facts import Facts, leads_back
from app.core.planner import plan
from app.core.planning.words import service_name
from app.core.rollouts import ACTIVE
from app.core.snapshot import Candidate, NodeView, RolloutView, Snapshot
from tests.core.plan_fleets import ALL, NOW, snapshots, without

ROOM = {
    HoldCode.EXPOSURE,
    HoldCode.GROUP_BUDGET,
    HoldCode.DOMAIN_BUDGET,
    HoldCode.SINGLE_REPLICA,
    HoldCode.SERVICE_FLOOR,
}
NODE: dict[HoldCode, Callable[[NodeView], bool]] = {
    HoldCode.NOT_COMMANDABLE: lambda node: not node.commandable,
    HoldCode.ABSENT: lambda node: node.absent,
    HoldCode.OFFLINE: lambda node: not node.online,
    HoldCode.PINNED: lambda node: bool(node.pinned_to),
    HoldCode.VERSION_EDGE: lambda node: node.version == "1.0",
    HoldCode.DOWNGRADE: lambda node: node.version == "2.1",
    HoldCode.FAILED_HERE: lambda node: "sha-2.0" in node.failed,
    HoldCode.PLACEMENT_UNKNOWN: lambda node: not node.placement_known and node.up,
}
ROLLOUT: dict[HoldCode, Callable[[RolloutView], bool]] = {
    HoldCode.WITHDRAWN: lambda rollout: rollout.targets[0].withdrawn,
    HoldCode.NOT_RUNNING: lambda rollout: rollout.state not in ACTIVE,
    HoldCode.MINIMUM_AGE: lambda rollout: not leads_back(rollout),
    HoldCode.WINDOW: lambda rollout: not leads_back(rollout) and not rollout.break_glass,
    HoldCode.FREEZE: lambda rollout: not leads_back(rollout) and not rollout.break_glass,
    HoldCode.CANARIES: lambda rollout: rollout.canaries_left > 0 or rollout.canaries_soaked_at == NOW - 60,
    HoldCode.HEALTH_GATE: lambda rollout: not leads_back(rollout),
}


@settings(max_examples=150, deadline=None)
@given(snapshots())
def test_every_hold_is_true(snapshot: Snapshot) -> None:
    made = plan(snapshot)
    for place, hold in made.holds.items():
        candidate = snapshot.candidates[place]
        node, rollout = snapshot.nodes[candidate.node], snapshot.rollouts[candidate.rollout]
        if hold.code in NODE:
            assert NODE[hold.code](node), hold
        elif hold.code in ROLLOUT:
            assert ROLLOUT[hold.code](rollout), hold
        elif hold.code in ROOM:
            assert _no_room(snapshot, made, candidate, hold), hold
        elif hold.code is HoldCode.DOMAIN_ORDER:
            assert Facts(snapshot).groups[node.groups[0]].policy.one_domain_after_another
        elif hold.code is HoldCode.OTHER_ROLLOUT:
            assert [one.node for one in snapshot.candidates].count(candidate.node) > 1
        else:
            assert hold.code is HoldCode.NOT_READY and not candidate.ready, hold


def _no_room(snapshot: Snapshot, made: Plan, candidate: Candidate, hold: Hold) -> bool:
    """Beside what was admitted, or alone when everything of ours is back, the node breaks just this."""
    facts = Facts(snapshot)
    names = {service_name(one.key): one.key for one in snapshot.services}
    tried = []
    for back in (False, True):
        beside = [] if back else [snapshot.candidates[place] for place in made.admitted]
        costs = [facts.costs(one, back=back) for one in (*beside, candidate)]
        tried.append(check_admitted(costs, facts.budgets(back=back)))
        if hold.subject in names:  # a service may lack room although a budget, which comes first, does too
            key = names[hold.subject]
            only = replace(facts.budgets(back=back), groups={}, domains={}, exposures={})
            only = replace(only, services={key: only.services[key]})
            tried.append(check_admitted(costs, only))
    return any(one and one[-1].node == snapshot.nodes[candidate.node].name for one in tried)


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


def _without_policy(**given: Any) -> Callable[[Snapshot], Snapshot]:
    return lambda snapshot: without(snapshot, **given)


def _thawed(snapshot: Snapshot) -> Snapshot:
    groups = tuple(replace(one, frozen=None) for one in snapshot.groups)
    return replace(snapshot, groups=groups, fleet_hold=None)


def _all_ready(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, candidates=tuple(replace(one, ready=True) for one in snapshot.candidates))


def _healthy(snapshot: Snapshot) -> Snapshot:
    return without(_of_rollouts(gates=())(snapshot), health_gate=False)


REMOVED: dict[HoldCode, Callable[[Snapshot], Snapshot]] = {
    HoldCode.NOT_COMMANDABLE: _nodes(commandable=True),
    HoldCode.PINNED: _nodes(pinned_to="", pin_digest=""),
    HoldCode.VERSION_EDGE: _of_targets(must_pass=()),
    HoldCode.DOWNGRADE: _of_rollouts(allow_downgrade=True),
    HoldCode.WITHDRAWN: _of_targets(withdrawn=False),
    HoldCode.FAILED_HERE: _nodes(failed=frozenset()),
    HoldCode.FREEZE: _thawed,
    HoldCode.WINDOW: _without_policy(windows=()),
    HoldCode.MINIMUM_AGE: _without_policy(minimum_age_s=0.0),
    HoldCode.NOT_READY: _all_ready,
    HoldCode.CANARIES: _of_rollouts(canaries_left=0, canaries_soaked_at=None),
    HoldCode.PLACEMENT_UNKNOWN: _nodes(placement_known=True),
    HoldCode.HEALTH_GATE: _healthy,
}


@pytest.mark.parametrize("code", REMOVED, ids=lambda code: code.value)
@settings(max_examples=25, deadline=None)
@given(snapshots())
def test_a_gate_that_is_taken_away_moves_exactly_the_nodes_that_it_held(code: HoldCode, snapshot: Snapshot) -> None:
    """Where there is room for all, so that nobody moves in another's place."""
    snapshot = without(snapshot, max_unavailable=ALL, max_per_domain=0, one_domain_after_another=False)
    snapshot = _of_rollouts(policy=GroupPolicy(max_unavailable=ALL, canary_soak_s=1800.0))(
        replace(snapshot, services=())
    )
    snapshot = _nodes(placements=())(snapshot)
    before, after = plan(snapshot), plan(REMOVED[code](snapshot))
    held = {place for place, hold in before.holds.items() if hold.code is code}
    assert {place for place, hold in after.holds.items() if hold.code is code} == set()
    assert set(after.admitted) - set(before.admitted) <= held
    assert set(before.admitted) <= set(after.admitted)
    others = before.holds.keys() - held
    assert {place: before.holds[place].code for place in others} == {place: after.holds[place].code for place in others}


@settings(max_examples=100, deadline=None)
@given(snapshots())
def test_a_floor_that_is_taken_away_moves_exactly_the_nodes_that_it_held(snapshot: Snapshot) -> None:
    """Where no node runs two services and budgets have room for all."""
    snapshot = without(snapshot, max_unavailable=ALL, max_per_domain=0, one_domain_after_another=False)
    nodes = tuple(replace(one, placements=one.placements[:1]) for one in snapshot.nodes)
    snapshot = _of_rollouts(policy=GroupPolicy(max_unavailable=ALL))(replace(snapshot, nodes=nodes))
    before = plan(snapshot)
    for service in snapshot.services:
        others = tuple(replace(one, floor=None) if one.key == service.key else one for one in snapshot.services)
        after = plan(replace(snapshot, services=others))
        held = {place for place, hold in before.holds.items() if hold.subject == service_name(service.key)}
        assert set(after.admitted) - set(before.admitted) == {place for place in held if place not in after.holds}
        assert before.holds.keys() - held <= after.holds.keys()
        assert not {place for place, hold in after.holds.items() if hold.subject == service_name(service.key)}
