"""The end of a rollout: nobody is under way, nobody could come in again, nobody left its group lately, and nobody that
it was about is with another rollout that may still give the node up. A step of the conductor."""

from __future__ import annotations

from sqlalchemy import Connection

from app.core.actors import CONDUCTOR
from app.core.rollouts import Move, RolloutNodeState, RolloutState
from app.services.rollout_acting import enter
from app.services.rollout_ending import mending_s
from app.services.rollout_take_in import returning
from app.store import rollout_facts, rollout_nodes, rollout_taken, rollouts
from app.store.database import Database, Priority
from app.store.rollouts import Rollout


def finish(db: Database, now: float) -> int:
    """End rollouts that are over; how many."""
    with db.read() as conn:
        over = [rollout for rollout in rollouts.active(conn) if _is_over(conn, rollout, now)]
    return sum(_finish(db, rollout.id, now) for rollout in over)


def _is_over(conn: Connection, rollout: Rollout, now: float) -> bool:
    if rollout_nodes.not_ended(conn, rollout.id):
        return False
    if rollout.state is not RolloutState.RUNNING:
        return rollout_nodes.going_back(conn, rollout.id) == 0
    if mending_s(conn, rollout, now):
        return False
    if rollout_taken.with_others(conn, rollout.id, rollout.number):
        return rollout_taken.awaited(conn, rollout.id)  # each would wait for the other
    return not returning(conn, rollout, now)


def _finish(db: Database, rollout_id: str, now: float) -> bool:
    with db.write(Priority.BACKGROUND) as change:
        rollout = rollouts.get(change.conn, rollout_id, lock=True)
        if rollout is None or rollout.state not in (RolloutState.RUNNING, RolloutState.ROLLING_BACK):
            return False
        if not _is_over(change.conn, rollout, now):
            return False
        enter(change, CONDUCTOR, rollout, Move.FINISH, _summary(change.conn, rollout), "", now)
    return True


def _summary(conn: Connection, rollout: Rollout) -> str:
    if rollout.state is RolloutState.ROLLING_BACK:
        return "Every node that could go back is back"
    counts = rollout_nodes.counts(conn, rollout.id)
    taken = rollout_taken.takers(conn, rollout.id)
    done, failed = counts[RolloutNodeState.DONE], counts[RolloutNodeState.FAILED]
    left = counts[RolloutNodeState.LEFT] - sum(nodes for _, nodes in taken)
    elsewhere = rollout_facts.done_and_elsewhere(conn, rollout.id)
    gone = f" ({elsewhere:,} {'runs' if elsewhere == 1 else 'run'} another version by now)" if elsewhere else ""
    parts = [f"{done:,} done{gone}"]
    parts += [f"{failed:,} failed"] if failed else []
    parts += [f"{nodes:,} taken by rollout {number}" for number, nodes in taken]
    parts += [f"{left:,} left the rollout"] if left else []
    return "Ended: " + ", ".join(parts)
