"""Ways back that an operator lets go below floors: their orders, and which of them wait."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select, update

from app.core.holds import HoldCode
from app.core.nodes import OperationState
from app.core.rollouts import RolloutKind
from app.store.schema import nodes, operations, rollout_nodes, rollouts
from wire.messages import Phase

_c = rollout_nodes.c
FLOORS = frozenset({HoldCode.PLACEMENT_UNKNOWN, HoldCode.SINGLE_REPLICA, HoldCode.SERVICE_FLOOR})
"""What an override lets a node pass."""
_NOT_ARMED = (Phase.IDLE.value, Phase.STAGING.value, Phase.STAGED.value)


def _leads_back() -> ColumnElement[bool]:
    """Of an operation joined with its node's row in its rollout: it sends the node back."""
    return or_(_c.back_operation_id == operations.c.id, rollouts.c.kind == RolloutKind.ROLLBACK.value)


def _orders_back(*columns: ColumnElement[Any]) -> Select[Any]:
    """Orders by which rollouts send nodes back, ended ones too."""
    return (
        select(*columns)
        .join_from(operations, rollouts, rollouts.c.id == operations.c.rollout_id)
        .join(rollout_nodes, and_(_c.rollout_id == rollouts.c.id, _c.node_id == operations.c.node_id))
        .where(_leads_back())
    )


def is_way_back(conn: Connection, operation_id: str) -> bool:
    """Whether a rollout sends its node back by this order."""
    return conn.execute(_orders_back(operations.c.id).where(operations.c.id == operation_id)).first() is not None


def put_on_order(conn: Connection, operation_id: str) -> bool:
    """Whether the order is open and was not let go below floors before."""
    given = conn.execute(
        update(operations)
        .where(
            operations.c.id == operation_id,
            operations.c.state == OperationState.OPEN.value,
            ~operations.c.override_floor,
        )
        .values(override_floor=True)
    )
    return given.rowcount == 1


def put_on_rollout(conn: Connection, rollout_id: str) -> int:
    """On its open orders that send nodes back; how many. Its row is held by the caller, so that none is added."""
    query = _orders_back(operations.c.id).where(*_held_to_floors(rollout_id)).order_by(operations.c.id)
    found = list(conn.execute(query.with_for_update(of=operations, key_share=True)).scalars())
    if found:
        conn.execute(update(operations).where(operations.c.id.in_(found)).values(override_floor=True))
    return len(found)


def _held_to_floors(rollout_id: str) -> tuple[ColumnElement[bool], ...]:
    return (
        operations.c.rollout_id == rollout_id,
        operations.c.state == OperationState.OPEN.value,
        operations.c.cancel_asked_at.is_(None),
        ~operations.c.override_floor,
    )


@dataclass(frozen=True, slots=True)
class Held:
    """Nodes that would go back, and that a floor or an unknown placement holds."""

    code: HoldCode
    text: str
    nodes: int
    first: tuple[tuple[str, str], ...]
    """(id, name) of the first of them."""


def held(conn: Connection, rollout_id: str, show: int) -> list[Held]:
    """Why ways back of the rollout wait that an override would free: the most frequent first, `show` nodes of each."""
    text = func.coalesce(_c.hold["text"].as_string(), operations.c.hold["text"].as_string())
    code = func.coalesce(_c.hold["code"].as_string(), operations.c.hold["code"].as_string())
    alike = (
        _orders_back(
            code.label("code"),
            text.label("text"),
            nodes.c.id,
            nodes.c.name,
            func.count().over(partition_by=(code, text)).label("alike"),
            func.row_number().over(partition_by=(code, text), order_by=(nodes.c.name, nodes.c.id)).label("place"),
        )
        .join(nodes, nodes.c.id == operations.c.node_id)
        .where(*_held_to_floors(rollout_id), operations.c.phase.in_(_NOT_ARMED), code.in_(sorted(FLOORS)))
        .subquery()
    )
    query = select(alike).where(alike.c.place <= show)
    found: dict[tuple[int, str, str], list[tuple[str, str]]] = defaultdict(list)
    for row in conn.execute(query.order_by(alike.c.alike.desc(), alike.c.text, alike.c.place)):
        found[row.alike, row.code, row.text].append((row.id, row.name))
    return [Held(HoldCode(code), text, number, tuple(first)) for (number, code, text), first in found.items()]


def unknown_placements(conn: Connection, rollout_id: str, show: int) -> tuple[int, list[tuple[str, str]]]:
    """Nodes that the rollout moved and that nobody knows what runs on: (how many, id and name of the first)."""
    moved = and_(_c.rollout_id == rollout_id, _c.moving_at.is_not(None), _c.back_ended_at.is_(None))
    unknown = ~nodes.c.placement_known, nodes.c.declared.is_(None)
    query = select(nodes.c.id, nodes.c.name).join(rollout_nodes, _c.node_id == nodes.c.id).where(moved, *unknown)
    number = conn.execute(select(func.count()).select_from(query.subquery())).scalar_one()
    first = conn.execute(query.order_by(nodes.c.name, nodes.c.id).limit(show)) if number else ()
    return number, [(row.id, row.name) for row in first]
