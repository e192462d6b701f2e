"""What needs a person: a defined list of conditions, each about one thing, with who took it and until when it is put
aside. An entry leaves by itself when its condition is over; what was put aside returns when the time is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from sqlalchemy import Connection

from app.core.actors import CONDUCTOR, Actor
from app.core.errors import Invalid, NotFound, NotPossible
from app.core.holds import HoldCode
from app.core.rollouts import RolloutState
from app.services import domain_losses
from app.services import services as service_pages
from app.services.rollout_ending import awaited_words
from app.store import attention, attention_marks, audit, freezes, rollout_cells, rollout_nodes, rollouts
from app.store.attention_marks import Mark
from app.store.database import Change, Database, Priority
from app.store.rollouts import Rollout

STALLED_S = 3600.0
"""An hour beyond what a node may take by its policy: something keeps the rollout that does not end by itself."""
_LONGEST_S = 30 * 86_400.0
"""Nothing is put aside for longer: it would be forgotten."""
_NODES = 500
"""Nodes of one condition that are listed; the list of nodes has a filter for all."""


class EntryKind(StrEnum):
    """The most urgent first."""

    NEW_EPOCH = "new-epoch"
    """The database is older than the fleet: everything is frozen until somebody has looked (rule 8)."""
    LOST = "lost"
    """Much of a failure domain, or of the fleet, went silent at once."""
    HALTED = "halted"
    BELOW_FLOOR = "below-floor"
    CONFLICT = "conflict"
    FAILED = "failed"
    UNHEALTHY = "unhealthy"
    NOT_MOVING = "not-moving"
    NOT_STARTED = "not-started"
    """A rollout that should have started by itself could not."""
    PENDING = "pending"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Entry:
    kind: EntryKind
    subject: str
    """`node:<id>`, `rollout:<id>`, `service:<scope>/<name>`, `domain:<label>=<value>` or `fleet`."""
    name: str
    text: str
    at: float | None
    """Since when, where that is known."""
    mark: Mark | None = None

    def put_aside(self, now: float) -> bool:
        return self.mark is not None and self.mark.snoozed(now)


def entries(conn: Connection, now: float, *, put_aside: bool = False) -> list[Entry]:
    """As `all_entries`. `put_aside`: those that are put aside now, instead of the others."""
    return [one for one in all_entries(conn, now) if one.put_aside(now) is put_aside]


def all_entries(conn: Connection, now: float) -> list[Entry]:
    """The most urgent kind first, then the newest; of one condition of nodes at most `_NODES`."""
    marks = attention_marks.all_marks(conn)
    found = [replace(one, mark=marks.get((one.kind.value, one.subject))) for one in _all(conn, now)]
    order = list(EntryKind)
    return sorted(found, key=lambda one: (order.index(one.kind), -(one.at or 0.0), one.name, one.subject))


def unlisted(conn: Connection, now: float, everything: Iterable[Entry]) -> dict[EntryKind, int]:
    """How many nodes of a kind `all_entries` leaves out, where it does."""
    if max(Counter(entry.kind for entry in everything).values(), default=0) < _NODES:
        return {}
    counts = {EntryKind(need.kind.value): need.count for need in attention.needs(conn, now, show=0)}
    return {kind: count - _NODES for kind, count in counts.items() if count > _NODES}


def _all(conn: Connection, now: float) -> Iterable[Entry]:
    for find in (_epochs, _losses, _rollouts, _services, _nodes):
        yield from find(conn, now)


def _epochs(conn: Connection, now: float) -> Iterable[Entry]:
    for freeze in freezes.active(conn, now):
        if freeze.group_id is None and freeze.actor == CONDUCTOR.name:
            yield Entry(EntryKind.NEW_EPOCH, "fleet", "The whole fleet", freeze.reason, freeze.starts_at)


def _losses(conn: Connection, now: float) -> Iterable[Entry]:
    for loss in domain_losses.lasting(conn, now):
        text = f"{loss.lost:,} of {loss.of:,} nodes went silent at about the same time, and are offline"
        subject = f"domain:{loss.label}={loss.value}" if loss.label else "fleet"
        name = f"{loss.label} {loss.value}" if loss.label else "The whole fleet"
        yield Entry(EntryKind.LOST, subject, name, text, loss.at)


def _rollouts(conn: Connection, now: float) -> Iterable[Entry]:
    states = (RolloutState.DRAFT, RolloutState.RUNNING, RolloutState.HALTED, RolloutState.ROLLING_BACK)
    for rollout in rollouts.in_states(conn, states):
        subject, name = f"rollout:{rollout.id}", rollout.name.capitalize()
        if rollout.state is RolloutState.HALTED:
            yield Entry(EntryKind.HALTED, subject, name, rollout.state_text, rollout.moved_at)
        elif rollout.state is RolloutState.DRAFT:
            if rollout.state_text:
                yield Entry(EntryKind.NOT_STARTED, subject, name, rollout.state_text, rollout.created_at)
        elif (why := _stalled(conn, rollout, now)) is not None:
            yield Entry(EntryKind.NOT_MOVING, subject, name, why, rollout.moved_at)


_TIMED = frozenset({HoldCode.WINDOW, HoldCode.FREEZE, HoldCode.MINIMUM_AGE, HoldCode.CANARIES})
"""Reasons that end by themselves, or that somebody gave on purpose."""


def _stalled(conn: Connection, rollout: Rollout, now: float) -> str | None:
    """What keeps a rollout that has not moved for long; None while it may just take its time."""
    timing = rollout.policy.timing
    patience_s = STALLED_S + timing.soak_s + timing.confirm_s + timing.reboot_deadline_s
    if rollout.moved_at is None or now - rollout.moved_at <= patience_s:
        return None
    groups = rollout_cells.held_groups(conn, rollout.id)
    lasting = [group for group in groups if group.code not in _TIMED]
    if groups and not lasting:
        return None
    if not groups and rollout.state is RolloutState.RUNNING and not rollout_nodes.not_ended(conn, rollout.id):
        return awaited_words(conn, rollout) or None  # what newer rollouts that run wait for is said of them
    if not lasting:
        return "no node got further, and none says why"
    most = lasting[0]
    return f"{most.nodes:,} {'node' if most.nodes == 1 else 'nodes'}: {most.text}"


def _services(conn: Connection, now: float) -> Iterable[Entry]:
    for listed in service_pages.listing(conn, now):
        if listed.headroom is None or listed.headroom >= 0:
            continue
        name = "/".join(filter(None, listed.key))
        expected = f" of {listed.view.expected} expected" if listed.view.expected else ""
        text = f"{listed.healthy} healthy{expected}, floor {listed.view.floor}"
        yield Entry(EntryKind.BELOW_FLOOR, f"service:{listed.key[0]}/{listed.key[1]}", name, text, None)


_NODE_TEXTS: dict[attention.NeedKind, Callable[[attention.Needing], str]] = {
    attention.NeedKind.CONFLICT: lambda one: "is claimed by two machines; neither is commanded",
    attention.NeedKind.FAILED: lambda one: f"does not run {one.version}: {one.text}",
    attention.NeedKind.UNHEALTHY: lambda one: "is unhealthy",
    attention.NeedKind.PENDING: lambda one: "waits for approval",
    attention.NeedKind.OFFLINE: lambda one: "is offline",
}


def _nodes(conn: Connection, now: float) -> Iterable[Entry]:
    for need in attention.needs(conn, now, show=_NODES):
        for one in need.first:
            text = _NODE_TEXTS[need.kind](one)
            yield Entry(EntryKind(need.kind.value), f"node:{one.node_id}", one.name, text, one.at)


# --- what people do about it --------------------------------------------------------------------------------


def take(db: Database, actor: Actor, kind: str, subject: str, note: str, now: float) -> None:
    """It is mine. NotPossible when it is somebody else's: they release it first."""
    with db.write() as change:
        mark = _mark(change, actor, kind, subject, now)
        if mark.owner is not None and mark.owner != actor.name:
            raise NotPossible("taken", f"{mark.owner} has it already.")
        after = replace(mark, owner=actor.name, taken_at=now, actor=actor.name, note=note.strip())
        _keep(change, actor, "take", mark, after, now)


