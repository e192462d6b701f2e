"""The checker finds what it is there to find: each plan here is wrong in one way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.core.group_policy import Amount, GroupPolicy
from app.core.plan import Plan, Wave
from app.core.plan_check import Budgets, Costs, Supply, check, check_admitted
from app.core.planner import plan
from app.core.rollouts import RolloutState
from app.core.snapshot import Snapshot
from tests.core.plan_fleets import NOW, SHUT, group, node, rollout, service, snapshot, target, wants

PAIR = [node("node-0", (0, 1), labels={"zone": "a"}), node("node-1", (0, 1), labels={"zone": "b"})]


def costs(name: str, **given: Any) -> Costs:
    values: dict[str, Any] = {"node": name, "already_missing": False, "services": {}, "groups": (), "domains": ()}
    return Costs(**(values | {"rollout": ""} | given))


def forced(view: Snapshot, admitted: tuple[int, ...] = (0, 1), waves: tuple[Wave, ...] = ()) -> Plan:
    """A plan that admits what it should not, and says nothing wrong otherwise."""
    made = plan(view)
    holds = {place: hold for place, hold in made.holds.items() if place not in admitted}
    return replace(made, admitted=admitted, waves=waves, holds=holds)


@pytest.mark.parametrize(
    ("view", "says"),
    [
        (snapshot(PAIR, services=(service("db", 2, 1),)), "/db would have 0 healthy replicas, floor 1"),
        (snapshot(PAIR, groups=(group(max_unavailable=Amount(count=1)),)), "group g would miss 2 nodes, at most 1"),
        (
            snapshot(PAIR, rollouts=(rollout(policy=GroupPolicy(max_unavailable=Amount(count=1))),)),
            "rollout rollout 1 would expose 2 nodes, at most 1",
        ),
        (snapshot(PAIR, groups=(group(domain_label="rack", max_per_domain=1),)), "domain  would miss 2"),
        (snapshot(PAIR, groups=(group(domain_label="zone", one_domain_after_another=True),)), "not the turn of b"),
        (snapshot(PAIR, groups=(group(windows=(SHUT,)),)), "outside its window"),
        (snapshot(PAIR, groups=(group(minimum_age_s=9e6),)), "too young"),
        (snapshot(PAIR, rollouts=(rollout(canaries_left=1),)), "waits for canaries"),
        (snapshot(PAIR, rollouts=(rollout(canaries_soaked_at=NOW - 60),)), "waits for canaries"),
        (snapshot(PAIR, rollouts=(rollout(state=RolloutState.PAUSED),)), "does not run"),
        (snapshot(PAIR, rollouts=(rollout(targets=(target(bad="it fails"),)),)), "must not go to"),
        (snapshot(PAIR, rollouts=(rollout(targets=(target(not_from=("1.0",)),)),)), "must not go to"),
        (snapshot(PAIR, rollouts=(rollout(targets=(target("0.1"),)),)), "must not go to"),
        (snapshot([PAIR[0], replace(PAIR[1], online=False)]), "is away"),
        (snapshot([PAIR[0], replace(PAIR[1], commandable=False)]), "cannot be commanded"),
        (snapshot([PAIR[0], replace(PAIR[1], placement_known=False)]), "runs what nobody knows"),
        (snapshot(PAIR, candidates=(wants(0), wants(1, ready=False))), "is not ready"),
        (snapshot(PAIR, candidates=(wants(0), wants(0))), "moves twice"),
    ],
)
def test_a_wrong_admission_is_found(view: Snapshot, says: str) -> None:
    if not view.services:
        view = replace(view, services=(service("db", 2, None),))
    found = [one.text for one in check(forced(view), view)]
    assert any(says in text for text in found), found


def test_a_domain_that_comes_back_is_found() -> None:
    nodes = [node(f"node-{place}", labels={"zone": "aba"[place]}) for place in range(3)]
    view = snapshot(nodes, groups=(group(domain_label="zone", one_domain_after_another=True),))
    made = forced(view, (0,), tuple(Wave(place + 1, (place,)) for place in range(3)))
    assert "node-2 moves when it is not the turn of a" in {f"{one.node} {one.text}" for one in check(made, view)}


def test_wrong_waves_are_found() -> None:
    view = snapshot(PAIR, services=(service("db", 2, 1),), candidates=(wants(0), wants(1, canary=True)))
    together = forced(view, (1,), (Wave(1, (0, 1)),))
    assert {one.text for one in check(together, view)} == {
        "/db would have 0 healthy replicas, floor 1",
        "moves before the canaries of its rollout",
    }
    late = forced(view, (1,), (Wave(1, (0,)), Wave(2, (1,))))
    assert [one.text for one in check(late, view)] == ["moves before the canaries of its rollout"]
    twice = forced(view, (1,), (Wave(1, (1,)), Wave(2, (1,))))
    assert "moves twice" in {one.text for one in check(twice, view)}


def test_a_candidate_that_is_forgotten_is_found() -> None:
    view = snapshot(PAIR, services=(service("db", 2, 1),))
    made = plan(view)
    assert [one.text for one in check(replace(made, holds={}), view)] == ["is neither admitted nor held, or both"]


def test_who_is_refused_takes_nothing() -> None:
    """So that the ones after it may still go."""
    budgets = Budgets(services={("", "db"): Supply(3, 3, 0, 2), ("", "web"): Supply(2, 2, 0, 2)}, groups={"g": (0, 2)})
    both = {("", "db"): 1, ("", "web"): 1}
    asked = [
        costs("first", services=both, groups=("g",)),
        costs("second", services={("", "db"): 1}, groups=("g",)),
        costs("third", groups=("g",)),
        costs("fourth", groups=("g",)),
        costs("down", already_missing=True, groups=("g",)),
    ]
    assert [(one.node, one.text.split(",")[0]) for one in check_admitted(asked, budgets)] == [
        ("first", "/web would have 1 healthy replicas"),
        ("fourth", "group g would miss 3 nodes"),
    ]


def test_an_override_goes_and_still_counts() -> None:
    budgets = Budgets(services={("", "db"): Supply(2, 2, 0, 2)}, exposures={"r": (0, 1)}, domains={("g", "a"): (1, 2)})
    asked = [
        costs("over", services={("", "db"): 1}, override_floor=True, domains=(("g", "a"),)),
        costs("none-healthy", services={("", "db"): 0}, rollout="r"),
        costs("one", services={("", "db"): 1}),
        costs("exposed", rollout="r"),
        costs("same-domain", domains=(("g", "a"),)),
    ]
    refused = {one.node: one.text for one in check_admitted(asked, budgets)}
    assert refused.keys() == {"one", "exposed", "same-domain"}
