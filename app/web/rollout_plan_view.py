"""A plan as its page shows it: waves, who is held for good and why, worst moments, what makes it impossible. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.core.holds import Hold
from app.core.plan import Impossible, Plan
from app.core.rollout_progress import Progress
from app.core.snapshot import ServiceKey, Snapshot
from app.store.rollout_cells import Cell, HeldGroup
from app.web.rollout_holds import HoldRow, hold_rows
from app.web.rollout_waves import MOST_CELLS, WaveRow, counts_of, wave_rows

_MOST_NAMED = 12
"""Nodes that something impossible names one by one."""


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """One node of the rollout under the plan."""

    node_id: str
    name: str
    version: str
    wave: int | None
    """None: it is held for good."""
    hold: Hold | None
    """What it waits for now; for good where it has no wave."""

    @property
    def held_by(self) -> str:
        """What its hold is about; empty for the node itself, which is the same hold on each."""
        return "" if self.hold is None or self.hold.subject == self.node_id else self.hold.subject


@dataclass(frozen=True, slots=True)
class WorstRow:
    """The fewest replicas that a service is taken to."""

    scope: str
    name: str
    healthy_now: int
    left: int
    floor: int | None
    wave: str
    """Words; empty: no wave touches it."""

    @property
    def tight(self) -> bool:
        """One replica less would be too few."""
        return self.floor is not None and self.left <= self.floor


@dataclass(frozen=True, slots=True)
class ImpossibleRow:
    """Something that keeps nodes from ever moving, with what a person could do here and now."""

    text: str
    nodes: tuple[tuple[str, str], ...]
    """(id, name) of the first ones."""
    count: int
    helps: tuple[str, ...]
    service: ServiceKey | None
    """The service whose single replica could be allowed to move; None: that is not what stops it."""


@dataclass(frozen=True, slots=True)
class PlanView:
    at: float
    nodes: tuple[PlannedNode, ...]
    waves: list[WaveRow]
    number_of_waves: int
    moving: int
    """Nodes that a wave moves; with `held` all nodes of the rollout."""
    held: int
    holds: list[HoldRow]
    """Of those that are held for good."""
    worst: list[WorstRow]
    impossible: list[ImpossibleRow]
    frozen: list[ImpossibleRow]
    """Freezes without an end: started, its nodes stage and wait."""
    absent: tuple[tuple[str, str], ...]
    """(id, name)."""
    loses_way_back: tuple[tuple[str, str], ...]
    """(id, name)."""


def plan_view(snapshot: Snapshot, plan: Plan, rollout_id: str, base: str) -> PlanView:
    """What the plan says of one rollout. `base`: address of the list of its nodes."""
    nodes = planned_nodes(snapshot, plan, rollout_id)
    mine = {node.node_id for node in nodes}
    wave_of = own_waves(snapshot, plan, rollout_id)
    cells = [Cell(each.node_id, each.name, each.wave, Progress.WAITING) for each in nodes if each.wave is not None]
    cells.sort(key=lambda cell: (cell.wave, cell.name, cell.node_id))
    held = [node for node in nodes if node.wave is None]
    concerning = [each for each in plan.impossible if _concerns(snapshot, each, mine)]
    return PlanView(
        at=plan.at,
        nodes=nodes,
        waves=wave_rows(counts_of(cells), cells if len(cells) <= MOST_CELLS else None, base),
        number_of_waves=len({cell.wave for cell in cells if cell.wave}),
        moving=len(cells),
        held=len(held),
        holds=hold_rows(held_groups(held), base),
        worst=[_worst(snapshot, plan, place, wave_of) for place in range(len(plan.worst))],
        impossible=[_impossible(snapshot, each, mine) for each in concerning if not each.waits],
        frozen=[_impossible(snapshot, each, mine) for each in concerning if each.waits],
        absent=_named(snapshot, plan.absent, mine),
        loses_way_back=_named(snapshot, plan.loses_way_back, mine),
    )


def planned_nodes(snapshot: Snapshot, plan: Plan, rollout_id: str) -> tuple[PlannedNode, ...]:
    """All candidates of the rollout, by wave (those held for good last) and name."""
    own = own_candidates(snapshot, rollout_id)
    wave_of = own_waves(snapshot, plan, rollout_id)
    found = []
    for place, node_place in own.items():
        node = snapshot.nodes[node_place]
        hold = plan.holds.get(place)
        found.append(PlannedNode(node.id, node.name, node.version, wave_of.get(node_place), hold))
    return tuple(sorted(found, key=lambda each: (each.wave is None, each.wave or 0, each.name, each.node_id)))


def own_candidates(snapshot: Snapshot, rollout_id: str) -> dict[int, int]:
    """Index of each candidate of the rollout → index of its node."""
    places = {number for number, view in enumerate(snapshot.rollouts) if view.id == rollout_id}
    return {place: each.node for place, each in enumerate(snapshot.candidates) if each.rollout in places}


def own_waves(snapshot: Snapshot, plan: Plan, rollout_id: str) -> dict[int, int]:
    """Node → its wave in this rollout: 0 for canaries, then counted from 1 over the waves that move its nodes. The
    plan's own numbers go over all rollouts."""
    canary_of = {
        node: snapshot.candidates[place].canary for place, node in own_candidates(snapshot, rollout_id).items()
    }
    found: dict[int, int] = {}
    number = 0
    for wave in plan.waves:
        mine = [node for node in wave.nodes if node in canary_of]
        others = [node for node in mine if not canary_of[node]]
        number += bool(others)
        found |= dict.fromkeys(others, number) | {node: 0 for node in mine if canary_of[node]}
    return found


def held_groups(nodes: Sequence[PlannedNode]) -> list[HeldGroup]:
    """Counted by what they wait for, as the store counts them."""
    found: dict[tuple[str, str], list[Hold]] = {}
    for node in nodes:
        if node.hold is not None:
            found.setdefault((node.hold.code, node.held_by), []).append(node.hold)
    return [HeldGroup(each[0].code, subject, each[0].text, len(each)) for (_, subject), each in found.items()]


def _worst(snapshot: Snapshot, plan: Plan, place: int, wave_of: Mapping[int, int]) -> WorstRow:
    worst = plan.worst[place]
    scope, name = snapshot.services[worst.service].key
    causing = next((wave.nodes for wave in plan.waves if wave.number == worst.wave), ())
    own = sorted({wave_of[node] for node in causing if node in wave_of})
    words = wave_words(own[-1]) if own else "another rollout" if causing else ""
    return WorstRow(scope, name, worst.healthy_now, worst.left, worst.floor, words)


def wave_words(wave: int) -> str:
    return f"wave {wave}" if wave else "canaries"


def _concerns(snapshot: Snapshot, each: Impossible, mine: set[str]) -> bool:
    return any(snapshot.nodes[node].id in mine for node in each.nodes)


def _impossible(snapshot: Snapshot, each: Impossible, mine: set[str]) -> ImpossibleRow:
    nodes = _named(snapshot, each.nodes, mine)
    service = next((view for view in snapshot.services if "/".join(view.key) == each.subject), None)
    single = service is not None and service.expected <= 1 and not service.allowed
    return ImpossibleRow(
        each.text, nodes[:_MOST_NAMED], len(nodes), each.helps, service.key if service is not None and single else None
    )


def _named(snapshot: Snapshot, nodes: Sequence[int], mine: set[str]) -> tuple[tuple[str, str], ...]:
    views = (snapshot.nodes[node] for node in nodes)
    return tuple((view.id, view.name) for view in views if view.id in mine)
