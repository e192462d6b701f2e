"""Fleets for the planner: big ones at random, and ones that are generated from a schedule, so that it is known in how
many waves they can move."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from app.core.group_policy import Amount, GroupPolicy
from app.core.rollouts import RolloutKind, RolloutState
from app.core.snapshot import Candidate, GroupView, NodeView, RolloutView, ServiceView, Snapshot, TargetView

NOW = 1_790_000_000.0
_ZONES = "abcd"


def random_fleet(nodes: int, *, services: int, on_each: int, headroom: int, seed: int) -> Snapshot:
    """Every node runs `on_each` replicas of different services, drawn at random; `headroom`: replicas that each service
    can spare. The group's budget is a fiftieth of the fleet."""
    dice = random.Random(seed)
    replicas = [0] * services
    placed = []
    one = tuple((service, 1) for service in range(services))  # shared: a node's tuple then costs only its references
    for _ in range(nodes):
        mine = dice.sample(range(services), on_each)
        for service in mine:
            replicas[service] += 1
        placed.append(tuple([one[service] for service in mine]))
    views = tuple(
        ServiceView(("fleet", f"service-{place}"), count, max(0, count - headroom))
        for place, count in enumerate(replicas)
    )
    policy = GroupPolicy(max_unavailable=Amount(share=0.02), domain_label="zone")
    return _snapshot(placed, views, policy, [_ZONES[place % len(_ZONES)] for place in range(nodes)])


@dataclass(frozen=True, slots=True)
class Planted:
    """`snapshot` can move in `waves` waves: it was made of such a schedule."""

    snapshot: Snapshot
    waves: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a planted fleet is made. `on_each`: replicas on a node, in the mean."""

    headroom: Callable[[random.Random], int]
    replicas: Callable[[random.Random, int], int]
    """Of a service, from a source of chance and the waves."""
    on_each: float = 5.0
    skew: float = 1.0
    """Above 1: some nodes run many more replicas than others."""
    per_domain: bool = False


RECIPES = {
    "tight": Recipe(lambda dice: 1, lambda dice, waves: dice.choice([3, 3, 4, 5, 6, 8, 10, waves])),
    "loose": Recipe(lambda dice: dice.choice([2, 3, 5]), lambda dice, waves: dice.randint(7, waves)),
    "skewed": Recipe(
        lambda dice: dice.choice([1, 1, 1, 2, 4]),
        lambda dice, waves: 2 + int(3 / (dice.random() ** 1.2 + 1e-3)),
        skew=2.0,
    ),
    "zoned": Recipe(lambda dice: 1, lambda dice, waves: dice.randint(3, waves // 2), per_domain=True),
}
BEYOND = {
    "dense": Recipe(lambda dice: 1, lambda dice, waves: waves, on_each=10.0),
    "less dense": Recipe(lambda dice: 1, lambda dice, waves: waves // 2, on_each=10.0),
}
"""No part of the set: schedules that are not found in useful time, see docs/planner.md. In dense fleets each service
has a replica in every wave and may miss one, and each node runs ten of them."""


def planted(recipe: Recipe, nodes: int, waves: int, seed: int) -> Planted:
    """A fleet whose every wave is full: the group may miss exactly as many nodes as one wave of the schedule has."""
    dice = random.Random(seed)
    order = list(range(nodes))
    dice.shuffle(order)
    members = [order[wave::waves] for wave in range(waves)]
    services: list[ServiceView] = []
    placed: list[list[tuple[int, int]]] = [[] for _ in range(nodes)]
    total = 0
    while total < recipe.on_each * nodes:
        headroom = recipe.headroom(dice)
        count = min(recipe.replicas(dice, waves), headroom * waves)
        slots = dice.sample([wave for wave in range(waves) for _ in range(headroom)], count)
        hosts = {_host(dice, members[wave], recipe.skew) for wave in slots}
        for host in hosts:
            placed[host].append((len(services), 1))
        services.append(ServiceView(("planted", f"service-{len(services)}"), len(hosts), max(0, len(hosts) - headroom)))
        total += len(hosts)
    zones = [""] * nodes
    for wave in members:
        for place, host in enumerate(wave):
            zones[host] = _ZONES[place % len(_ZONES)]
    widest = max(len(wave) for wave in members)
    per_domain = -(-widest // len(_ZONES)) if recipe.per_domain else 0
    policy = GroupPolicy(max_unavailable=Amount(count=widest), domain_label="zone", max_per_domain=per_domain)
    return Planted(_snapshot([tuple(mine) for mine in placed], tuple(services), policy, zones), waves)


def _host(dice: random.Random, wave: list[int], skew: float) -> int:
    return wave[int(len(wave) * dice.random() ** skew)]


def _snapshot(
    placed: list[tuple[tuple[int, int], ...]],
    services: tuple[ServiceView, ...],
    policy: GroupPolicy,
    zones: list[str],
) -> Snapshot:
    labels = {zone: {"zone": zone} for zone in set(zones)}
    nodes = tuple(
        NodeView(
            id=f"node_{place}",
            name=f"node-{place}",
            labels=labels[zones[place]],
            groups=("group_1",),
            os_id="demo",
            arch="amd64",
            version="1.0",
            digest="sha-1.0",
            online=True,
            healthy=True,
            on_trial=False,
            soaking=False,
            reserved=False,
            absent=False,
            commandable=True,
            placement_known=True,
            placements=placements,
            has_local_way_back=True,
            staged_digest="",
            pinned_to="",
            pin_digest="",
            failed=frozenset(),
        )
        for place, placements in enumerate(placed)
    )
    target = TargetView("demo", "amd64", "2.0", "sha-2.0", 0.0, False)
    rollout = RolloutView(
        "rollout_1", "rollout 1", RolloutKind.UPDATE, RolloutState.RUNNING, policy, (target,), NOW, size=len(nodes)
    )
    return Snapshot(
        now=NOW,
        nodes=nodes,
        services=services,
        groups=(GroupView("group_1", "fleet", policy),),
        rollouts=(rollout,),
        candidates=tuple(Candidate(place, 0, f"op_{place}", True, False, NOW) for place in range(len(nodes))),
    )
