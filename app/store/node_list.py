"""Lists of nodes: a page of rows, how many match, facets, and the cells of the heat map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, func, literal, or_, select

from app.core.fleet import NodeState, SlotDrawing, draw_slots, state_of
from app.core.groups import Group
from app.core.versions import in_order
from app.store.node_query import PINNED, SEEN_AT, STATE, Condition, in_group, label
from app.store.schema import channels, images, nodes, operations
from wire.messages import Activity, Slot


class Sort(StrEnum):
    NAME = "name"
    STATE = "state"
    VERSION = "version"
    PHASE = "phase"
    CONTAINERS = "containers"
    SEEN = "seen"


@dataclass(frozen=True, slots=True)
class Order:
    by: Sort = Sort.NAME
    descending: bool = False


@dataclass(frozen=True, slots=True)
class ListedNode:
    """A row of the list. Times are Unix seconds."""

    id: str
    name: str
    state: NodeState
    admission: str
    connection: str
    health_state: str
    labels: dict[str, str]
    version: str
    slots: tuple[SlotDrawing, ...]
    booted_slot: str
    channel: str | None
    pinned_to: str | None
    """The channel's name or the exact version that a pin holds it on."""
    pin_reason: str | None
    phase: str
    progress: float | None
    activity: Activity
    operation_hold: str | None
    """Why the server lets its open operation wait."""
    operation_target: str
    containers_running: int
    placement_known: bool
    os_id: str
    arch: str
    conflict: bool
    last_seen_at: float | None
    key: Any = field(repr=False, compare=False)
    """Its place in the order; continues a page."""


def page(
    conn: Connection, where: Condition, order: Order, *, after: tuple[Any, str] | None, limit: int
) -> list[ListedNode]:
    """Rows in a stable order; `after` is the (key, id) of the last row before."""
    key = _sort_key(conn, order.by)
    wanted = _rows(key).where(where)
    if after is not None:
        wanted = wanted.where(_beyond(key, order.descending, after))
    wanted = wanted.order_by(*_ordering(key, order.descending)).limit(limit)
    return [_listed(row) for row in conn.execute(wanted)]


def before(conn: Connection, where: Condition, order: Order, *, first: tuple[Any, str], limit: int) -> list[ListedNode]:
    """The `limit` rows before the (key, id) `first`, in the list's order."""
    key = _sort_key(conn, order.by)
    wanted = _rows(key).where(where, _beyond(key, not order.descending, first))
    wanted = wanted.order_by(*_ordering(key, not order.descending)).limit(limit)
    return [_listed(row) for row in conn.execute(wanted)][::-1]


def every(conn: Connection, where: Condition, order: Order) -> Iterator[ListedNode]:
    """All rows of a view, for exports."""
    key = _sort_key(conn, order.by)
    for row in conn.execute(_rows(key).where(where).order_by(*_ordering(key, order.descending))):
        yield _listed(row)


def count(conn: Connection, where: Condition) -> int:
    return conn.execute(select(func.count()).select_from(nodes).where(where)).scalar_one()


def ids(conn: Connection, where: Condition, limit: int) -> list[str]:
    """Of the matching nodes, in a stable order."""
    return list(conn.execute(select(nodes.c.id).where(where).order_by(nodes.c.id).limit(limit)).scalars())


def state_counts(conn: Connection) -> dict[NodeState, int]:
    """How many nodes are in each state; together all of them."""
    rows = conn.execute(select(STATE, func.count()).group_by(STATE))
    found = {NodeState(state): number for state, number in rows}
    return {state: found.get(state, 0) for state in NodeState}


@dataclass(frozen=True, slots=True)
class Facets:
    """How many of the matching nodes have each value."""

    total: int
    states: list[tuple[NodeState, int]]
    versions: list[tuple[str, int]]
    slots: list[tuple[str, int]]
    phases: list[tuple[str, int]]
    channels: list[tuple[str, int]]
    zones: list[tuple[str, int]]


