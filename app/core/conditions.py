"""What the chain of a waiting node is made of: where each hold stands in it, what is known of its conditions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from app.core.holds import Hold, HoldCode


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions beside the node itself, as far as they are known now; texts are sentences without a full stop."""

    timed: Hold | None = None
    """The freeze or window that holds activation now."""
    timed_text: str = "No freeze, and no window binds it"
    """What is said when nothing holds."""
    budget: str = "No group's budget binds it"
    floor: str = "No service with a floor runs on it"
    health: str = "No health gate"


@dataclass(frozen=True, slots=True)
class Clock:
    """The deadline of the operation's phase."""

    left_s: float
    stands: str = ""
    """Why it does not run; empty while it does."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The rollout under way that has the node."""

    number: int
    moves: bool
    """False: it only reboots."""
    target: str
    leads_back: bool
    """Pins, windows and health gates do not bind it (rule 7)."""
    break_glass: bool


@dataclass(frozen=True, slots=True)
class Around:
    """What is known beside the node's own row."""

    conditions: Conditions = Conditions()
    hold: Hold | None = None
    """What the newest tick of admission said of it."""
    turn: Turn | None = None
    clock: Clock | None = None
    edge: str = ""
    """Why its target cannot follow the version that runs, as a clause."""


class Place(IntEnum):
    """Conditions in the order in which they are met."""

    PIN = 0
    EDGE = 1
    CONNECTION = 2
    ROLLOUT = 3
    TIMED = 4
    READY = 5
    BUDGET = 6
    FLOOR = 7
    HEALTH = 8


_PLACES: dict[HoldCode, Place] = {
    HoldCode.PINNED: Place.PIN,
    HoldCode.NO_IMAGE: Place.EDGE,
    HoldCode.VERSION_EDGE: Place.EDGE,
    HoldCode.DOWNGRADE: Place.EDGE,
    HoldCode.WITHDRAWN: Place.EDGE,
    HoldCode.BAD_VERSION: Place.EDGE,
    HoldCode.FAILED_HERE: Place.EDGE,
    HoldCode.NOT_COMMANDABLE: Place.CONNECTION,
    HoldCode.ABSENT: Place.CONNECTION,
    HoldCode.OFFLINE: Place.CONNECTION,
    HoldCode.OTHER_GROUP: Place.ROLLOUT,
    HoldCode.OTHER_ROLLOUT: Place.ROLLOUT,
    HoldCode.KEEPING_WAY_BACK: Place.ROLLOUT,
    HoldCode.NOT_RUNNING: Place.ROLLOUT,
    HoldCode.FREEZE: Place.TIMED,
    HoldCode.WINDOW: Place.TIMED,
    HoldCode.MINIMUM_AGE: Place.TIMED,
    HoldCode.NOT_READY: Place.READY,
    HoldCode.CANARIES: Place.BUDGET,
    HoldCode.EXPOSURE: Place.BUDGET,
    HoldCode.GROUP_BUDGET: Place.BUDGET,
    HoldCode.DOMAIN_BUDGET: Place.BUDGET,
    HoldCode.DOMAIN_ORDER: Place.BUDGET,
    HoldCode.PLACEMENT_UNKNOWN: Place.FLOOR,
    HoldCode.SINGLE_REPLICA: Place.FLOOR,
    HoldCode.SERVICE_FLOOR: Place.FLOOR,
    HoldCode.HEALTH_GATE: Place.HEALTH,
}


def place_of(hold: Hold | None) -> Place | None:
    """Where it stands in the chain; None for none."""
    return None if hold is None else _PLACES[hold.code]
