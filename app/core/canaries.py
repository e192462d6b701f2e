"""Which nodes go first: those that leave the most room to their services, spread over failure domains; and what is seen
of them while the others wait. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.core.snapshot import Snapshot
from wire.messages import Result

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


# --- while the others wait ----------------------------------------------------------------------------------


class Standing(StrEnum):
    """What a canary that was through shows now."""

    WELL = "well"
    AWAY = "away"
    """It cannot be seen to be well now: nobody's time passes meanwhile."""
    FAILED = "failed"
    LED_ON = "led-on"
    """Somebody took it elsewhere: it proves nothing any more, and another takes its place."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A canary that is through, as far as the others' waiting depends on it."""

    taken: bool
    """Retired, declared lost, or moved by another order since."""
    online: bool
    """Connected through a gateway that lives."""
    healthy: bool
    on_trial: bool
    digest: str
    """Of the booted slot; empty: its evidence class does not tell."""
    version: str
    silent_s: float
    """For how long it could have been heard and was not."""


@dataclass(frozen=True, slots=True)
class Verdict:
    standing: Standing
    text: str = ""
    """A clause about the node."""
    result: Result | None = None
    """Of one that failed."""


def judged(canary: Watched, targets: Collection[str], grace_s: float) -> Verdict:
    """`targets`: digests that the rollout leads to; none: it only reboots. `grace_s`: silence that is forgiven."""
    if canary.taken:
        return Verdict(Standing.LED_ON, "was taken elsewhere")
    if not canary.online:
        if canary.silent_s > grace_s:
            return Verdict(Standing.FAILED, "was not heard of any more after its soak", Result.TIMED_OUT)
        return Verdict(Standing.AWAY, "is not connected")
    if canary.on_trial:
        return Verdict(Standing.AWAY, "reboots")
    if targets and canary.digest and canary.digest not in targets:
        text = f"runs {canary.version or 'something else'} again, and nobody sent it back"
        return Verdict(Standing.FAILED, text, Result.FELL_BACK)
    if not canary.healthy:
        return Verdict(Standing.FAILED, "turned unhealthy after its soak", Result.UNHEALTHY)
    return Verdict(Standing.WELL)
