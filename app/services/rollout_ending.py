"""What keeps a running rollout from its end though none of its nodes is left to move."""

from __future__ import annotations

from sqlalchemy import Connection

from app.core.planning.words import counted, span
from app.core.rollouts import RolloutState
from app.store import rollout_taken
from app.store.rollouts import Rollout

MENDING_S = 300.0
"""Five minutes after nodes left its group, a rollout that is over otherwise does not end: a slip in a selector or in
labels is mended within that, and they come in again. Once it has ended they would stay as they are, unseen."""
STOPPED_WORDS = {RolloutState.PAUSED: "is paused", RolloutState.HALTED: "has been halted"}


def mending_s(conn: Connection, rollout: Rollout, now: float) -> float:
    """How long it does not end yet; 0.0: nobody left its group lately."""
    return _mending(conn, rollout, now)[1]


def mending_words(conn: Connection, rollout: Rollout, now: float) -> str:
    """A sentence about it; empty where nobody left its group lately."""
    nodes, left_s = _mending(conn, rollout, now)
    if not left_s or rollout.state is not RolloutState.RUNNING:
        return ""
    return (
        f"{counted(nodes, 'node')} left its group: it ends in {span(left_s)} at the earliest, so that a slip in a"
        " selector or label can be mended"
    )


def _mending(conn: Connection, rollout: Rollout, now: float) -> tuple[int, float]:
    """Nodes that left, and seconds until it may end. (By a clock that was set back it waits no longer than twice.)"""
    nodes, last = rollout_taken.left_group(conn, rollout.id, now - MENDING_S)
    left_s = last + MENDING_S - now if nodes else 0.0
    return (nodes, left_s) if left_s <= 2 * MENDING_S else (0, 0.0)


def awaited_words(conn: Connection, rollout: Rollout) -> str:
    """Newer rollouts that have stopped with nodes of it that they have not moved; empty where there is none."""
    stopped = [one for one in rollout_taken.with_others(conn, rollout.id, rollout.number) if one.state in STOPPED_WORDS]
    return "; ".join(
        f"{counted(one.nodes, 'node is', 'nodes are')} with rollout {one.number}, which {STOPPED_WORDS[one.state]}"
        for one in stopped
    )
