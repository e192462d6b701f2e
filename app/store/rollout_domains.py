"""The failure domains of a rollout: how far each has come, where its nodes move one domain after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from app.core.rollouts import RolloutNodeState
from app.store.node_query import label
from app.store.schema import nodes, rollout_nodes

_c = rollout_nodes.c
_W, _O, _M = RolloutNodeState.WAITING.value, RolloutNodeState.ORDERED.value, RolloutNodeState.MOVING.value


@dataclass(frozen=True, slots=True)
class Left:
    """A node that has not moved yet."""

    name: str
    hold: Mapping[str, Any] | None


def counts(conn: Connection, rollout_id: str, domain_label: str) -> dict[str, tuple[int, int]]:
    """Value of the label (empty: none) → (nodes that have not moved yet, nodes that move now), without canaries."""
    value = func.coalesce(label(domain_label), "")
    query = (
        select(value, _c.state, func.count())
        .select_from(rollout_nodes.join(nodes, nodes.c.id == _c.node_id))
        .where(_c.rollout_id == rollout_id, ~_c.canary, _c.state.in_((_W, _O, _M)))
        .group_by(value, _c.state)
    )
    found: dict[str, tuple[int, int]] = {}
    for domain, state, number in conn.execute(query):
        waiting, moving = found.get(domain, (0, 0))
        found[domain] = (waiting, moving + number) if state == _M else (waiting + number, moving)
    return found


def not_moved(conn: Connection, rollout_id: str, domain_label: str, domain: str, limit: int) -> list[Left]:
    """The first ones by name of a domain that have not moved yet."""
    query = (
        select(nodes.c.name, _c.hold)
        .select_from(rollout_nodes.join(nodes, nodes.c.id == _c.node_id))
        .where(_c.rollout_id == rollout_id, ~_c.canary, _c.state.in_((_W, _O)))
        .where(func.coalesce(label(domain_label), "") == domain)
        .order_by(nodes.c.name, nodes.c.id)
    )
    return [Left(row.name, row.hold) for row in conn.execute(query.limit(limit))]
