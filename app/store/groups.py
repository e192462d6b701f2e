"""Groups: their rows, and the nodes that their selectors take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from app.core.groups import Group, Selector, in_order, parse_selector
from app.core.policy import Policy
from app.core.policy_json import policy_from_builtins
from app.core.rollouts import TERMINAL, RolloutState
from app.store import fleet
from app.store.node_query import in_group
from app.store.schema import groups, nodes, rollouts


@dataclass(frozen=True, slots=True)
class NewGroup:
    id: str
    name: str
    selector: Selector
    precedence: int
    channel_id: str | None
    said: Mapping[str, Any]
    """Fields of the policy that an operator set (see core.policy_json); the others follow the defaults."""


def all_groups(conn: Connection) -> list[Group]:
    """In the order in which they decide. Durations that a group does not name are the fleet's."""
    timing = fleet.policy(conn)
    return in_order(_group(row, timing) for row in conn.execute(_ALL))


_ALL = select(groups)


def get(conn: Connection, group_id: str) -> Group | None:
    row = conn.execute(select(groups).where(groups.c.id == group_id)).one_or_none()
    return None if row is None else _group(row, fleet.policy(conn))


def by_name(conn: Connection, name: str) -> Group | None:
    row = conn.execute(select(groups).where(groups.c.name == name)).one_or_none()
    return None if row is None else _group(row, fleet.policy(conn))


def names(conn: Connection) -> list[str]:
    """In the order of the alphabet."""
    return list(conn.execute(select(groups.c.name).order_by(groups.c.name)).scalars())


def said(conn: Connection, group_id: str) -> dict[str, Any]:
    """The fields of the group's policy that an operator set."""
    return dict(conn.execute(select(groups.c.policy).where(groups.c.id == group_id)).scalar_one())


def add(conn: Connection, group: NewGroup, actor: str, now: float) -> None:
    """IntegrityError when the name is taken."""
    conn.execute(insert(groups).values(id=group.id, created_by=actor, created_at=now, **_columns(group)))


def change(conn: Connection, group: NewGroup) -> None:
    """Set everything but its id and birth; IntegrityError when the name is taken."""
    conn.execute(update(groups).where(groups.c.id == group.id).values(**_columns(group)))


def remove(conn: Connection, group_id: str) -> None:
    conn.execute(delete(groups).where(groups.c.id == group_id))


def members(conn: Connection, selector: Selector) -> int:
    """How many admitted nodes it takes."""
    return conn.execute(select(func.count()).select_from(nodes).where(in_group(selector))).scalar_one()


def member_ids(conn: Connection, selector: Selector) -> list[str]:
    """Ids of the admitted nodes that it takes."""
    return list(conn.execute(select(nodes.c.id).where(in_group(selector)).order_by(nodes.c.id)).scalars())


def versions(conn: Connection, selector: Selector) -> set[str]:
    """Versions that its nodes run; the empty one is unknown."""
    return set(conn.execute(select(nodes.c.version).where(in_group(selector)).distinct()).scalars())


def open_rollouts(conn: Connection, group_id: str) -> list[tuple[int, RolloutState]]:
    """Number and state of the group's rollouts that have not ended."""
    ended = [state.value for state in TERMINAL]
    wanted = select(rollouts.c.number, rollouts.c.state).where(
        rollouts.c.group_id == group_id, rollouts.c.state.not_in(ended)
    )
    return [(number, RolloutState(state)) for number, state in conn.execute(wanted.order_by(rollouts.c.number))]


def _columns(group: NewGroup) -> dict[str, Any]:
    return {
        "name": group.name,
        "selector": group.selector.text,
        "precedence": group.precedence,
        "channel_id": group.channel_id,
        "policy": dict(group.said),
    }


def _group(row: Row[Any], timing: Policy) -> Group:
    return Group(
        id=row.id,
        name=row.name,
        selector=parse_selector(row.selector),
        precedence=row.precedence,
        channel_id=row.channel_id,
        policy=policy_from_builtins(row.policy, timing),
        created_by=row.created_by,
        created_at=row.created_at,
    )
