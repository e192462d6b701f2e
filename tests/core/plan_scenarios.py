"""Situations that a person can read: each is planned and compared with its text in tests/core/plans.

`python -m tests.core.plan_scenarios` writes the texts anew; their diff is what is reviewed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from app.core.group_policy import Amount, GroupPolicy
from app.core.holds import Hold, HoldCode
from app.core.plan_text import render
from app.core.planner import plan
from app.core.rollouts import RolloutKind, RolloutState
from app.core.snapshot import Snapshot
from tests.core.plan_fleets import NOW, SHUT, group, node, rollout, service, snapshot, target, wants

FOLDER = Path(__file__).with_name("plans")
FREEZE = Hold(HoldCode.FREEZE, "is frozen by mia until Friday: quarter's end", "freeze_1", until=NOW + 4 * 86_400)


def three_replicas_floor_two() -> Snapshot:
    """One at a time, and the service that all run alike moves beside it."""
    nodes = [node(f"node-{place}", *([(0, 1)] if place < 3 else []), (1, 1)) for place in range(6)]
    return snapshot(nodes, services=(service("db", 3, 2), service("web", 6, 4)))


def a_node_died_by_itself() -> Snapshot:
    """Its replica counts as down, so that nobody else may go until it is back."""
    nodes = [node(f"node-{place}", (0, 1), online=place != 2) for place in range(3)]
    return snapshot(nodes, services=(service("db", 3, 2),))


def one_is_being_updated() -> Snapshot:
    """The next one waits for it; the forecast counts it as back."""
    away = node("node-0", (0, 1), reserved=True, exposed_to="rollout 1")
    nodes = [away, *(node(f"node-{place}", (0, 1)) for place in range(1, 3))]
    return snapshot(nodes, services=(service("db", 3, 2),), candidates=(wants(1), wants(2)))


def one_has_just_booted() -> Snapshot:
    """It soaks and its container comes in some seconds: nobody goes before, and the forecast counts it as there."""
    back = node("node-0", soaking=True, exposed_to="rollout 1", version="2.0", returning=((0, 1),))
    nodes = [back, *(node(f"node-{place}", (0, 1)) for place in range(1, 3))]
    return snapshot(nodes, services=(service("db", 3, 2),), candidates=(wants(1), wants(2)))


def a_single_replica() -> Snapshot:
    """Named before the start; an allowance lets the other one move."""
    nodes = [node("node-0", (0, 1)), node("node-1", (1, 1)), node("node-2")]
    services = (service("ledger", 1, 1), service("cron", 1, 1, allowed=True))
    return snapshot(nodes, services=services, rollouts=(rollout(state=RolloutState.DRAFT),))


def two_replicas_on_one_node() -> Snapshot:
    nodes = [node("node-0", (0, 2)), node("node-1", (0, 1))]
    return snapshot(nodes, services=(service("db", 3, 2),))


def canaries_first() -> Snapshot:
    """Only canaries, although there is room for everybody."""
    some = tuple(wants(place, canary=place in (1, 4)) for place in range(6))
    return snapshot(
        [node(f"node-{place}") for place in range(6)], candidates=some, rollouts=(rollout(canaries_left=2),)
    )


def two_canaries_one_after_the_other() -> Snapshot:
    """Both run the same service; waves are counted behind them, as on pages."""
    some = tuple(wants(place, canary=place < 2) for place in range(3))
    nodes = [node(f"node-{place}", (0, 1)) for place in range(3)]
    views = (rollout(canaries_left=2),)
    return snapshot(nodes, services=(service("db", 3, 2),), candidates=some, rollouts=views)


def canaries_soak() -> Snapshot:
    """All canaries have soaked; the rollout's own canary soak goes on for 20 minutes."""
    view = rollout(canaries_soaked_at=NOW - 600)
    return snapshot([node(f"node-{place}") for place in range(2)], rollouts=(view,))


def as_many_as_may_be_exposed() -> Snapshot:
    """Two soak, and two is the most: confirmed nodes cost no floor, and still nobody goes."""
    soaking = [node(f"node-{place}", (0, 1), soaking=True, exposed_to="rollout 1", version="2.0") for place in range(2)]
    nodes = [*soaking, *(node(f"node-{place}", (0, 1)) for place in range(2, 6))]
    view = rollout(policy=GroupPolicy(max_unavailable=Amount(count=2)))
    return snapshot(
        nodes,
        services=(service("web", 6, 3),),
        rollouts=(view,),
        candidates=tuple(wants(place) for place in range(2, 6)),
    )


def zone_after_zone() -> Snapshot:
    """Zone a first, two at a time; the canary in zone b does not wait for its turn."""
    nodes = [node(f"node-{place}", labels={"zone": "ab"[place % 2]}) for place in range(8)]
    zones = group(domain_label="zone", one_domain_after_another=True, max_per_domain=2)
    some = tuple(wants(place, canary=place == 7) for place in range(8))
    return snapshot(nodes, groups=(zones,), candidates=some)


def budgets_of_two_groups() -> Snapshot:
    """Every group's budget binds: half of the fleet, but one of the edge; an unhealthy node counts already."""
    nodes = [node(f"node-{place}", groups=("edge", "fleet") if place < 3 else ("fleet",)) for place in range(5)]
    nodes.append(node("node-5", groups=("fleet",), healthy=False))
    groups = (group("fleet", max_unavailable=Amount(share=0.5)), group("edge", max_unavailable=Amount(count=1)))
    return snapshot(nodes, groups=groups)


