"""The fleet for a plan that people see: as admission finds it, and what is known beside that of what will come."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from app.core.rollouts import RolloutState
from app.core.snapshot import Snapshot
from app.services.admission import gathered
from app.services.returning import with_returning
from app.services.rollout_ending import awaited_words
from app.store import rollout_counts, rollouts
from app.store.database import Database


def gather(db: Database, now: float) -> Snapshot:
    """The whole fleet as it is now."""
    with db.read() as conn:
        return with_awaited(conn, with_move_times(conn, with_returning(conn, gathered(conn, now).snapshot())))


def with_move_times(conn: Connection, snapshot: Snapshot) -> Snapshot:
    """The fleet with how long the nodes of each rollout took to move so far."""
    found = rollout_counts.move_times(conn, [rollout.id for rollout in snapshot.rollouts if not rollout.direct])
    if not found:
        return snapshot
    return replace(snapshot, rollouts=tuple(replace(one, moved=found.get(one.id)) for one in snapshot.rollouts))


def with_awaited(conn: Connection, snapshot: Snapshot) -> Snapshot:
    """The fleet with the newer rollouts that have stopped with nodes of older ones, which do not end before that."""
    running = rollouts.in_states(conn, (RolloutState.RUNNING,))
    found = {rollout.id: words for rollout in running if (words := awaited_words(conn, rollout))}
    if not found:
        return snapshot
    return replace(snapshot, rollouts=tuple(replace(one, awaits=found.get(one.id, "")) for one in snapshot.rollouts))
