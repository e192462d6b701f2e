"""Why nodes of rollouts wait, as the newest tick of admission found: written only where it is another reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, tuple_, update

from app.core.holds import Hold
from app.store.schema import rollout_nodes


def keep(conn: Connection, holds: Sequence[tuple[str, str, Hold]]) -> set[str]:
    """Store (rollout id, node id, hold) of at most a few hundred nodes; the rollouts in which something changed."""
    if not holds:
        return set()
    of = tuple_(rollout_nodes.c.rollout_id, rollout_nodes.c.node_id)
    stored = {
        (row[0], row[1]): row[2]
        for row in conn.execute(
            select(rollout_nodes.c.rollout_id, rollout_nodes.c.node_id, rollout_nodes.c.hold)
            .where(of.in_([(rollout_id, node_id) for rollout_id, node_id, _ in holds]))
            .order_by(rollout_nodes.c.node_id)
        )
    }
    changed = set()
    for rollout_id, node_id, hold in holds:
        key = (rollout_id, node_id)
        if key in stored and stored[key] != as_json(hold):
            conn.execute(
                update(rollout_nodes)
                .where(rollout_nodes.c.rollout_id == rollout_id, rollout_nodes.c.node_id == node_id)
                .values(hold=as_json(hold))
            )
            changed.add(rollout_id)
    return changed


def as_json(hold: Hold) -> dict[str, Any]:
    return {"code": hold.code.value, "text": hold.text, "subject": hold.subject, "until": hold.until}
