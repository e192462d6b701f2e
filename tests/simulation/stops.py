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
        self._bad: set[tuple[str, str]] = set()
        """Digest and cause."""

    def note(self, conn: Connection) -> None:
        """From now on everybody can know what is stopped."""
        self._stopped = {row.id: row.state for row in conn.execute(_STOPPED)}
        self._bad = {(row.digest, row.cause) for row in conn.execute(_BAD)}

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
        causes = {cause for digest, cause in self._bad if digest == row.target_digest}
        if causes and ("withdrawn" in causes or not _goes_back(conn, operation_id)):
            return f"{node} for {row.target_version}, which was bad for the whole fleet already"
        return ""


def _goes_back(conn: Connection, operation_id: str) -> bool:
    """What failed elsewhere takes no way back that is under way."""
    row = conn.execute(_OF_WAY_BACK, {"id": operation_id}).one()
    sent = conn.execute(_SENT_BACK, {"id": operation_id}).first() is not None
    return bool(sent or row.kind == "rollback" or row.of == "rollback")


_GO_ON = (RolloutState.RUNNING.value, RolloutState.ROLLING_BACK.value)
_STOPPED = select(_r.id, _r.state).where(_r.state.not_in(_GO_ON))
_BAD = select(_b.digest, _b.cause).where(_b.cleared_at.is_(None))
_OPERATION = select(_o.node_id, _o.rollout_id, _o.target_digest, _o.target_version).where(_o.id == bindparam("id"))
_OF_WAY_BACK = (
    select(_o.kind, _r.kind.label("of"))
    .select_from(schema.operations.outerjoin(schema.rollouts, _r.id == _o.rollout_id))
    .where(_o.id == bindparam("id"))
)
_n = schema.rollout_nodes.c
_SENT_BACK = select(_n.node_id).where(_n.back_operation_id == bindparam("id"))
