"""Which failure domains lost much at once, from the rows as they are now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection

from app.core.domains import FLEET, GRACE_S, LEAST, TOGETHER_S, Domain, Gone, Loss, losses
from app.core.groups import Group
from app.store import fleet, groups, presence

ZONE = "zone"
"""The label that the console counts by is a failure domain in every fleet that has it."""


def current(conn: Connection, now: float, known: Iterable[Group] | None = None) -> list[Loss]:
    """Losses whose grace is not over. One small query while hardly anybody is offline."""
    within_s = fleet.policy(conn).offline_grace_s + TOGETHER_S
    gone = presence.gone_since(conn, now - GRACE_S - within_s)
    if len(gone) < LEAST:
        return []
    found = groups.all_groups(conn) if known is None else known
    labels = sorted({ZONE, *(group.policy.domain_label for group in found if group.policy.domain_label)})
    members = presence.labels_of_members(conn)
    sizes = Counter(domain for has in members for domain in (FLEET, *_domains(has, labels)))
    away = [Gone(node_id, tuple(_domains(has, labels)), seen_at) for node_id, has, seen_at in gone]
    return losses(sizes, away, now, within_s)


def _domains(has: Mapping[str, str], labels: Iterable[str]) -> list[Domain]:
    return [(label, has[label]) for label in labels if has.get(label)]
