"""Of a rollout's own limit and the groups' the stricter one binds, and the plan names it."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.group_policy import Amount, GroupPolicy
from app.core.planner import plan
from app.core.snapshot import GroupView, Snapshot
from app.web.rollout_limits import limits
from tests.core.plan_fleets import group, node, rollout, snapshot

ZONED: dict[str, Any] = {"domain_label": "zone", "max_per_domain": 1}
GROUP, OWN, TOO = "Group g0 binds:", "This rollout's own limit binds: {} nodes under way at once", "So does group g0:"
BESIDE = "The rollout's own limit of {} nodes only lets others move while the first ones soak."


def fleet(own: Amount, *groups: GroupView, size: int = 12) -> Snapshot:
    """Nodes in three zones, all in each of these groups."""
    ids = tuple(each.id for each in groups)
    nodes = [node(f"n{place:02}", labels={"zone": "abc"[place % 3]}, groups=ids) for place in range(size)]
    return snapshot(nodes, groups=groups, rollouts=(rollout(policy=GroupPolicy(max_unavailable=own)),))


@pytest.mark.parametrize(
    ("own", "policies", "words"),
    [
        (Amount(share=0.5), [{"max_unavailable": Amount(count=3)}], "Group g0 binds: at most 3 of 12 nodes missing"),
        (Amount(count=2), [{"max_unavailable": Amount(count=3)}], "This rollout's own limit binds: 2 nodes under way"),
        (Amount(count=3), [{"max_unavailable": Amount(count=3)}], "This rollout's own limit binds: 3 nodes under way"),
        (Amount(count=6), [{"max_unavailable": Amount(count=5)} | ZONED], "at most 5 of 12 nodes and 1 in each zone"),
        (
            Amount(count=6),
            [{"max_unavailable": Amount(count=5)}, {"max_unavailable": Amount(share=0.25)}],
            "Group g1 binds: at most 3 of 12 nodes missing",
        ),
        (Amount(count=12), [{}], "No limit of the rollout or of a group binds"),
    ],
)
def test_the_stricter_one_binds_and_no_wave_is_larger(own: Amount, policies: list[dict[str, Any]], words: str) -> None:
    made = fleet(own, *(group(f"g{place}", **policy) for place, policy in enumerate(policies)))
    found = limits(made, 0)
    assert words in found.words
    binding = min(found.own, *(each.most for each in found.groups))
    assert max(len(wave.nodes) for wave in plan(made).waves) == binding


def test_what_is_missing_already_is_said() -> None:
    made = fleet(Amount(count=6), group("g0", max_unavailable=Amount(count=3)))
    lost = node("lost", groups=("g0",), online=False)
    [(_, own), (_, said)] = limits(Snapshot(**_with_nodes(made, lost)), 0).lines
    assert own == "at most 6 of this rollout’s 12 nodes, from the lease to the end of the soak"
    assert said == "group g0: at most 3 of 13 nodes, whatever the cause; 1 is missing now"


def _with_nodes(made: Snapshot, *more: Any) -> dict[str, Any]:
    fields = {name: getattr(made, name) for name in made.__slots__}
    return fields | {"nodes": (*made.nodes, *more)}


@pytest.mark.parametrize(
    ("own", "budget", "zoned", "away", "words"),
    [
        (3, 3, {}, 68, f"{GROUP} at most 3 of 80 nodes missing at once, and 68 are already."),
        (2, 5, {}, 4, f"{GROUP} at most 5 of 16 nodes missing at once, and 4 are already. {BESIDE.format(2)}"),
        (3, 5, {}, 2, f"{OWN.format(3)}. {TOO} at most 5 of 14 nodes missing at once, and 2 are already."),
        (3, 3, {}, 0, f"{OWN.format(3)}. {TOO} at most 3 of 12 nodes missing at once."),
        (2, 5, {}, 2, f"{OWN.format(2)}; group g0 would let 3 more nodes be missing."),
        (3, 9, ZONED, 1, f"{GROUP} at most 9 of 13 nodes and 1 in each zone missing at once, and 1 is already. "
            + BESIDE.format(3)),
    ],
)  # fmt: skip
def test_what_is_missing_already_takes_its_part(
    own: int, budget: int, zoned: dict[str, Any], away: int, words: str
) -> None:
    made = fleet(Amount(count=own), group("g0", **{"max_unavailable": Amount(count=budget)} | zoned))
    lost = [node(f"lost{place}", labels={"zone": "a"}, groups=("g0",), online=False) for place in range(away)]
    assert limits(Snapshot(**_with_nodes(made, *lost)), 0).words == words


def test_nodes_that_are_unhealthy_wait_for_no_room_of_their_group() -> None:
    sick = [node(f"sick{place}", groups=("g0",), healthy=False) for place in range(6)]
    of = group("g0", max_unavailable=Amount(count=3))
    made = snapshot(sick, groups=(of,), rollouts=(rollout(policy=GroupPolicy(max_unavailable=Amount(count=2))),))
    assert limits(made, 0).words == "This rollout's own limit binds: 2 nodes under way at once."
    assert len(plan(made).waves[0].nodes) == 2


def test_one_domain_after_another_lets_no_more_go_than_the_largest_has() -> None:
    made = fleet(Amount(count=9), group("g0", domain_label="zone", one_domain_after_another=True))
    assert limits(made, 0).groups[0].most == 4
    assert max(len(wave.nodes) for wave in plan(made).waves) == 4
