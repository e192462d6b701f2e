"""A rollout's life: the literal table of its moves, and what a node of it can be. Pure."""

from __future__ import annotations

from enum import StrEnum

from app.core.errors import NotPossible


class RolloutState(StrEnum):
    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    ABORTED = "aborted"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"
    SUCCEEDED = "succeeded"


class RolloutKind(StrEnum):
    UPDATE = "update"
    REBOOT = "reboot"
    ROLLBACK = "rollback"
    """The linked reverse of a rollout that has ended, or a group sent back."""


class Move(StrEnum):
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    HALT = "halt"
    """By the conductor: the failure limit, a withdrawn image."""
    ABORT = "abort"
    ROLL_BACK = "roll-back"
    FINISH = "finish"


_S = RolloutState

MOVES: dict[tuple[RolloutState, Move], RolloutState] = {
    (_S.DRAFT, Move.START): _S.RUNNING,
    (_S.DRAFT, Move.ABORT): _S.ABORTED,
    (_S.RUNNING, Move.PAUSE): _S.PAUSED,
    (_S.RUNNING, Move.HALT): _S.HALTED,
    (_S.RUNNING, Move.ABORT): _S.ABORTED,
    (_S.RUNNING, Move.ROLL_BACK): _S.ROLLING_BACK,
    (_S.RUNNING, Move.FINISH): _S.SUCCEEDED,
    (_S.PAUSED, Move.RESUME): _S.RUNNING,
    (_S.PAUSED, Move.HALT): _S.HALTED,
    (_S.PAUSED, Move.ABORT): _S.ABORTED,
    (_S.PAUSED, Move.ROLL_BACK): _S.ROLLING_BACK,
    (_S.HALTED, Move.RESUME): _S.RUNNING,
    (_S.HALTED, Move.ABORT): _S.ABORTED,
    (_S.HALTED, Move.ROLL_BACK): _S.ROLLING_BACK,
    (_S.ROLLING_BACK, Move.FINISH): _S.ROLLED_BACK,
    (_S.ROLLING_BACK, Move.ABORT): _S.ABORTED,
}
"""(state, move) → the next state. What is not here is not possible and changes nothing."""

TERMINAL = frozenset({RolloutState.ABORTED, RolloutState.ROLLED_BACK, RolloutState.SUCCEEDED})
ACTIVE = frozenset({RolloutState.RUNNING, RolloutState.ROLLING_BACK})
"""The conductor orders nodes in these."""


class RolloutNodeState(StrEnum):
    WAITING = "waiting"
    """Not ordered yet."""
    ORDERED = "ordered"
    """Has its operation: stages, is staged, waits for its lease."""
    MOVING = "moving"
    """Has or had its lease, and has not proved itself: draining, rebooting, on trial, soaking."""
    DONE = "done"
    FAILED = "failed"
    LEFT = "left"
    """Out of this rollout: runs the target already, was retired, cancelled or taken by another order."""


def move(state: RolloutState, by: Move) -> RolloutState:
    """The next state; NotPossible says what is not possible, and nothing is changed."""
    after = MOVES.get((state, by))
    if after is None:
        raise NotPossible("illegal-move", f"A rollout that is {state.value.replace('-', ' ')} cannot {_WORDS[by]}.")
    return after


def possible_moves(state: RolloutState) -> frozenset[Move]:
    return frozenset(by for (before, by) in MOVES if before is state)


_WORDS = {
    Move.START: "be started",
    Move.PAUSE: "be paused",
    Move.RESUME: "be resumed",
    Move.HALT: "be halted",
    Move.ABORT: "be aborted",
    Move.ROLL_BACK: "be rolled back; one that has ended is rolled back by a reverse rollout",
    Move.FINISH: "finish",
}
