"""A rollout that does not run: whether it could go on or back, which moves are worth offering, why its nodes wait."""

from __future__ import annotations

from sqlalchemy import Connection

from app.core.errors import NotPossible
from app.core.holds import HoldCode
from app.core.rollouts import Move, RolloutKind, RolloutState, possible_moves
from app.services.rollouts import no_bad_target
from app.store import rollout_counts
from app.store.rollout_cells import HeldGroup
from app.store.rollouts import Rollout

_STOPPED = (RolloutState.PAUSED, RolloutState.HALTED)


def cannot_resume(conn: Connection, rollout: Rollout) -> str:
    """Why resuming one that is paused or halted would be refused; empty where it would not."""
    if rollout.state not in _STOPPED:
        return ""
    try:
        no_bad_target(conn, rollout)
    except NotPossible as refused:
        return refused.text
    return ""


def cannot_reverse(conn: Connection, rollout: Rollout) -> str:
    """Why sending back one that has ended would be refused, as its nodes are; empty where it would not."""
    if rollout_counts.some_go_back(conn, rollout.id):
        return ""
    return f"No node of rollout {rollout.number} runs what it led to: there is nothing to roll back."


def offered(rollout: Rollout, stuck: str) -> set[str]:
    """Moves that would not be refused. `stuck`: of `cannot_resume`."""
    moves = {move.value for move in possible_moves(rollout.state)}
    if stuck:
        moves.discard(Move.RESUME.value)
    if rollout.kind is not RolloutKind.UPDATE:  # a reboot changed nothing, and a way back is not reversed
        moves.discard(Move.ROLL_BACK.value)
    return moves


def lasting(rollout: Rollout, holds: list[HeldGroup]) -> list[HeldGroup]:
    """What nodes wait for beside the rollout itself: whoever asks one that has stopped is told just that, which
    `stopped_words` says of all."""
    if rollout.state not in _STOPPED:
        return holds
    return [group for group in holds if group.code is not HoldCode.NOT_RUNNING]


def stopped_words(rollout: Rollout, moves: set[str]) -> str:
    """What its nodes wait for; empty where it runs."""
    if rollout.state not in _STOPPED:
        return ""
    ends = {Move.RESUME: "resumes it", Move.ROLL_BACK: "rolls it back", Move.ABORT: "aborts it"}
    ways = [text for move, text in ends.items() if move.value in moves]
    choice = " or ".join([", ".join(ways[:-1]), ways[-1]]) if len(ways) > 1 else "".join(ways)
    return f"The rollout is {rollout.state.value}: no node is ordered or let go until somebody {choice}."
