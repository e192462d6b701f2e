"""One failure domain after another: who is passed over because none of its nodes can move is said, once. A domain
keeps its turn only while a node of it can still move (app.core.planning.room)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from app.core.holds import HoldCode
from app.core.rollouts import RolloutState
from app.services.rollout_acting import RolloutEventKind, tell
from app.store import rollout_domains, rollouts
from app.store.database import Database, Priority
from app.store.rollout_domains import Left
from app.store.rollouts import Rollout

_LOOKED_AT = 200
"""Nodes of a domain: where more have not moved, some can."""
_QUEUES = frozenset(
    code.value
    for code in (
        HoldCode.NOT_READY,
        HoldCode.CANARIES,
        HoldCode.EXPOSURE,
        HoldCode.GROUP_BUDGET,
        HoldCode.DOMAIN_BUDGET,
        HoldCode.DOMAIN_ORDER,
        HoldCode.HEALTH_GATE,
    )
)
"""Who waits for one of these is in the queue, and not passed over."""


def tell_passed_over(db: Database, running: Sequence[Rollout], now: float) -> int:
    """Write down domains that others were let go before; how many."""
    told = 0
    for found in running:
        if found.state is not RolloutState.RUNNING or found.leads_back or not found.policy.one_domain_after_another:
            continue
        with db.read() as conn:
            if not _texts(conn, found):
                continue
        with db.write(Priority.BACKGROUND) as change:
            rollout = rollouts.get(change.conn, found.id, lock=True)
            if rollout is None or rollout.state is not RolloutState.RUNNING:
                continue
            for text in _texts(change.conn, rollout):
                tell(change, rollout, RolloutEventKind.PASSED_OVER, text, now)
                told += 1
    return told


def _texts(conn: Connection, rollout: Rollout) -> list[str]:
    """Of domains that are passed over now and of which that has not been said."""
    label = rollout.policy.domain_label
    counts = rollout_domains.counts(conn, rollout.id, label)
    now_moves = max((domain for domain, (_, moving) in counts.items() if moving), default=None)
    if now_moves is None:
        return []
    said = rollouts.texts_of(conn, rollout.id, RolloutEventKind.PASSED_OVER.value)
    found = []
    for domain in sorted(domain for domain, (waiting, moving) in counts.items() if waiting and not moving):
        words = f"{label} {domain or '(none)'} is passed over"
        if domain > now_moves or any(text.startswith(f"{words}:") for text in said):
            continue
        left = rollout_domains.not_moved(conn, rollout.id, label, domain, _LOOKED_AT)
        if len(left) < _LOOKED_AT and all(_cannot_move(one) for one in left):
            found.append(f"{words}: {_named(left)}")
    return found


def _cannot_move(one: Left) -> bool:
    return one.hold is not None and one.hold["code"] not in _QUEUES


def _named(left: Sequence[Left]) -> str:
    first = left[0]
    why = first.hold["text"] if first.hold is not None else ""
    more = f", and so do {len(left) - 1} more" if len(left) > 1 else ""
    return f"{first.name} waits ({why}){more}"
