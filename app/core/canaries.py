"""Which nodes go first: those that leave the most room to their services, spread over failure domains. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.core.snapshot import Snapshot

_UNTOUCHED = 1 << 30
"""Room of a node that runs no service with a floor."""


def pick(snapshot: Snapshot, nodes: Sequence[int], count: int, domain_label: str) -> list[int]:
    """`count` of the nodes (indexes into snapshot.nodes); fewer only where there are fewer.

    Nodes that serve and whose placement is known come before others, then those with the most room; of each failure
    domain one, then a second, and so on. Ties by name, so that the same fleet gives the same canaries.
    """
    room = _rooms(snapshot)

    def rank(node: int) -> tuple[int, int, str, str]:
        view = snapshot.nodes[node]
        fit = view.up and view.healthy and view.placement_known and view.commandable
        return (0 if fit else 1, -room(node), view.name, view.id)

    return _spread(snapshot, sorted(nodes, key=rank), count, domain_label)


def _rooms(snapshot: Snapshot) -> Callable[[int], int]:
    """Room of a node: what is left above the floor of its tightest service while it is away."""
    available = [0] * len(snapshot.services)
    for view in snapshot.nodes:
        if view.up:
            for service, healthy in view.placements:
                available[service] += healthy

    def room(node: int) -> int:
        left = [
            available[service] - healthy - floor
            for service, healthy in snapshot.nodes[node].placements
            if healthy and (floor := snapshot.services[service].floor) is not None
        ]
        return min(left, default=_UNTOUCHED)

    return room


def _spread(snapshot: Snapshot, ranked: Sequence[int], count: int, domain_label: str) -> list[int]:
    if not domain_label:
        return list(ranked[:count])
    taken: dict[str, int] = {}
    turns = []
    for place, node in enumerate(ranked):
        domain = snapshot.nodes[node].labels.get(domain_label, "")
        turns.append((taken.get(domain, 0), place, node))
        taken[domain] = taken.get(domain, 0) + 1
    return [node for _, _, node in sorted(turns)[:count]]
