"""Revisions of topics: what a page compares to know that it is stale."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, select

from app.store.schema import revisions

_AT_ONCE = 500
"""Topics a query: below the number of parameters that any database takes."""


def of_topics(conn: Connection, topics: Iterable[str]) -> dict[str, int]:
    """Revision of each topic; 0 for one that never changed."""
    wanted = sorted(topics)
    found = dict.fromkeys(wanted, 0)
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        found |= {row.topic: row.revision for row in conn.execute(_OF_TOPICS, {"topics": some})}
    return found


_OF_TOPICS = select(revisions.c.topic, revisions.c.revision).where(
    revisions.c.topic.in_(bindparam("topics", expanding=True))
)
