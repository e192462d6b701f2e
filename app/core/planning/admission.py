"""Who may have a lease now: the cheap part that each tick runs."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from app.core.holds import Hold
from app.core.planning.gates import Gates
from app.core.planning.room import Room
from app.core.planning.standing import UNBOUND, Standing, precedence


@dataclass(frozen=True, slots=True)
class Admissions:
    """Indexes are those of the candidates of the Standing."""

    admitted: tuple[int, ...]
    """May have their leases now, all of them together; in order of precedence."""
    holds: dict[int, Hold]
    """Of every other candidate that was ready."""


def admit(standing: Standing, also: Collection[int] = ()) -> Admissions:
    """Which of the ready candidates may go down together now, beside what is down already; why the others may not.

    `also`: places of candidates that are taken for ready too, a set where they are many.
    """
    gates = Gates(standing)
    return admit_ready(standing, gates, Room(standing, gates), also)


def admit_ready(
    standing: Standing, gates: Gates, room: Room, also: Collection[int] = (), *, beside: Collection[int] = ()
) -> Admissions:
    """As `admit`, with `room` less by what was admitted afterwards.

    `beside`: places of candidates, a set where they are many, that have their leases already or are about to: they have
    their room, and are not looked at.
    """
    for place in beside:
        room.take(standing.candidates[place], room.costs(standing.candidates[place]))
    admitted: list[int] = []
    holds: dict[int, Hold] = {}
    open_to: list[int] = []
    for place, candidate in enumerate(standing.candidates):
        if (candidate.ready or place in also) and place not in beside:
            hold = gates.first(place, ready=True)
            if hold is None:
                open_to.append(place)
            else:
                holds[place] = hold
    for place in in_order(standing, room, open_to):
        candidate = standing.candidates[place]
        costs = room.costs(candidate)
        hold = room.hold(candidate, costs) or gates.health(candidate)
        if hold is None:
            room.take(candidate, costs)
            admitted.append(place)
        else:
            holds[place] = hold
    return Admissions(tuple(admitted), holds)


def in_order(standing: Standing, room: Room, places: Iterable[int]) -> list[int]:
    """Rollouts by precedence; of each the canaries first, and of these the ones that leave the most room. Of the others
    first those whose services are the scarcest for all that still has to move (as app.core.planning.packing does it),
    which leaves the most room for the rest. One from each failure domain in turn; then by name."""
    places = list(places)
    stages, weights, names = _keys(standing, room, places)
    order = sorted(range(len(places)), key=names.__getitem__)  # three stable sorts cost half of one by all of it
    order.sort(key=weights.__getitem__)
    order.sort(key=stages.__getitem__)
    ordered = [places[at] for at in order]
    if standing.domain_names:
        pairs = enumerate(itertools.pairwise(order), start=1)
        ends = [end for end, (one, two) in pairs if weights[one] != weights[two] or stages[one] != stages[two]]
        for begin, end in zip([0, *ends], [*ends, len(order)], strict=True):
            if end - begin > 1:
                ordered[begin:end] = _in_turn(standing, ordered[begin:end])
    return ordered


def _keys(
    standing: Standing, room: Room, places: Sequence[int]
) -> tuple[list[int], list[float], list[tuple[str, str]]]:
    """Of each place: rank of its rollout and whether it is no canary; less what it leaves; its node's name and id."""
    ranks = _ranks(standing)
    scarcity = _scarcity(standing, room)
    left = room.left
    stages: list[int] = []
    weights: list[float] = []
    names: list[tuple[str, str]] = []
    for place in places:
        candidate = standing.candidates[place]
        node = standing.nodes[candidate.node]
        placements = node.placements if node.up else ()
        if candidate.canary:
            weight = float(
                -min([left[service] - replicas for service, replicas in placements if replicas], default=UNBOUND)
            )
        else:
            weight = -sum([scarcity[service] for service, replicas in placements if replicas])
        stages.append(2 * ranks[candidate.rollout] + (not candidate.canary))
        weights.append(weight)
        names.append((node.name, node.id))
    return stages, weights, names


def _in_turn(standing: Standing, places: list[int]) -> list[int]:
    """One from each failure domain, then again; those of one domain stay in their order."""
    turns: Counter[tuple[int, ...]] = Counter()
    turn_of = {}
    for place in places:
        domains = standing.domains[standing.candidates[place].node]
        turn_of[place] = turns[domains]
        turns[domains] += 1
    return sorted(places, key=turn_of.__getitem__)


def _ranks(standing: Standing) -> list[int]:
    places = sorted(range(len(standing.rollouts)), key=lambda place: precedence(standing.rollouts[place]))
    ranks = [0] * len(places)
    for rank, place in enumerate(places):
        ranks[place] = rank
    return ranks


def _scarcity(standing: Standing, room: Room) -> list[float]:
    """Of each service the square of the waves until all its replicas have moved, with the room that it has now."""
    return [
        0.0 if left >= UNBOUND else (wanted / max(1, left)) ** 2
        for wanted, left in zip(standing.wanted, room.left, strict=False)
    ]
