"""Which failure domains lost much at once, from the rows as they are now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection

from app.core.domains import FLEET, GRACE_S, LEAST, TOGETHER_S, Domain, Gone, Loss, losses
from app.core.groups import Group
from app.store import fleet, groups, presence
from app.store.attention import LONG_OFFLINE_S

ZONE = "zone"
"""The label that the console counts by is a failure domain in every fleet that has it."""


def current(conn: Connection, now: float, known: Iterable[Group] | None = None) -> list[Loss]:
    """Losses whose grace is not over. One small query while hardly anybody is offline."""
    within_s = fleet.policy(conn).offline_grace_s + TOGETHER_S
    gone = presence.gone_since(conn, now - GRACE_S - within_s)
    return _losses(conn, gone, now, within_s, GRACE_S, known)


def lasting(conn: Connection, now: float) -> list[Loss]:
    """Losses of the last hour of which so much is still gone, without our doing; the parts of a fleet that is lost as a
    whole are not told apart. One small query while hardly anybody is offline."""
    within_s = fleet.policy(conn).offline_grace_s + TOGETHER_S
    gone = presence.gone_since(conn, now - LONG_OFFLINE_S - within_s)
    ours = presence.reserved(conn) if len(gone) >= LEAST else set()
    found = _losses(conn, [one for one in gone if one[0] not in ours], now, within_s, LONG_OFFLINE_S, None)
    return found[:1] if found and not found[0].label else found


def _losses(
    conn: Connection,
    gone: Sequence[tuple[str, Mapping[str, str], float]],
    now: float,
    within_s: float,
    grace_s: float,
    known: Iterable[Group] | None,
) -> list[Loss]:
    if len(gone) < LEAST:
        return []
    found = groups.all_groups(conn) if known is None else known
    labels = sorted({ZONE, *(group.policy.domain_label for group in found if group.policy.domain_label)})
    away = [Gone(node_id, tuple(_domains(has, labels)), seen_at) for node_id, has, seen_at in gone]
    if not losses({}, away, now, within_s, grace_s):  # few enough, whatever the size of their domains
        return []
    members = presence.labels_of_members(conn)
    sizes = Counter(domain for has in members for domain in (FLEET, *_domains(has, labels)))
    return losses(sizes, away, now, within_s, grace_s)


def _domains(has: Mapping[str, str], labels: Iterable[str]) -> list[Domain]:
    return [(label, has[label]) for label in labels if has.get(label)]
