"""Nodes that a newer update took from an older one before they moved there, and those that come in again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select

from app.core.groups import Selector
from app.core.holds import HoldCode
from app.core.rollouts import TERMINAL, RolloutKind, RolloutNodeState, RolloutState
from app.store.kept_ways_back import kept_by
from app.store.node_query import in_group
from app.store.rollout_nodes import UNDER_WAY
from app.store.schema import nodes, rollout_nodes, rollouts

_c = rollout_nodes.c
_other = rollout_nodes.alias("other")
_LEFT = RolloutNodeState.LEFT.value
_CODE = _c.hold["code"].as_string()
_OPEN = rollouts.c.state.not_in([state.value for state in TERMINAL])
_SAME_NODE = and_(_other.c.node_id == _c.node_id, _other.c.rollout_id != _c.rollout_id)


def _newer(number: int) -> ColumnElement[bool]:
    """Of `rollouts`: an update that was started and that came after this number, with the other row."""
    return and_(
        rollouts.c.id == _other.c.rollout_id,
        rollouts.c.number > number,
        rollouts.c.kind == RolloutKind.UPDATE.value,
        rollouts.c.started_at.is_not(None),
    )


def taken_by_newer(conn: Connection, rollout_id: str, number: int, limit: int) -> list[tuple[str, int, str]]:
    """Nodes that have not moved here and that a newer update has: (node id, number and id of the newest such)."""
    rows = conn.execute(
        select(_c.node_id, rollouts.c.number, rollouts.c.id)
        .join(_other, _SAME_NODE)
        .join(rollouts, and_(_newer(number), _OPEN))
        .where(
            _c.rollout_id == rollout_id,
            _c.state.in_((RolloutNodeState.WAITING.value, RolloutNodeState.ORDERED.value)),
            or_(_other.c.state.in_(UNDER_WAY), _other.c.state == RolloutNodeState.DONE.value),
        )
        .order_by(rollouts.c.number)
        .limit(limit)
    )
    return [(row[0], row[1], row[2]) for row in rows]


def returnable(
    conn: Connection, rollout_id: str, number: int | None, codes: Collection[str], selector: Selector | None
) -> list[str]:
    """Nodes that left for a reason that ends (`codes`) and that the selector takes. With the `number` of an update: and
    that no newer update has, or has moved: whom it led elsewhere, or failed on, is not led forth by an older one, also
    where that was undone."""
    admitted = nodes.c.admission == "admitted" if selector is None else in_group(selector)
    query = select(_c.node_id).join(nodes, nodes.c.id == _c.node_id)
    query = query.where(_c.rollout_id == rollout_id, _c.state == _LEFT, _CODE.in_(list(codes)), admitted)
    if number is not None:
        has = or_(_other.c.state != _LEFT, _other.c.moving_at.is_not(None))
        query = query.where(~exists().where(_SAME_NODE, _newer(number), has))
    return list(conn.execute(query).scalars())


@dataclass(frozen=True, slots=True)
class Lent:
    """Nodes that a newer update took and has not moved yet."""

    number: int
    """Of the newer update."""
    state: RolloutState
    nodes: int


def with_others(conn: Connection, rollout_id: str, number: int) -> list[Lent]:
    """What newer updates took from this one and have not moved yet, by their number."""
    query = (
        _taken_from(rollout_id)
        .join(_other, _SAME_NODE)
        .join(rollouts, _newer(number))
        .where(_other.c.state.in_(UNDER_WAY))
        .with_only_columns(rollouts.c.number, rollouts.c.state, func.count())
    )
    rows = conn.execute(query.group_by(rollouts.c.number, rollouts.c.state).order_by(rollouts.c.number))
    return [Lent(number, RolloutState(state), nodes) for number, state, nodes in rows]


def left_group(conn: Connection, rollout_id: str, since: float) -> tuple[int, float]:
    """How many nodes of the fleet left it after `since` because they were not of its group any more, and when the last
    of them did. Who was never of it, as another group decides about it, did not leave."""
    query = (
        select(func.count(), func.max(_c.ended_at))
        .join(nodes, nodes.c.id == _c.node_id)
        .where(
            _c.rollout_id == rollout_id,
            _c.state == _LEFT,
            HoldCode.OTHER_GROUP.value == _CODE,
            _c.ended_at > since,
            _c.ended_at > _c.added_at,
            nodes.c.admission == "admitted",
        )
    )
    count, last = conn.execute(query).one()
    return count, last or 0.0


def takers(conn: Connection, rollout_id: str) -> list[tuple[int, int]]:
    """(number of a newer update, how many of its nodes left this one for it), by number; ended or not."""
    subject = _c.hold["subject"].as_string()
    query = _taken_from(rollout_id).join(rollouts, rollouts.c.id == subject)
    counted = query.with_only_columns(rollouts.c.number, func.count())
    rows = conn.execute(counted.group_by(rollouts.c.number).order_by(rollouts.c.number))
    return [(row[0], row[1]) for row in rows]


def _taken_from(rollout_id: str) -> Select[tuple[str]]:
    return select(_c.node_id).where(
        _c.rollout_id == rollout_id, _c.state == _LEFT, HoldCode.OTHER_ROLLOUT.value == _CODE
    )


def awaited(conn: Connection, rollout_id: str) -> bool:
    """Whether another update cannot move a node before this rollout is over, which keeps the node's way back."""
    mine = _c.node_id.in_(kept_by(rollout_id))
    query = (
        select(_c.node_id)
        .join(rollouts, rollouts.c.id == _c.rollout_id)
        .where(
            mine,
            _c.rollout_id != rollout_id,
            _c.state.in_(UNDER_WAY),
            _OPEN,
            rollouts.c.kind == RolloutKind.UPDATE.value,
            rollouts.c.started_at.is_not(None),
        )
    )
    return conn.execute(query.limit(1)).first() is not None