def a_group_that_may_miss_none() -> Snapshot:
    return snapshot([node("node-0"), node("node-1")], groups=(group(max_unavailable=Amount(count=0)),))


def every_reason_of_its_own() -> Snapshot:
    nodes = [
        node("protocol-only", commandable=False),
        node("lost", absent=True, online=False),
        node("away", online=False),
        node("arm", arch="arm64"),
        node("pinned", pinned_to="version 1.0", pin_digest="sha-1.0"),
        node("too-old", version="0.9"),
        node("newer", version="3.0"),
        node("failed", failed=frozenset({"sha-2.0"})),
        node("stages"),
        node("keeps-way-back"),
        node("unknown", placement_known=False),
        node("goes"),
        node("moved-already", has_local_way_back=True),
    ]
    said = Hold(HoldCode.NOT_READY, "keeps its way back for 2 h", "id-keeps-way-back", until=NOW + 7200)
    some = [wants(place) for place in range(len(nodes))]
    some[8] = replace(some[8], ready=False)
    some[9] = replace(some[9], ready=False, said=said)
    kept = Hold(HoldCode.KEEPING_WAY_BACK, "keeps its way back for rollout 7, which is not over", "rollout-7")
    some[12] = replace(some[12], operation_id="", ready=False, kept=kept)
    view = rollout(targets=(target(must_pass=("1.0",)),))
    return snapshot(nodes, candidates=tuple(some), rollouts=(view,))


def windows_and_freezes() -> Snapshot:
    """One group is outside its windows, one frozen; breaking the glass passes both; a young image waits."""
    nodes = [node(f"{name}-{place}", groups=(name,)) for name in ("night", "frozen", "young") for place in range(2)]
    groups = (
        group("night", windows=(SHUT,)),
        replace(group("frozen"), frozen=FREEZE),
        group("young", minimum_age_s=3 * 86_400.0),
    )
    glass = rollout("rollout 2", break_glass=True, targets=(target(),), created_at=NOW)
    some = (wants(0), wants(1, 1), wants(2), wants(3, 1), wants(4), wants(5, 1))
    return snapshot(nodes, groups=groups, rollouts=(rollout(), glass), candidates=some)


def the_way_back() -> Snapshot:
    """Frozen, outside the window, below the floor: two broken nodes go back at once, the serving one waits for one."""
    nodes = [
        node("broken-0", (0, 0), healthy=False, version="2.0", soaking=True, exposed_to="rollout 1"),
        node("broken-1", (0, 1), on_trial=True, version="2.0", exposed_to="rollout 1"),
        node("serves", (0, 1), version="2.0"),
        node("old", (0, 1)),
    ]
    back = rollout(state=RolloutState.ROLLING_BACK, kind=RolloutKind.UPDATE, targets=())
    some = tuple(wants(place) for place in range(3))
    frozen = replace(group(windows=(SHUT,)), frozen=FREEZE)
    return snapshot(nodes, services=(service("db", 3, 2),), groups=(frozen,), rollouts=(back,), candidates=some)


def two_rollouts_share_a_floor() -> Snapshot:
    """An operator's order goes first, then the older rollout; a node that both want is with the older one."""
    nodes = [node(f"node-{place}", (0, 1)) for place in range(4)]
    order = rollout("update of node-3", direct=True, created_at=NOW)
    some = (wants(0), wants(1, 1), wants(2, 0), wants(2, 1), wants(3, 2))
    return snapshot(
        nodes,
        services=(service("db", 4, 2),),
        rollouts=(rollout(), rollout("rollout 2", created_at=NOW), order),
        candidates=some,
    )


def an_override() -> Snapshot:
    """An operator lets one node go below the floor; it counts for the others all the same, which never may."""
    nodes = [node("node-0", (0, 1)), node("node-1", (0, 1))]
    some = (wants(0, override_floor=True), wants(1))
    return snapshot(nodes, services=(service("db", 2, 2),), candidates=some)


SCENARIOS: dict[str, Callable[[], Snapshot]] = {
    one.__name__.replace("_", "-"): one
    for one in (
        three_replicas_floor_two,
        a_node_died_by_itself,
        one_is_being_updated,
        one_has_just_booted,
        a_single_replica,
        two_replicas_on_one_node,
        canaries_first,
        two_canaries_one_after_the_other,
        canaries_soak,
        as_many_as_may_be_exposed,
        zone_after_zone,
        budgets_of_two_groups,
        a_group_that_may_miss_none,
        every_reason_of_its_own,
        windows_and_freezes,
        the_way_back,
        two_rollouts_share_a_floor,
        an_override,
    )
}


def text_of(name: str) -> str:
    about = (SCENARIOS[name].__doc__ or "").strip()
    view = SCENARIOS[name]()
    return f"# {name.replace('-', ' ')}\n" + (f"# {about}\n" if about else "") + "\n" + render(plan(view), view)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in SCENARIOS:
        (FOLDER / f"{name}.txt").write_text(text_of(name), encoding="utf-8")
