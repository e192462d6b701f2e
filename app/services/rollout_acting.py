"""What all changes of rollouts share: finding one under its lock, moving its state, and writing down who did it.

Lock order of all transactions: fleet, rollouts, nodes, operations, leases.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection

from app.core.actors import Actor
from app.core.errors import NotFound, NotPossible
from app.core.rollouts import TERMINAL, Move, RolloutKind, RolloutState, move
from app.store import audit, rollouts
from app.store.database import Change
from app.store.rollouts import Rollout

CHANGED = "changed"
"""Code of NotPossible where somebody else was faster: to be looked at again."""


class RolloutEventKind(StrEnum):
    """What a rollout's history tells."""

    DRAFTED = "drafted"
    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    RESUMED_FROM_HALT = "resumed-from-halt"
    """Failures before it are forgiven."""
    HALTED = "halted"
    ABORTED = "aborted"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"
    SUCCEEDED = "succeeded"
    SUPERSEDED = "superseded"
    CHANGED = "changed"
    REVERSED = "reversed"
    NODE_FAILED = "node-failed"
    NODE_LEFT = "node-left"
    STAYED = "stayed"
    """How many nodes had not moved when it was stopped for good: one line, which counts on."""
    NODES_CAME = "nodes-came"
    CANARY = "canary"
    CANARIES_SOAKED = "canaries-soaked"
    NOT_STARTED = "not-started"
    PASSED_OVER = "passed-over"
    """A failure domain none of whose nodes could move when it was its turn."""


_KINDS = {
    RolloutState.RUNNING: RolloutEventKind.RESUMED,
    RolloutState.PAUSED: RolloutEventKind.PAUSED,
    RolloutState.HALTED: RolloutEventKind.HALTED,
    RolloutState.ABORTED: RolloutEventKind.ABORTED,
    RolloutState.ROLLING_BACK: RolloutEventKind.ROLLING_BACK,
    RolloutState.ROLLED_BACK: RolloutEventKind.ROLLED_BACK,
    RolloutState.SUCCEEDED: RolloutEventKind.SUCCEEDED,
}


def locked_rollout(change: Change, rollout_id: str) -> Rollout:
    """The rollout, its row held until the end of the change; NotFound."""
    rollout = rollouts.get(change.conn, rollout_id, lock=True)
    if rollout is None:
        raise NotFound("rollout", rollout_id)
    return rollout


def leads_forth(conn: Connection, rollout: Rollout) -> None:
    """NotPossible for a way back: what undoes it leads forth, which no gate, no canary and no memory of failures would
    stop (rules 5, 7)."""
    if rollout.kind is RolloutKind.ROLLBACK:
        source = rollouts.get(conn, rollout.source_id) if rollout.source_id else None
        version = source.version if source is not None and source.version else "the version that you want"
        text = f"Rollout {rollout.number} leads back: it is not rolled back. Compose a rollout to {version} instead."
        raise NotPossible("leads-back", text)


def not_ended(rollout: Rollout) -> None:
    """NotPossible for a rollout that has ended: terminal is terminal."""
    if rollout.state in TERMINAL:
        words = rollout.state.value.replace("-", " ")
        raise NotPossible("ended", f"Rollout {rollout.number} has ended ({words}); nothing was changed.")


def enter(
    change: Change,
    actor: Actor,
    rollout: Rollout,
    by: Move,
    text: str,
    reason: str,
    now: float,
    *,
    kind: RolloutEventKind | None = None,
    **values: Any,
) -> RolloutState:
    """Move the locked rollout to its next state, with event and audit entry; NotPossible changes nothing.

    `text`: the sentence of the event, which pages show as why it is in this state.
    """
    after = move(rollout.state, by)
    if after in TERMINAL:
        values = {"ended_at": now, **values}
    if not rollouts.move(change.conn, rollout, after, text, **values):
        raise NotPossible(CHANGED, f"Rollout {rollout.number} was changed at this moment; look again.")
    tell(change, rollout, kind or _KINDS[after], text, now, actor=actor.name)
    record(change, actor, by.value, rollout, reason, {"state": rollout.state.value}, {"state": after.value}, now)
    return after


def record(
    change: Change,
    actor: Actor,
    action: str,
    rollout: Rollout,
    reason: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    now: float,
) -> None:
    """The audit entry; pages of the rollout go stale."""
    audit.append(change.conn, actor, f"rollout.{action}", f"rollout:{rollout.id}", reason, before, after, now)
    touch(change, rollout.id)


def tell(
    change: Change,
    rollout: Rollout,
    kind: RolloutEventKind,
    text: str,
    now: float,
    *,
    actor: str | None = None,
    node_id: str | None = None,
) -> None:
    """A line of the rollout's history."""
    rollouts.add_event(change.conn, rollout.id, kind.value, text, now, actor=actor, node_id=node_id)
    touch(change, rollout.id)


def touch(change: Change, rollout_id: str) -> None:
    change.touch("rollouts", f"rollout:{rollout_id}", "fleet", "operations")


def because(reason: str) -> str:
    """“: “reason””, or nothing."""
    return f": “{reason}”" if reason else ""
