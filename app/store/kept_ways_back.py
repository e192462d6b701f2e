"""Nodes whose passive slot is still the way back of a rollout that is not over (rule 2).

The node was moved by an update and runs what that led it to: were it rolled back now, the node would go back to its
passive slot. Rows may lag behind their operations; what the node runs does not.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, func, or_, select

from app.core.rollout_entry import Keeper
from app.core.rollouts import TERMINAL, RolloutKind, RolloutNodeState, RolloutState
from app.store.schema import nodes, operations, rollout_nodes, rollouts

_OPEN = [state.value for state in RolloutState if state not in TERMINAL and state is not RolloutState.DRAFT]
_r, _n, _o = rollouts.alias("keeper"), rollout_nodes.alias("kept"), operations.alias("moved_by")
_KEEPS = and_(
    _r.c.kind == RolloutKind.UPDATE.value,
    _r.c.state.in_(_OPEN),
    or_(_n.c.state != RolloutNodeState.LEFT.value, _n.c.moving_at.is_not(None)),
    _n.c.back_ended_at.is_(None),
)


def keeper_id() -> ColumnElement[str | None]:
    """Id of the oldest rollout that a node's way back is kept for, as a column of queries over `nodes`; null: none."""
    return (
        select(func.min(_n.c.rollout_id))
        .join_from(_n, _r, _r.c.id == _n.c.rollout_id)
        .join(_o, _o.c.id == _n.c.operation_id)
        .where(_n.c.node_id == nodes.c.id, _o.c.target_digest == nodes.c.booted_digest, _KEEPS)
        .correlate(nodes)
        .scalar_subquery()
    )


def kept(rollout_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether another rollout than this one keeps the way back of the node, for queries over `nodes` that look at many:
    found once, and not for each."""
    return nodes.c.id.in_(_kept().where(_r.c.id != rollout_id).with_only_columns(_n.c.node_id))


def all_kept(conn: Connection) -> dict[str, Keeper]:
    """By id of the node; the oldest of several rollouts."""
    found: dict[str, Keeper] = {}
    for node_id, rollout_id, number in conn.execute(_all_kept()):
        found.setdefault(node_id, Keeper(rollout_id, f"rollout {number}"))
    return found


def kept_by(rollout_id: str) -> Select[tuple[str]]:
    """Ids of the nodes whose way back this rollout keeps, as a query."""
    return _kept().where(_r.c.id == rollout_id).with_only_columns(_n.c.node_id)


def keeper_of(conn: Connection, node_id: str) -> Keeper | None:
    """What the node's way back is kept for now."""
    row = conn.execute(_of_node(), {"of_node": node_id}).first()
    return None if row is None else Keeper(row[1], f"rollout {row[2]}")


def names(conn: Connection) -> dict[str, str]:
    """By id, of all rollouts that may keep a way back."""
    rows = conn.execute(select(rollouts.c.id, rollouts.c.number).where(rollouts.c.state.in_(_OPEN)))
    return {row[0]: f"rollout {row[1]}" for row in rows}


@cache
def _kept() -> Select[Any]:
    booted = nodes.alias("booted")
    return (
        select(_n.c.node_id, _r.c.id, _r.c.number)
        .join_from(_r, _n, _n.c.rollout_id == _r.c.id)
        .join(_o, _o.c.id == _n.c.operation_id)
        .join(booted, booted.c.id == _n.c.node_id)
        .where(_o.c.target_digest == booted.c.booted_digest, _KEEPS)
    )


@cache
def _all_kept() -> Select[Any]:
    return _kept().order_by(_r.c.number)


@cache
def _of_node() -> Select[Any]:
    return _all_kept().where(_n.c.node_id == bindparam("of_node")).limit(1)
