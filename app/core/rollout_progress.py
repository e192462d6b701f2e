"""How far a node has come in a rollout: the one word that its counts partition by, now and at any time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.core.rollouts import RolloutNodeState


class Progress(StrEnum):
    """Each node of a rollout is in exactly one, in the order of its way."""

    WAITING = "waiting"
    """Not ordered yet, and nothing stops the order."""
    HELD = "held"
    """Not ordered, for a reason that has a name."""
    STAGING = "staging"
    """Ordered; the image is not in its passive slot yet."""
    STAGED = "staged"
    """Waits for its lease."""
    MOVING = "moving"
    """Has its lease: drains, reboots or is on trial."""
    SOAKING = "soaking"
    DONE = "done"
    FAILED = "failed"
    LEFT = "left"
    GOING_BACK = "going-back"
    BACK = "back"

    @property
    def words(self) -> str:
        return {Progress.LEFT: "left the rollout"}.get(self, self.value.replace("-", " "))

    @property
    def shape(self) -> str:
        """The shape and colour; see `state` in the templates' macros."""
        return _SHAPES[self]


_SHAPES = {
    Progress.WAITING: "off",
    Progress.HELD: "warn",
    Progress.STAGING: "busy",
    Progress.STAGED: "unknown",
    Progress.MOVING: "busy",
    Progress.SOAKING: "trial",
    Progress.DONE: "ok",
    Progress.FAILED: "bad",
    Progress.LEFT: "off",
    Progress.GOING_BACK: "warn",
    Progress.BACK: "off",
}

ON_THE_WAY = frozenset({Progress.MOVING, Progress.SOAKING, Progress.GOING_BACK})
"""Their slots are about to flip, or have just flipped."""


@dataclass(frozen=True, slots=True)
class Passage:
    """When a node came to each part of its way through one rollout (Unix seconds); None: not, or not yet."""

    state: RolloutNodeState
    held: bool
    added_at: float
    ordered_at: float | None = None
    staged_at: float | None = None
    moving_at: float | None = None
    confirmed_at: float | None = None
    ended_at: float | None = None
    back_at: float | None = None
    back_ended_at: float | None = None


def progress(passage: Passage) -> Progress:
    """Now. app.store.rollout_cells.PROGRESS is the same in SQL."""
    if passage.back_ended_at is not None:
        return Progress.BACK
    if passage.back_at is not None:
        return Progress.GOING_BACK
    match passage.state:
        case RolloutNodeState.WAITING:
            return Progress.HELD if passage.held else Progress.WAITING
        case RolloutNodeState.ORDERED:
            return Progress.STAGED if passage.staged_at is not None else Progress.STAGING
        case RolloutNodeState.MOVING:
            return Progress.SOAKING if passage.confirmed_at is not None else Progress.MOVING
        case RolloutNodeState.DONE:
            return Progress.DONE
        case RolloutNodeState.FAILED:
            return Progress.FAILED
        case RolloutNodeState.LEFT:
            return Progress.LEFT


_ENDS = {RolloutNodeState.DONE: Progress.DONE, RolloutNodeState.FAILED: Progress.FAILED}


def progress_at(passage: Passage, at: float) -> Progress | None:
    """At the moment `at`, as far as the times tell: holds of the past are not kept. None: it was not in it yet."""
    if passage.added_at > at:
        return None
    way = (
        (passage.back_ended_at, Progress.BACK),
        (passage.back_at, Progress.GOING_BACK),
        (passage.ended_at, _ENDS.get(passage.state, Progress.LEFT)),
        (passage.confirmed_at, Progress.SOAKING),
        (passage.moving_at, Progress.MOVING),
        (passage.staged_at, Progress.STAGED),
        (passage.ordered_at, Progress.STAGING),
    )
    return next((reached for moment, reached in way if moment is not None and moment <= at), Progress.WAITING)


def tally(reached: Iterable[Progress]) -> dict[Progress, int]:
    """How many nodes in each, in the order of the way; none that is empty."""
    counts = dict.fromkeys(Progress, 0)
    for each in reached:
        counts[each] += 1
    return {each: count for each, count in counts.items() if count}


@dataclass(frozen=True, slots=True)
class Band:
    """Waves that are shown as one row; `first` to `last`, both included."""

    first: int
    last: int


def bands(waves: Sequence[int], most: int) -> list[Band]:
    """Numbers of waves, ascending, as at most `most` rows of neighbours; wave 0, the canaries, always stands alone."""
    alone = [Band(number, number) for number in waves if number == 0]
    others = [number for number in waves if number != 0]
    each = max(1, -(-len(others) // max(1, most - len(alone))))
    rows = [others[place : place + each] for place in range(0, len(others), each)]
    return alone + [Band(row[0], row[-1]) for row in rows]