def facets(conn: Connection, where: Condition) -> Facets:
    """One pass, for most queries over one index: the group has the columns of `ix_nodes_facets`, in its order."""
    columns = (
        nodes.c.admission,
        nodes.c.connection,
        nodes.c.on_trial,
        nodes.c.health_state,
        nodes.c.phase,
        nodes.c.booted_slot,
        nodes.c.version,
        nodes.c.channel_id,
        nodes.c.pin_channel_id,
        nodes.c.pin_image_id,
        nodes.c.zone,
    )
    states: Counter[NodeState] = Counter()
    phases: Counter[str] = Counter()
    slots: Counter[str] = Counter()
    versions: Counter[str] = Counter()
    followed: Counter[str] = Counter()
    zones: Counter[str] = Counter()
    for group in conn.execute(select(*columns, func.count()).where(where).group_by(*columns)):
        admission, connection, trial, health, phase, slot, version, *follows, zone, number = group
        channel, pin_channel, pin_image = follows
        states[state_of(admission, connection, trial, health)] += number
        phases[phase] += number
        slots[slot] += number
        versions[version] += number
        zones[zone or ""] += number
        followed[(not pin_image and (pin_channel or channel)) or ""] += number
    names = dict(conn.execute(select(channels.c.id, channels.c.name)).all())
    return Facets(
        states.total(),
        [(state, states[state]) for state in NodeState if states[state]],
        [(version, versions[version]) for version in reversed(in_order(set(versions) - {""}))],
        sorted((slot, number) for slot, number in slots.items() if slot),
        sorted((phase, number) for phase, number in phases.items() if phase != "idle"),
        sorted((names[id], number) for id, number in followed.items() if id),
        sorted(((zone, number) for zone, number in zones.items() if zone), key=lambda pair: (-pair[1], pair[0])),
    )


@dataclass(frozen=True, slots=True)
class Cell:
    """A node of the heat map."""

    id: str
    name: str
    group: str
    state: NodeState
    version: str
    phase: str


def cells(conn: Connection, group_by: str | Sequence[Group]) -> list[Cell]:
    """All nodes that are not retired, by the value of a label and then by name; or by their policy groups, out of all
    groups in the order in which they decide."""
    group = func.coalesce(label(group_by), "") if isinstance(group_by, str) else _policy_group(group_by)
    columns = (nodes.c.id, nodes.c.name, group, nodes.c.admission, nodes.c.connection, nodes.c.on_trial)
    rows = conn.execute(
        select(*columns, nodes.c.health_state, nodes.c.version, nodes.c.phase)
        .where(nodes.c.admission != "retired")
        .order_by(group, nodes.c.name, nodes.c.id)
    )
    return [
        Cell(id, name, value, state_of(admission, connection, trial, health), version, phase)
        for id, name, value, admission, connection, trial, health, version, phase in rows
    ]


def _policy_group(groups: Sequence[Group]) -> ColumnElement[str]:
    """The name of the first that takes the node; empty for none."""
    if not groups:
        return literal("")
    return case(*((in_group(group.selector), group.name) for group in groups), else_="")


def label_keys(conn: Connection, most: int = 1_000) -> list[str]:
    """Keys of labels in use, the most used first; looks at `most` nodes, the newest first."""
    wanted = select(nodes.c.labels).where(nodes.c.admission != "retired").order_by(nodes.c.id.desc()).limit(most)
    counter = Counter(key for labels in conn.execute(wanted).scalars() for key in labels)
    return [key for key, _ in sorted(counter.items(), key=lambda item: (-item[1], item[0]))]


def named(conn: Connection, text: str, limit: int) -> list[tuple[str, str]]:
    """(id, name) of nodes whose name begins with `text`, then of those that contain it; or whose id it is."""
    lowered = text.lower()
    name = func.lower(nodes.c.name)
    rank = case((name == lowered, 0), (name.startswith(lowered, autoescape=True), 1), else_=2)
    wanted = (
        select(nodes.c.id, nodes.c.name)
        .where(nodes.c.admission != "retired", or_(name.contains(lowered, autoescape=True), nodes.c.id == text))
        .order_by(rank, nodes.c.name, nodes.c.id)
        .limit(limit)
    )
    return list(conn.execute(wanted))


