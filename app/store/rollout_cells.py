"""The nodes of a rollout as pages draw them: counted by wave and progress, listed, and why they wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, exists, func, literal, or_, select, true

from app.core.fleet import SlotDrawing, draw_slots
from app.core.holds import HoldCode
from app.core.rollout_progress import ON_THE_WAY, Passage, Progress
from app.core.rollouts import RolloutNodeState, RolloutState
from app.store.schema import nodes, operations, rollout_nodes, rollouts
from wire.messages import Phase, Slot

_c = rollout_nodes.c

PROGRESS: ColumnElement[str] = case(
    (_c.back_ended_at.is_not(None), literal(Progress.BACK.value)),
    (_c.back_at.is_not(None), literal(Progress.GOING_BACK.value)),
    (and_(_c.state == RolloutNodeState.WAITING.value, _c.hold.is_not(None)), literal(Progress.HELD.value)),
    (
        and_(_c.state == RolloutNodeState.ORDERED.value, _c.staged_at.is_not(None)),
        literal(Progress.STAGED.value),
    ),
    (_c.state == RolloutNodeState.ORDERED.value, literal(Progress.STAGING.value)),
    (
        and_(_c.state == RolloutNodeState.MOVING.value, _c.confirmed_at.is_not(None)),
        literal(Progress.SOAKING.value),
    ),
    else_=_c.state,
)
"""app.core.rollout_progress.progress in SQL."""


def _of_hold(key: str) -> ColumnElement[str]:
    """Of a rollout that has stopped: as it was then (app.store.rollout_holds)."""
    had_before = _c.hold[("before", "code")].as_string().is_not(None)
    return case((had_before, _c.hold[("before", key)].as_string()), else_=_c.hold[key].as_string())


_CODE = _of_hold("code")
_SUBJECT: ColumnElement[str] = case(
    (_of_hold("subject") == _c.node_id, literal("")),
    else_=func.coalesce(_of_hold("subject"), ""),
)
"""A hold that is about the node itself is the same hold on each."""
_TEXT = _of_hold("text")
_HELD_STATES = (RolloutNodeState.WAITING.value, RolloutNodeState.ORDERED.value)
"""In these a hold says why the node does not move."""


@dataclass(frozen=True, slots=True)
class WaveCount:
    wave: int
    progress: Progress
    nodes: int


def wave_counts(conn: Connection, rollout_id: str) -> list[WaveCount]:
    """By wave; together all nodes of the rollout."""
    rows = conn.execute(
        select(_c.wave, PROGRESS, func.count())
        .where(_c.rollout_id == rollout_id)
        .group_by(_c.wave, PROGRESS)
        .order_by(_c.wave)
    )
    return [WaveCount(wave, Progress(reached), number) for wave, reached, number in rows]


@dataclass(frozen=True, slots=True)
class Cell:
    """A node as small as it is drawn."""

    node_id: str
    name: str
    wave: int
    progress: Progress


def cells(conn: Connection, rollout_id: str) -> list[Cell]:
    """All of its nodes, by wave and name. For rollouts that are small enough to be drawn node by node."""
    rows = conn.execute(
        select(_c.node_id, nodes.c.name, _c.wave, PROGRESS)
        .join_from(rollout_nodes, nodes, nodes.c.id == _c.node_id)
        .where(_c.rollout_id == rollout_id)
        .order_by(_c.wave, nodes.c.name, nodes.c.id)
    )
    return [Cell(id, name, wave, Progress(reached)) for id, name, wave, reached in rows]


@dataclass(frozen=True, slots=True)
class HeldGroup:
    """Nodes that wait for the same; `text` is the reason of one of them."""

    code: HoldCode
    subject: str
    text: str
    nodes: int


def held_groups(conn: Connection, rollout_id: str) -> list[HeldGroup]:
    """Why nodes wait, the most frequent first; a node is in one of them at most."""
    rows = conn.execute(
        select(_CODE, _SUBJECT, func.min(_TEXT), func.count())
        .where(_c.rollout_id == rollout_id, _WAITS)
        .group_by(_CODE, _SUBJECT)
        .order_by(func.count().desc(), _CODE, _SUBJECT)
    )
    return [HeldGroup(HoldCode(code), subject, text or "", number) for code, subject, text, number in rows]


_TO_GO_BACK = and_(
    _c.back_at.is_(None),
    _c.back_ended_at.is_(None),
    _c.state.in_((RolloutNodeState.DONE.value, RolloutNodeState.FAILED.value)),
    exists().where(rollouts.c.id == _c.rollout_id, rollouts.c.state == RolloutState.ROLLING_BACK.value),
)
_WAITS = and_(_c.hold.is_not(None), or_(_c.state.in_(_HELD_STATES), _TO_GO_BACK))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which nodes of the rollout a list shows; what is None does not matter."""

    progress: Progress | None = None
    waves: tuple[int, int] | None = None
    """First and last, both included."""
    hold: HoldCode | None = None
    subject: str | None = None
    """With `hold`: what it is about."""


@dataclass(frozen=True, slots=True)
class RolloutNode:
    """A node's row in a rollout's list. Times are Unix seconds."""

    node_id: str
    name: str
    wave: int
    canary: bool
    progress: Progress
    slots: tuple[SlotDrawing, ...]
    version: str
    phase: str
    text: str
    """How it ended, or why it waits."""
    result: str
    operation_id: str
    since: float
    """When it came to where it is."""


def count(conn: Connection, rollout_id: str, wanted: Wanted) -> int:
    query = select(func.count()).select_from(rollout_nodes).where(_c.rollout_id == rollout_id, _where(wanted))
    return conn.execute(query).scalar_one()


