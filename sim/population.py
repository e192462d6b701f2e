"""From a scenario to its nodes: names, zones, troubles, and the replicas that run on each."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

from sim.body import NodeSpec
from sim.dice import Dice
from sim.replicas import Replica
from sim.scenario import Scenario, ScenarioError, ServicePart
from sim.troubles import troubles_of
from wire.messages import Container


def specs_of(scenario: Scenario) -> list[NodeSpec]:
    """All nodes, in order of their number."""
    digest = scenario.digest_of(scenario.fleet.version)
    return [_spec(scenario, number, digest) for number in range(1, scenario.fleet.nodes + 1)]


def _spec(scenario: Scenario, number: int, digest: str) -> NodeSpec:
    fleet = scenario.fleet
    zone = fleet.zones[(number - 1) % len(fleet.zones)]
    return NodeSpec(
        number=number,
        name=f"{fleet.prefix}-{number:05}",
        zone=zone,
        labels={**fleet.labels, "zone": zone},
        os=fleet.os,
        arch=fleet.arch,
        version=fleet.version,
        digest=digest,
        seed=scenario.seed,
        durations=scenario.durations,
        troubles=troubles_of(scenario, number, zone),
    )


def place(scenario: Scenario, specs: Sequence[NodeSpec]) -> list[list[Replica]]:
    """The replicas of each node, by its place in `specs`; ScenarioError when a service does not fit."""
    placed: list[list[Replica]] = [[] for _ in specs]
    for index, service in enumerate(scenario.services):
        homes = _homes(scenario, index, service, specs)
        for number, home in enumerate(homes):
            placed[home].append(Replica(index, container(service, number, len(homes))))
    return placed


def _homes(scenario: Scenario, index: int, service: ServicePart, specs: Sequence[NodeSpec]) -> list[int]:
    """Places in `specs`, one for each replica."""
    allowed = [place for place, spec in enumerate(specs) if service.zone in ("", spec.zone)]
    if service.per_node:
        return allowed
    room = len(allowed) * service.most_per_node
    if service.replicas > room:
        raise ScenarioError(
            f"{service.replicas} replicas of {service.name} do not fit on {len(allowed)} nodes - at `services[{index}]`"
        )
    ordered = _ordered(scenario, index, service, specs, allowed)
    if service.spread == "pack":
        return [ordered[number // service.most_per_node] for number in range(service.replicas)]
    return list(itertools.islice(itertools.cycle(ordered), service.replicas))


def _ordered(
    scenario: Scenario, index: int, service: ServicePart, specs: Sequence[NodeSpec], allowed: Sequence[int]
) -> list[int]:
    """In which order nodes are filled."""
    if service.spread == "pack":
        return list(allowed)
    dice = Dice(scenario.seed, "place", index)
    shuffled = sorted(allowed, key=lambda _: dice.bits())
    if service.spread == "even":
        return shuffled
    by_zone: dict[str, list[int]] = {}
    for place in shuffled:
        by_zone.setdefault(specs[place].zone, []).append(place)
    rows = itertools.zip_longest(*by_zone.values())
    return [place for row in rows for place in row if place is not None]


def container(service: ServicePart, number: int, replicas: int) -> Container:
    """One replica as a container engine shows it; `number` tells it from the service's others."""
    name = f"{service.scope}-{service.name}-{number}"
    return Container(
        id=hashlib.sha256(name.encode()).hexdigest()[:32],
        name=name,
        image=f"registry.example/{service.name}:1",
        service=service.name,
        scope=service.scope,
        health="healthy",
        replicas=replicas if service.declared and not service.per_node else None,
        per_node=service.per_node,
    )
