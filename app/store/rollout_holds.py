"""Why nodes of rollouts wait, as the newest tick of admission found: written only where it is another reason."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, not_, or_, select, tuple_, update

from app.core.holds import Hold, HoldCode
from app.core.nodes import OperationState
from app.core.rollouts import RolloutNodeState
from app.store.operation_clocks import UNBEGUN, asks, own_words
from app.store.schema import nodes, operations, rollout_nodes


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
        if key in stored and stored[key] != (why := as_json(hold, stored[key])):
            conn.execute(
                update(rollout_nodes)
                .where(rollout_nodes.c.rollout_id == rollout_id, rollout_nodes.c.node_id == node_id)
                .values(hold=why)
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


def put_anew(conn: Connection, holds: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
    """Store (rollout id, node id, hold of `as_json`) of nodes that have not moved meanwhile."""
    conn.execute(
        update(rollout_nodes)
        .where(
            rollout_nodes.c.rollout_id == bindparam("of_rollout"),
            rollout_nodes.c.node_id == bindparam("of_node"),
            rollout_nodes.c.state == _ORDERED,
        )
        .values(hold=bindparam("why")),
        [
            {"of_rollout": rollout_id, "of_node": node_id, "why": hold}
            for rollout_id, node_id, hold in sorted(holds, key=lambda one: one[:2])
        ],
    )


_ORDERED = RolloutNodeState.ORDERED.value


def own_words_of_nodes(
    conn: Connection, asked_since: float, now: float
) -> list[tuple[str, str, dict[str, Any] | None, str | None]]:
    """(rollout id, node id, stored hold, what the node itself says of its order), of connected nodes that have their
    order and neither begin nor ask (as operation_clocks.due has it), and of those whose stored hold is such a word."""
    span = {"first": asked_since, "last": 2 * now - asked_since}
    return [
        (row.rollout_id, row.node_id, row.hold, own_words(row) if row.phase in UNBEGUN else None)
        for row in conn.execute(_own(), span)
    ]


@cache
def _own() -> Select[Any]:
    unbegun = operations.c.phase.in_([phase.value for phase in UNBEGUN])
    told = rollout_nodes.c.hold["code"].as_string() == HoldCode.NOT_READY.value
    columns = rollout_nodes.c.rollout_id, rollout_nodes.c.node_id, rollout_nodes.c.hold
    return (
        select(*columns, operations.c.id, operations.c.phase, nodes.c.activity)
        .join(operations, operations.c.id == rollout_nodes.c.operation_id)
        .join(nodes, nodes.c.id == rollout_nodes.c.node_id)
        .where(
            rollout_nodes.c.state == _ORDERED,
            operations.c.state == OperationState.OPEN.value,
            operations.c.cancel_asked_at.is_(None),
            nodes.c.connection == "online",
            or_(told, and_(unbegun, not_(asks()))),
        )
        .order_by(rollout_nodes.c.rollout_id, rollout_nodes.c.node_id)
    )


def take_away(conn: Connection, rollout_id: str, node_ids: Sequence[str]) -> None:
    """Nothing is known any more to hold these, which have their order and have not moved."""
    here = rollout_nodes.c.rollout_id == rollout_id, rollout_nodes.c.node_id.in_(node_ids)
    conn.execute(update(rollout_nodes).where(*here, rollout_nodes.c.state == _ORDERED).values(hold=None))


def as_json(hold: Hold, stored: dict[str, Any] | None = None) -> dict[str, Any]:
    """As it is kept in the place of `stored`. That its rollout does not run keeps, as `before`, what it waited for when
    that stopped: whoever asks since is told just this."""
    why = {"code": hold.code.value, "text": hold.text, "subject": hold.subject, "until": hold.until}
    if hold.code is not HoldCode.NOT_RUNNING or stored is None:
        return why
    before = stored.get("before") if stored["code"] == HoldCode.NOT_RUNNING.value else stored
    return why if before is None else {**why, "before": before}
