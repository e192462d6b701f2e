"""Groups follow channels: a move of the channel drafts a rollout in each group, or starts it where the policy says so.

`draft_for` runs within the change that moves the channel, so that no move is without its drafts; `start_drafts` is a
step of the conductor.
"""

from __future__ import annotations

from sqlalchemy import Connection

from app.core.actors import CONDUCTOR, Actor
from app.core.errors import Invalid, TwinrootError
from app.core.group_policy import Follow
from app.core.rollouts import Move, RolloutState
from app.services.rollout_acting import CHANGED, RolloutEventKind, enter, locked_rollout, tell
from app.services.rollout_spec import RolloutSpec, as_now, resolve
from app.services.rollout_start import start
from app.services.rollouts import draft_within
from app.store import groups, rollouts
from app.store.channels import Channel
from app.store.database import Change, Database, Priority
from app.store.rollouts import Rollout


def draft_for(change: Change, actor: Actor, channel: Channel, reason: str, now: float) -> list[str]:
    """A draft for each group that follows the channel, superseding older ones; their ids."""
    made = []
    for group in groups.all_groups(change.conn):
        if group.channel_id != channel.id:
            continue
        why = f"channel {channel.name} moved: {reason}"
        spec = RolloutSpec(group_id=group.id, channel_id=channel.id, reason=why)
        older = rollouts.drafts_of_channel(change.conn, channel.id, group.id)
        rollout = draft_within(change, actor, spec, resolve(change.conn, spec), now, moved_channel_id=channel.id)
        for one in older:
            _supersede(change, actor, one, rollout, now)
        made.append(rollout.id)
    return made


def _supersede(change: Change, actor: Actor, older: Rollout, newer: Rollout, now: float) -> None:
    current = locked_rollout(change, older.id)
    if current.state is RolloutState.DRAFT:
        text = f"Superseded by rollout {newer.number}"
        enter(change, actor, current, Move.ABORT, text, newer.reason, now, kind=RolloutEventKind.SUPERSEDED)


def start_drafts(db: Database, now: float) -> int:
    """Start drafts that channels made in groups which follow at once; how many. One that cannot be started says why
    and waits for a person."""
    with db.read() as conn:
        found = [
            rollout
            for rollout in rollouts.in_states(conn, (RolloutState.DRAFT,))
            if rollout.channel_id is not None and not rollout.state_text and _at_once(conn, rollout)
        ]
    return sum(_start(db, rollout, now) for rollout in found)


def _at_once(conn: Connection, rollout: Rollout) -> bool:
    """As its group says now; one that does not fit its group any more is tried, and says so."""
    try:
        return as_now(conn, rollout).policy.follow is Follow.AT_ONCE
    except Invalid:
        return rollout.policy.follow is Follow.AT_ONCE


def _start(db: Database, rollout: Rollout, now: float) -> bool:
    try:
        start(db, CONDUCTOR, rollout.id, f"group {rollout.group_name} follows its channel at once", now)
    except TwinrootError as refusal:
        if refusal.code == CHANGED:
            return False  # at this very moment: the next look finds it as it is
        with db.write(Priority.BACKGROUND) as change:
            current = locked_rollout(change, rollout.id)
            if current.state is RolloutState.DRAFT and not current.state_text:
                text = f"Not started by itself: {refusal.text}"
                rollouts.change(change.conn, current.id, state_text=text)
                tell(change, current, RolloutEventKind.NOT_STARTED, text, now)
                change.touch("attention")
        return False
    return True