def _rows(key: ColumnElement[Any]) -> Select[Any]:
    pin_channel = channels.alias("pin_channel")
    return (
        select(
            nodes,
            STATE.label("state"),
            SEEN_AT.label("seen_at"),
            PINNED.label("pinned"),
            channels.c.name.label("channel_name"),
            func.coalesce(images.c.version, pin_channel.c.name).label("pinned_to"),
            operations.c.hold.label("operation_hold"),
            operations.c.target_version.label("operation_target"),
            key.label("sort_key"),
        )
        .outerjoin(channels, channels.c.id == nodes.c.channel_id)
        .outerjoin(pin_channel, pin_channel.c.id == nodes.c.pin_channel_id)
        .outerjoin(images, images.c.id == nodes.c.pin_image_id)
        .outerjoin(operations, and_(operations.c.id == nodes.c.desired_operation_id, operations.c.state == "open"))
    )


def _sort_key(conn: Connection, by: Sort) -> ColumnElement[Any]:
    if by is Sort.VERSION:
        ranks = in_order(set(conn.execute(select(nodes.c.version).distinct()).scalars()))
        return case({version: rank for rank, version in enumerate(ranks)}, value=nodes.c.version, else_=-1)
    if by is Sort.STATE:
        return case({state.value: rank for rank, state in enumerate(_WORST_FIRST)}, value=STATE, else_=-1)
    if by is Sort.SEEN:
        return func.coalesce(SEEN_AT, 0.0)
    return {Sort.NAME: nodes.c.name, Sort.PHASE: nodes.c.phase, Sort.CONTAINERS: nodes.c.containers_running}[by]


_WORST_FIRST = (
    NodeState.UNHEALTHY,
    NodeState.DEGRADED,
    NodeState.UNKNOWN,
    NodeState.ON_TRIAL,
    NodeState.OFFLINE,
    NodeState.PENDING,
    NodeState.HEALTHY,
    NodeState.RETIRED,
)


def _ordering(key: ColumnElement[Any], descending: bool) -> Sequence[ColumnElement[Any]]:
    return (key.desc(), nodes.c.id.desc()) if descending else (key.asc(), nodes.c.id.asc())


def _beyond(key: ColumnElement[Any], descending: bool, last: tuple[Any, str]) -> Condition:
    value, id = last
    further = key < value if descending else key > value
    return or_(further, and_(key == value, nodes.c.id < id if descending else nodes.c.id > id))


def _listed(row: Row[Any]) -> ListedNode:
    activity = msgspec.convert(row.activity or {}, Activity)
    slots = msgspec.convert(row.slots or [], list[Slot])
    hold = row.operation_hold or {}
    return ListedNode(
        id=row.id,
        name=row.name,
        state=NodeState(row.state),
        admission=row.admission,
        connection=row.connection,
        health_state=row.health_state,
        labels=row.labels,
        version=row.version,
        slots=tuple(draw_slots(slots, row.phase, row.on_trial)),
        booted_slot=row.booted_slot,
        channel=row.channel_name,
        pinned_to=row.pinned_to if row.pinned else None,
        pin_reason=row.pin_reason,
        phase=row.phase,
        progress=activity.progress,
        activity=activity,
        operation_hold=hold.get("text"),
        operation_target=row.operation_target or "",
        containers_running=row.containers_running,
        placement_known=row.placement_known,
        os_id=row.os_id,
        arch=row.arch,
        conflict=row.conflict is not None,
        last_seen_at=row.seen_at,
        key=row.sort_key,
    )


def names(conn: Connection, ids: set[str]) -> dict[str, str]:
    """Id → name."""
    return dict(conn.execute(select(nodes.c.id, nodes.c.name).where(nodes.c.id.in_(sorted(ids)))).all())
