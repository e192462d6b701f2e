"""A database that is older than its fleet: restored from a backup, or the survivor of a lossy failover (rule 8).

A node that knows a newer order than the database ever gave proves it. Then a new epoch begins, so that nodes take
orders again, and the whole fleet is frozen until an operator has looked at what was lost and lifts the freeze. What
was let pass freezes before that is not any more: who gave it did not know of this one.
"""

from __future__ import annotations

from sqlalchemy import Connection

from app.core.actors import CONDUCTOR
from app.core.events import EventKind
from app.core.freezes import Freeze
from app.core.rollouts import TERMINAL, RolloutState
from app.ids import new_id
from app.services.rollout_acting import RolloutEventKind, locked_rollout, record, tell
from app.store import audit, epochs, events, fleet, freezes, rollouts
from app.store.database import Change, Database, Priority
from app.store.epochs import Newer
from wire.messages import Order


def start_when_needed(db: Database, now: float) -> bool:
    """Begin a new epoch when some node knows a newer order than it was given; whether one began."""
    with db.read() as conn:
        if not _newer(conn, now):
            return False
    with db.write(Priority.BACKGROUND) as change:
        fleet.lock(change.conn)
        found = _newer(change.conn, now)
        if not found:  # another conductor was first
            return False
        _start(change, found, now)
    return True


def _newer(conn: Connection, now: float) -> list[Newer]:
    waiting = frozen_by(conn, now)
    return epochs.newer(conn, None if waiting is None else waiting.starts_at)


def _start(change: Change, found: list[Newer], now: float) -> None:
    conn, first = change.conn, found[0]
    before = fleet.epoch(conn)
    _mend_glass(change, "A new epoch has begun", now)
    epoch = epochs.begin(conn)
    others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    text = (
        f"{first.name}{others} has carried out order {_words(first.told)}, and this database gave it only "
        f"{_words(first.given)}: the database is older than the fleet, as after restoring a backup"
    )
    for each in found:
        newer = f"Knows order {_words(each.told)}, newer than any that this database gave; epoch {epoch} has begun"
        kind = EventKind.EPOCH_STARTED
        events.append(conn, node_id=each.node_id, at=now, kind=kind, text=newer, actor=CONDUCTOR.name)
        change.touch(f"node:{each.node_id}")
    audit.append(conn, CONDUCTOR, "fleet.epoch", "fleet", text, {"epoch": before}, {"epoch": epoch}, now)
    if frozen_by(conn, now) is None:  # one freeze waits for one look, however many nodes prove it one after another
        _freeze(change, f"{text}. Epoch {epoch} has begun; check what was lost, then lift this freeze", now)
    change.touch("freezes", "groups", "fleet", "nodes", "events", "operations")


def _mend_glass(change: Change, why: str, now: float) -> None:
    for found in rollouts.in_states(change.conn, frozenset(RolloutState) - TERMINAL):
        rollout = locked_rollout(change, found.id) if found.break_glass else found
        if rollout.break_glass and rollout.state not in TERMINAL:
            rollouts.change(change.conn, rollout.id, break_glass=False)
            text = f"Heeds freezes and windows again: {why[0].lower()}{why[1:]}"
            tell(change, rollout, RolloutEventKind.CHANGED, text, now, actor=CONDUCTOR.name)
            record(change, CONDUCTOR, "break-glass", rollout, why, {"break_glass": True}, {"break_glass": False}, now)


def _freeze(change: Change, reason: str, now: float) -> None:
    conn, freeze_id = change.conn, new_id("freeze")
    freezes.add(conn, freeze_id, group_id=None, actor=CONDUCTOR.name, reason=reason, starts_at=now, ends_at=None)
    audit.append(conn, CONDUCTOR, "freeze.set", f"freeze:{freeze_id}", reason, None, {"group": None}, now)


def frozen_by(conn: Connection, now: float) -> Freeze | None:
    """The freeze of a new epoch at which no operator has looked yet."""
    ours = (each for each in freezes.active(conn, now) if each.group_id is None and each.actor == CONDUCTOR.name)
    return next(ours, None)


def _words(order: Order) -> str:
    return f"{order.epoch}.{order.generation}"
