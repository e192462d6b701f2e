"""Whether anything that a step depends on has changed since it looked: one small query tells it for all steps.

Every transaction bumps the revisions of its topics in itself, so that nothing committed is missed; a nudge that was
lost costs nothing here. What no row tells – time itself, or a writer that forgot a topic – is seen at the latest when
the step's own patience ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from app.store import revisions
from app.store.database import Database

Seen = Mapping[str, int]
"""Topic → revision."""


class Changes:
    """The revisions of some topics, read anew when somebody may have changed them. Any thread may `note`."""

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = frozenset(topics)
        self._found: dict[str, int] = {}
        self._notes, self._found_at = 1, 0

    def note(self, topics: Iterable[str]) -> None:
        """These changed: also by the step before, and then the next one does not look twice at the same change."""
        if not self._topics.isdisjoint(topics):
            self._notes += 1

    def begin_round(self) -> None:
        """Whatever was said meanwhile, or was not: look."""
        self._notes += 1

    def seen(self, db: Database, topics: Iterable[str]) -> Seen:
        """The revisions of these as they are, or were at the beginning of this round: never newer than what is read
        from now on. Errors of the database are the caller's."""
        if self._found_at != self._notes:
            notes = self._notes  # what is noted while we look is looked at again
            with db.read() as conn:
                self._found = revisions.of_topics(conn, self._topics)
            self._found_at = notes
        return {topic: self._found[topic] for topic in topics}
