"""Why nodes of rollouts wait, as the newest tick of admission found: written only where it is another reason."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select, tuple_, update

from app.core.holds import Hold
from app.core.rollouts import RolloutNodeState
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


def of_ordered(conn: Connection, rollout_ids: Collection[str]) -> dict[tuple[str, str], dict[str, Any] | None]:
    """By (rollout id, node id), of the nodes that have their order and have not moved."""
    rows = conn.execute(
        select(rollout_nodes.c.rollout_id, rollout_nodes.c.node_id, rollout_nodes.c.hold).where(
            rollout_nodes.c.rollout_id.in_(rollout_ids), rollout_nodes.c.state == _ORDERED
        )
    )
    return {(row[0], row[1]): row[2] for row in rows}


def put_anew(conn: Connection, holds: Sequence[tuple[str, str, Hold]]) -> None:
    """Store (rollout id, node id, hold) of nodes that have not moved meanwhile."""
    conn.execute(
        update(rollout_nodes)
        .where(
            rollout_nodes.c.rollout_id == bindparam("of_rollout"),
            rollout_nodes.c.node_id == bindparam("of_node"),
            rollout_nodes.c.state == _ORDERED,
        )
        .values(hold=bindparam("why")),
        [
            {"of_rollout": rollout_id, "of_node": node_id, "why": as_json(hold)}
            for rollout_id, node_id, hold in sorted(holds, key=lambda one: one[:2])
        ],
    )


_ORDERED = RolloutNodeState.ORDERED.value


def as_json(hold: Hold) -> dict[str, Any]:
    return {"code": hold.code.value, "text": hold.text, "subject": hold.subject, "until": hold.until}
