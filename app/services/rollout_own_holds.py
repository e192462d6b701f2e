"""What nodes say themselves of why they neither begin nor ask, written into their rollouts. A step of the conductor.

Admission tells only those that ask; without this their wait would have no name (rule 10).
"""

from __future__ import annotations

from itertools import groupby, islice

from app.core.holds import Hold, HoldCode
from app.core.leases import LONG_RETRY_S
from app.services.rollout_acting import touch
from app.store import rollout_holds
from app.store.database import Database, Priority

_ASKS_S = 2 * LONG_RETRY_S
"""Who asked within this waits for us."""
_BATCH = 200


def note_own_holds(db: Database, now: float) -> int:
    """Bring what is written of ordered nodes up to what they say; how many holds changed."""
    with db.read() as conn:
        found = rollout_holds.own_words_of_nodes(conn, now - _ASKS_S, now)
    changed = 0
    for rollout_id, some in groupby(found, key=lambda one: one[0]):
        differs = ((node_id, text) for _, node_id, stored, text in some if _differs(stored, text))
        while batch := list(islice(differs, _BATCH)):
            _write(db, rollout_id, batch)
            changed += len(batch)
    return changed


def _differs(stored: dict[str, object] | None, text: str | None) -> bool:
    ours = stored is not None and stored["code"] == HoldCode.NOT_READY.value
    if text is None:
        return ours
    return stored is None or not ours or stored["text"] != text


def _write(db: Database, rollout_id: str, batch: list[tuple[str, str | None]]) -> None:
    with db.write(Priority.BACKGROUND) as change:
        over = [node_id for node_id, text in batch if text is None]
        if over:
            rollout_holds.take_away(change.conn, rollout_id, over)
        own = [Hold(HoldCode.NOT_READY, text, id) for id, text in batch if text is not None]
        says = [(rollout_id, hold.subject, rollout_holds.as_json(hold)) for hold in own]
        if says:
            rollout_holds.put_anew(change.conn, says)
        change.touch(*(f"node:{node_id}" for node_id, _ in batch))
        touch(change, rollout_id)
