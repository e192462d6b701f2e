"""A plan: frozen and complete. Whoever applies it decides nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.core.holds import Hold


@dataclass(frozen=True, slots=True)
class WorstMoment:
    """The fewest healthy replicas of a service that our own actions lead to, and when."""

    service: int
    """Index into Snapshot.services."""
    healthy_now: int
    left: int
    wave: int
    """Number of the wave that causes it, from 1; 0: no wave touches it."""
    floor: int | None


@dataclass(frozen=True, slots=True)
class Impossible:
    """Something that keeps nodes from ever moving unless somebody changes something, named before the start."""

    subject: str
    """`scope/name` of a service, or id of a group or rollout."""
    text: str
    """Why, in one sentence."""
    nodes: tuple[int, ...]
    """Indexes of the nodes that it holds."""
    helps: tuple[str, ...]
    """What would help: another replica, an allowance, leaving the node out."""
    waits: bool = False
    """A freeze, which somebody gave without an end and will lift: started, its nodes stage and wait for that."""


@dataclass(frozen=True, slots=True)
class Wave:
    number: int
    nodes: tuple[int, ...]
    """Indexes into Snapshot.nodes; nodes that may be down together."""
    canary: bool = False


def numbers(waves: Sequence[Wave]) -> dict[int, int]:
    """Number of a wave → its number as people count, who begin behind the canaries; 0: a wave of canaries alone."""
    found: dict[int, int] = {}
    ordinary = 0
    for wave in waves:
        ordinary += not wave.canary
        found[wave.number] = 0 if wave.canary else ordinary
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """Indexes are those of the snapshot that it was made of. Each candidate is either in a wave or held for good; one
    that is in a later wave, or admitted only when it is ready, has a hold that says what it waits for now."""

    at: float
    admitted: tuple[int, ...]
    """Indexes into Snapshot.candidates: may have their leases now, all of them together."""
    waves: tuple[Wave, ...]
    holds: Mapping[int, Hold]
    """By index of the candidate: every one that is not admitted."""
    worst: tuple[WorstMoment, ...]
    """Of each service with a floor that a wave touches, the tightest first."""
    impossible: tuple[Impossible, ...]
    absent: tuple[int, ...]
    """Nodes that left size and budget."""
    loses_way_back: tuple[int, ...]
    """Nodes whose local way back the staging overwrites."""