def release(db: Database, actor: Actor, kind: str, subject: str, note: str, now: float) -> None:
    """Nobody's any more; also what somebody else took, and what was put aside returns."""
    with db.write() as change:
        mark = attention_marks.get(change.conn, kind, subject)
        if mark is None:
            raise NotPossible("not-taken", "Nobody has taken it or put it aside.")
        attention_marks.remove(change.conn, kind, subject)
        _record(change, actor, "release", mark, None, note, now)


def snooze(db: Database, actor: Actor, kind: str, subject: str, until: float, note: str, now: float) -> None:
    """Put it aside until then; it returns when its condition still holds."""
    if not now < until <= now + _LONGEST_S:
        raise Invalid("until", "Put it aside until a moment within the next thirty days.")
    with db.write() as change:
        mark = _mark(change, actor, kind, subject, now)
        _keep(
            change, actor, "snooze", mark, replace(mark, snoozed_until=until, actor=actor.name, note=note.strip()), now
        )


def forget_over(db: Database, now: float) -> int:
    """Marks go with their conditions, so that a later one begins anew; how many. A step of the conductor. What somebody
    had said of it stays in the audit log."""
    with db.read() as conn:
        marked = attention_marks.all_marks(conn)
        over = set(marked) - {(one.kind.value, one.subject) for one in _all(conn, now)} if marked else set()
    if not over:
        return 0
    forgotten = 0
    with db.write(Priority.BACKGROUND) as change:
        for kind, subject in sorted(over):
            mark = attention_marks.get(change.conn, kind, subject)
            if mark is None or mark != marked[kind, subject]:
                continue  # somebody did something about it at this moment
            attention_marks.remove(change.conn, kind, subject)
            _record(change, CONDUCTOR, "forget", mark, None, "its condition is over", now)
            forgotten += 1
    return forgotten


def _mark(change: Change, actor: Actor, kind: str, subject: str, now: float) -> Mark:
    """What is marked now; NotFound when there is no such entry."""
    known = attention_marks.get(change.conn, kind, subject)
    if not any((one.kind.value, one.subject) == (kind, subject) for one in _all(change.conn, now)):
        raise NotFound("entry that needs a person", f"{kind} {subject}")
    return known or Mark(kind, subject, None, None, None, actor.name, "")


def _keep(change: Change, actor: Actor, action: str, before: Mark, after: Mark, now: float) -> None:
    attention_marks.put(change.conn, after)
    _record(change, actor, action, before, after, after.note, now)


def _record(change: Change, actor: Actor, action: str, before: Mark, after: Mark | None, note: str, now: float) -> None:
    subject = f"{before.kind} {before.subject}"
    audit.append(change.conn, actor, f"attention.{action}", subject, note, _logged(before), _logged(after), now)
    change.touch("attention", "fleet")


def _logged(mark: Mark | None) -> dict[str, object] | None:
    return None if mark is None else {"owner": mark.owner, "until": mark.snoozed_until, "note": mark.note}
