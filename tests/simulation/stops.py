"""Who may be granted nothing any more, judged from outside: nodes of a rollout that does not run, and versions that are
bad for the whole fleet. What was granted before finishes: what is armed cannot be called back (see `gate`)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select

from app.core.rollouts import RolloutState
from app.store import schema

_o, _r, _b = schema.operations.c, schema.rollouts.c, schema.bad_versions.c


class Stops:
    """`note` after whatever operators do, `look` after each round: between two of these only conductors were at work,
    and they let nothing go on that was stopped."""

    def __init__(self) -> None:
        self._stopped: dict[str, str] = {}
        self._bad: set[str] = set()

    def note(self, conn: Connection) -> None:
        """From now on everybody can know what is stopped."""
        self._stopped = {row.id: row.state for row in conn.execute(_STOPPED)}
        self._bad = set(conn.execute(_BAD).scalars())

    def look(self, conn: Connection, operation_ids: Sequence[str]) -> str:
        """Which of these operations, that were granted leases since the last `note` or `look`, should not have been, in
        words; empty: none."""
        found = [self._objection(conn, operation_id) for operation_id in operation_ids]
        self.note(conn)
        return next((words for words in found if words), "")

    def _objection(self, conn: Connection, operation_id: str) -> str:
        row = conn.execute(_OPERATION, {"id": operation_id}).one()
        node = f"node {int(row.node_id[5:])} got a lease"
        if row.rollout_id in self._stopped:
            return f"{node} when its rollout {row.rollout_id[-4:]} was {self._stopped[row.rollout_id]} already"
        if row.target_digest in self._bad:
            return f"{node} for {row.target_version}, which was bad for the whole fleet already"
        return ""


_GO_ON = (RolloutState.RUNNING.value, RolloutState.ROLLING_BACK.value)
_STOPPED = select(_r.id, _r.state).where(_r.state.not_in(_GO_ON))
_BAD = select(_b.digest).where(_b.cleared_at.is_(None))
_OPERATION = select(_o.node_id, _o.rollout_id, _o.target_digest, _o.target_version).where(_o.id == bindparam("id"))