def listed(conn: Connection, rollout_id: str, wanted: Wanted, *, limit: int, offset: int = 0) -> list[RolloutNode]:
    """By wave and name."""
    query = _rows().where(_c.rollout_id == rollout_id, _where(wanted))
    query = query.order_by(_c.wave, nodes.c.name, nodes.c.id).limit(limit).offset(offset)
    return [_listed(row) for row in conn.execute(query)]


_ITS_ORDER = and_(operations.c.id == nodes.c.desired_operation_id, operations.c.rollout_id == _c.rollout_id)
_NOT_ARMED = (Phase.IDLE, Phase.STAGING, Phase.STAGED)
_WAITS_TO_GO_BACK = and_(
    _c.back_at.is_not(None),
    _c.back_ended_at.is_(None),
    operations.c.id.is_not(None),
    operations.c.state == "open",
    operations.c.phase.in_([phase.value for phase in _NOT_ARMED]),
)
"""With `_ITS_ORDER`, which need not be there: it is ordered to go back, and its slots do not flip yet."""


def on_the_way(conn: Connection, rollout_id: str, limit: int) -> tuple[list[RolloutNode], int]:
    """Nodes whose slots flip, the newest movement first, and how many there are beside these; `since` is that of the
    phase which they are in. Those that only wait to go back are not among them."""
    since = func.coalesce(operations.c.phase_at, _SINCE)
    query = (
        _rows(since)
        .add_columns(func.count().over().label("total"))
        .outerjoin(operations, _ITS_ORDER)
        .where(_c.rollout_id == rollout_id, PROGRESS.in_([each.value for each in ON_THE_WAY]), ~_WAITS_TO_GO_BACK)
        .order_by(since.desc(), nodes.c.id)
        .limit(limit)
    )
    rows = conn.execute(query).all()
    return [_listed(row) for row in rows], rows[0].total - len(rows) if rows else 0


def waits_to_go_back(conn: Connection, rollout_id: str) -> list[tuple[str, int]]:
    """(why, nodes) of those that have their order to go back and have not armed anything, the most frequent first; why
    is empty where nobody has said it yet."""
    text = func.coalesce(operations.c.hold["text"].as_string(), "")
    rows = conn.execute(
        select(text, func.count())
        .join_from(rollout_nodes, nodes, nodes.c.id == _c.node_id)
        .join(operations, _ITS_ORDER)
        .where(_c.rollout_id == rollout_id, _WAITS_TO_GO_BACK)
        .group_by(text)
        .order_by(func.count().desc(), text)
    )
    return [(why, number) for why, number in rows]


def passages(conn: Connection, rollout_id: str) -> list[tuple[Cell, Passage]]:
    """All of its nodes with the times of their way, by wave and name: what a replay is made of."""
    rows = conn.execute(
        select(rollout_nodes, nodes.c.name, PROGRESS.label("progress"))
        .join_from(rollout_nodes, nodes, nodes.c.id == _c.node_id)
        .where(_c.rollout_id == rollout_id)
        .order_by(_c.wave, nodes.c.name, nodes.c.id)
    )
    return [(Cell(row.node_id, row.name, row.wave, Progress(row.progress)), _passage(row)) for row in rows]


_SINCE: ColumnElement[float] = func.coalesce(
    _c.back_ended_at, _c.back_at, _c.ended_at, _c.confirmed_at, _c.moving_at, _c.staged_at, _c.ordered_at, _c.added_at
)


def _rows(since: ColumnElement[float] = _SINCE) -> Select[Any]:
    return select(
        _c.node_id,
        nodes.c.name,
        _c.wave,
        _c.canary,
        PROGRESS.label("progress"),
        nodes.c.slots,
        nodes.c.version,
        nodes.c.phase,
        nodes.c.on_trial,
        _c.text,
        _c.hold["text"].as_string().label("hold_text"),
        _c.result,
        _c.operation_id,
        since.label("since"),
    ).join_from(rollout_nodes, nodes, nodes.c.id == _c.node_id)


def _listed(row: Row[Any]) -> RolloutNode:
    slots = msgspec.convert(row.slots or (), tuple[Slot, ...])
    return RolloutNode(
        node_id=row.node_id,
        name=row.name,
        wave=row.wave,
        canary=row.canary,
        progress=Progress(row.progress),
        slots=tuple(draw_slots(slots, row.phase, row.on_trial)),
        version=row.version or "",
        phase=row.phase,
        text=row.text or row.hold_text or "",
        result=row.result or "",
        operation_id=row.operation_id or "",
        since=row.since,
    )


def _where(wanted: Wanted) -> ColumnElement[bool]:
    terms: list[ColumnElement[bool]] = []
    if wanted.progress is not None:
        terms.append(PROGRESS.in_([wanted.progress.value]))
    if wanted.waves is not None:
        terms.append(_c.wave.between(*wanted.waves))
    if wanted.hold is not None:
        terms += [_WAITS, _CODE.in_([wanted.hold.value])]
        if wanted.subject is not None:
            terms.append(_SUBJECT.in_([wanted.subject]))
    return and_(true(), *terms)


def _passage(row: Row[Any]) -> Passage:
    return Passage(
        state=RolloutNodeState(row.state),
        held=row.hold is not None,
        added_at=row.added_at,
        ordered_at=row.ordered_at,
        staged_at=row.staged_at,
        moving_at=row.moving_at,
        confirmed_at=row.confirmed_at,
        ended_at=row.ended_at,
        back_at=row.back_at,
        back_ended_at=row.back_ended_at,
    )
