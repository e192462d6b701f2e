"""How a node reads in the fleet: the one state that counts partition by, the drawing of its slots, why it waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.core.nodes import Admission, Connection
from wire.messages import HealthState, Phase, Slot


class NodeState(StrEnum):
    """Each node is in exactly one, so that counts add up. Health and trial are told apart."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"
    ON_TRIAL = "on-trial"
    OFFLINE = "offline"
    PENDING = "pending"
    RETIRED = "retired"

    @property
    def words(self) -> str:
        return self.value.replace("-", " ")

    @property
    def shape(self) -> str:
        """The shape and colour of the state; see `state` in the templates' macros."""
        return _SHAPES[self]


_SHAPES = {
    NodeState.HEALTHY: "ok",
    NodeState.DEGRADED: "warn",
    NodeState.UNHEALTHY: "bad",
    NodeState.UNKNOWN: "unknown",
    NodeState.ON_TRIAL: "trial",
    NodeState.OFFLINE: "off",
    NodeState.PENDING: "busy",
    NodeState.RETIRED: "off",
}


def state_of(admission: str, connection: str, on_trial: bool, health: str) -> NodeState:
    """Admission counts first, then whether we hear it, then the trial, then its health."""
    if admission != Admission.ADMITTED:
        return NodeState(admission)
    if connection != Connection.ONLINE:
        return NodeState.OFFLINE
    return NodeState.ON_TRIAL if on_trial else NodeState(HealthState(health).value)


class SlotMark(StrEnum):
    BOOTED = "booted"
    TRIAL = "trial"
    """Booted and not yet through its trial."""
    NEXT = "next"
    """What boots next."""
    STAGED = "staged"
    KEPT = "kept"
    """Passive, with an older version in it."""
    BAD = "bad"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class SlotDrawing:
    name: str
    version: str
    marks: tuple[SlotMark, ...]

    @property
    def words(self) -> str:
        """For those who do not see the drawing."""
        return " ".join([self.version, *(_MARK_WORDS[mark] for mark in self.marks)]).strip()


_MARK_WORDS = {
    SlotMark.BOOTED: "booted",
    SlotMark.TRIAL: "booted, on trial",
    SlotMark.NEXT: "next boot",
    SlotMark.STAGED: "staged",
    SlotMark.KEPT: "kept",
    SlotMark.BAD: "bad",
    SlotMark.EMPTY: "empty",
}

_HELD_STAGED = (Phase.STAGED, Phase.DRAINING, Phase.REBOOTING)
"""Phases in which the passive slot holds the target."""


def draw_slots(slots: Sequence[Slot], phase: str, on_trial: bool) -> list[SlotDrawing]:
    """One drawing a slot, in the node's own order."""
    return [SlotDrawing(slot.name, slot.version or "", _marks(slot, phase, on_trial)) for slot in slots]


def _marks(slot: Slot, phase: str, on_trial: bool) -> tuple[SlotMark, ...]:
    bad = (SlotMark.BAD,) if slot.good is False else ()
    if slot.booted:
        next_boot = (SlotMark.NEXT,) if slot.next_boot else ()
        return (SlotMark.TRIAL if on_trial else SlotMark.BOOTED, *next_boot, *bad)
    if not slot.version and not slot.digest:
        return (SlotMark.NEXT, SlotMark.EMPTY) if slot.next_boot else (SlotMark.EMPTY,)
    if slot.next_boot:
        return (SlotMark.NEXT, *bad)
    if bad:
        return bad
    return (SlotMark.STAGED if phase in _HELD_STAGED else SlotMark.KEPT,)
