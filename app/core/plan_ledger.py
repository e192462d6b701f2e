"""The last word before leases are granted: do these nodes fit beside each other and beside what is away already?

Naive on purpose, and of the planner's code it shares nothing but the types. Its facts were read again inside the
applying transaction; app.core.plan_check uses it for whole plans too. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.core.snapshot import ServiceKey


@dataclass(frozen=True, slots=True)
class Costs:
    """What one admitted node takes away when it goes down."""

    node: str
    """Its name, for the sentence."""
    already_missing: bool
    """It counts against its groups already, so it costs them nothing more."""
    services: Mapping[ServiceKey, int]
    """Healthy replicas here if it is up; empty if it is not."""
    groups: Sequence[str]
    domains: Sequence[tuple[str, str]]
    """(id of a group, value of its domain label), for groups that limit their domains."""
    rollout: str
    """Empty: it is exposed to it already, which costs nothing more."""
    override_floor: bool = False
    """An operator lets this node go below floors; what it takes still counts for the others."""
    allowed: frozenset[ServiceKey] = frozenset()
    """Services whose single replica its rollout may move; what it takes of them counts as well."""


@dataclass(frozen=True, slots=True)
class Supply:
    """The replicas of a service with a floor."""

    healthy: int
    """On nodes that are up."""
    expected: int
    reserved: int
    """What leases that are out have taken, whether those nodes are down yet, are back, or have lost them elsewhere."""
    floor: int

    @property
    def counted(self) -> int:
        """What may be taken from: of the expected replicas those that nobody reserved, as far as they are healthy.

        More than the expected ones may end at any moment, as in the middle of a move: they save no floor.
        """
        return min(self.healthy, self.expected - self.reserved) if self.floor > 0 else self.healthy


@dataclass(frozen=True, slots=True)
class Budgets:
    """How things are now, before anything of this round. What is not named has no limit."""

    services: Mapping[ServiceKey, Supply] = field(default_factory=dict)
    groups: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """(missing nodes, most that may be missing)."""
    domains: Mapping[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """(missing nodes, most that may be missing)."""
    exposures: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """(nodes exposed to the rollout, most that may be)."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A node that must not go, and why."""

    node: str
    text: str


def check_admitted(admitted: Sequence[Costs], budgets: Budgets) -> list[Violation]:
    """Those of `admitted` that do not fit beside the ones before them; one sentence each. Empty: all may go together.

    A node that is refused takes nothing, so that the ones that remain may go without asking again.
    """
    healthy = {key: supply.counted for key, supply in budgets.services.items()}
    missing = {id: now for id, (now, _) in budgets.groups.items()}
    away = {domain: now for domain, (now, _) in budgets.domains.items()}
    exposed = {rollout: now for rollout, (now, _) in budgets.exposures.items()}
    refused = []
    for costs in admitted:
        text = _refusal(costs, budgets, healthy, missing, away, exposed)
        if text is not None:
            refused.append(Violation(costs.node, text))
            continue
        for key, replicas in costs.services.items():
            healthy[key] = healthy.get(key, 0) - replicas
        if not costs.already_missing:
            for group in costs.groups:
                missing[group] = missing.get(group, 0) + 1
            for domain in costs.domains:
                away[domain] = away.get(domain, 0) + 1
        if costs.rollout:
            exposed[costs.rollout] = exposed.get(costs.rollout, 0) + 1
    return refused


def _refusal(
    costs: Costs,
    budgets: Budgets,
    healthy: Mapping[ServiceKey, int],
    missing: Mapping[str, int],
    away: Mapping[tuple[str, str], int],
    exposed: Mapping[str, int],
) -> str | None:
    for key, replicas in costs.services.items():
        if key in budgets.services and replicas and not costs.override_floor:
            left, floor = healthy[key] - replicas, budgets.services[key].floor
            freed = key in costs.allowed and budgets.services[key].expected <= 1
            if left < floor and not freed:
                return f"{'/'.join(key)} would have {left} healthy replicas, floor {floor}"
    if not costs.already_missing:
        for group in costs.groups:
            if group in budgets.groups and missing[group] + 1 > budgets.groups[group][1]:
                return f"group {group} would miss {missing[group] + 1} nodes, at most {budgets.groups[group][1]}"
        for domain in costs.domains:
            if domain in budgets.domains and away[domain] + 1 > budgets.domains[domain][1]:
                return f"domain {domain[1]} would miss {away[domain] + 1} nodes, at most {budgets.domains[domain][1]}"
    rollout = costs.rollout
    if rollout in budgets.exposures and exposed[rollout] + 1 > budgets.exposures[rollout][1]:
        return f"rollout {rollout} would expose {exposed[rollout] + 1} nodes, at most {budgets.exposures[rollout][1]}"
    return None
