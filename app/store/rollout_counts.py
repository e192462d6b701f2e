"""Figures of rollouts: progress of many at once, what was attempted and failed, how fast it goes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select

from app.core.rollout_progress import Progress
from app.core.rollouts import RolloutNodeState
from app.core.snapshot import MoveTimes
from app.store.rollout_cells import PROGRESS
from app.store.rollout_facts import reached
from app.store.rollout_nodes import MOVED
from app.store.schema import nodes, operations, rollout_nodes, rollouts

_c = rollout_nodes.c


def progress_of(conn: Connection, rollout_ids: Collection[str]) -> dict[str, dict[Progress, int]]:
    """Rollout → nodes in each progress, in the order of the way; none that is empty."""
    rows = conn.execute(
        select(_c.rollout_id, PROGRESS, func.count())
        .where(_c.rollout_id.in_(list(rollout_ids)))
        .group_by(_c.rollout_id, PROGRESS)
    )
    found: dict[str, dict[Progress, int]] = {id: {} for id in rollout_ids}
    for id, progress, number in rows:
        found[id][Progress(progress)] = number
    return {id: {each: counts[each] for each in Progress if each in counts} for id, counts in found.items()}


@dataclass(frozen=True, slots=True)
class Through:
    """What of a rollout got through: forward or back."""

    nodes: int
    """Since the moment that was asked for."""
    began_at: float | None
    """When its first node got its lease, or was sent back; None: none has."""
    last_at: float | None
    """When the last one was through; None: none is."""


def through(conn: Connection, rollout_id: str, since: float, *, back: bool) -> Through:
    """Nodes that were done, or came back, at that moment or later. `back`: of those that came back alone."""
    done = case((and_(_c.state == RolloutNodeState.DONE.value, _c.back_at.is_(None)), _c.ended_at))
    at = _c.back_ended_at if back else func.coalesce(_c.back_ended_at, done)
    query = select(func.count().filter(at >= since), func.min(_c.back_at if back else _c.moving_at), func.max(at))
    return Through(*conn.execute(query.where(_c.rollout_id == rollout_id)).one())


def move_times(conn: Connection, rollout_ids: Collection[str]) -> dict[str, MoveTimes]:
    """Rollout → how long its nodes took from their lease to confirmed; one of which none has got there is missing."""
    took = _c.confirmed_at - _c.moving_at
    rows = conn.execute(
        select(_c.rollout_id, func.count(), func.min(took), func.max(took))
        .where(_c.rollout_id.in_(list(rollout_ids)), took > 0)
        .group_by(_c.rollout_id)
    )
    return {row[0]: MoveTimes(*row[1:]) for row in rows}


@dataclass(frozen=True, slots=True)
class Failure:
    """A node that failed in a rollout, also one that went back since."""

    node_id: str
    name: str
    canary: bool
    at: float
    result: str
    text: str
    checks: list[dict[str, Any]]
    """The failed ones with what they printed, as the agent told them."""


def failures(conn: Connection, rollout_id: str, limit: int) -> list[Failure]:
    """The newest first."""
    rows = conn.execute(
        select(_c.node_id, nodes.c.name, _c.canary, _c.ended_at, _c.result, _c.text, operations.c.failed_checks)
        .join_from(rollout_nodes, nodes, nodes.c.id == _c.node_id)
        .outerjoin(operations, operations.c.id == _c.operation_id)
        .where(_c.rollout_id == rollout_id, _c.state == RolloutNodeState.FAILED.value)
        .order_by(_c.ended_at.desc(), _c.node_id)
        .limit(limit)
    )
    return [
        Failure(row.node_id, row.name, row.canary, row.ended_at, row.result or "", row.text, row.failed_checks or [])
        for row in rows
    ]


def failed(conn: Connection, rollout_id: str) -> tuple[int, int]:
    """(nodes that got their lease, nodes that failed whether they got it or not)."""
    moved = func.count().filter(_c.moving_at.is_not(None))
    bad = func.count().filter(_c.state == RolloutNodeState.FAILED.value)
    attempted, failures = conn.execute(select(moved, bad).where(_c.rollout_id == rollout_id)).one()
    return int(attempted), int(failures)


@dataclass(frozen=True, slots=True)
class InRollout:
    """The newest rollout that a node is in and that has not ended."""

    number: int
    name: str
    progress: Progress
    state: str
    wave: int
    hold: str
    """Why it waits; empty where nothing holds it."""


def of_node(conn: Connection, node_id: str, states: Collection[str]) -> InRollout | None:
    """Of those in one of the states, the newest; None where it is in none."""
    row = conn.execute(
        select(
            rollouts.c.number,
            rollouts.c.version,
            rollouts.c.group_name,
            rollouts.c.state,
            _c.wave,
            PROGRESS.label("progress"),
            _c.hold["text"].as_string().label("hold"),
        )
        .join_from(rollout_nodes, rollouts, rollouts.c.id == _c.rollout_id)
        .where(_c.node_id == node_id, rollouts.c.state.in_(list(states)))
        .order_by(rollouts.c.number.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    return InRollout(
        number=row.number,
        name=f"{row.group_name or 'chosen nodes'} → {row.version}",
        progress=Progress(row.progress),
        state=row.state,
        wave=row.wave,
        hold=row.hold or "",
    )


@dataclass(frozen=True, slots=True)
class WayBack:
    """Nodes that would go back to one version."""

    version: str
    nodes: int
    local: int
    """Of them, those that have it in their passive slot still: nothing is downloaded."""


def ways_back(conn: Connection, rollout_id: str) -> list[WayBack]:
    """Of the nodes that run what it led to, or are on their way there: to where, most nodes first."""
    rows = conn.execute(
        select(_c.old_version, _c.old_digest, nodes.c.slots)
        .join_from(rollout_nodes, nodes, nodes.c.id == _c.node_id)
        .where(*_goes_back(conn, rollout_id))
    )
    found: dict[str, list[bool]] = {}
    for version, digest, slots in rows:
        found.setdefault(version, []).append(_is_local(digest, slots or ()))
    ways = [WayBack(version, len(local), sum(local)) for version, local in found.items()]
    return sorted(ways, key=lambda way: (-way.nodes, way.version))


def _goes_back(conn: Connection, rollout_id: str) -> tuple[ColumnElement[bool], ...]:
    """In a query of its nodes. Who was sent elsewhere since, by whatever, is not led back from there."""
    there = and_(nodes.c.booted_digest.in_(reached(conn, rollout_id)), nodes.c.booted_digest != _c.old_digest)
    runs_it = or_(_c.state == RolloutNodeState.MOVING.value, there)
    return _c.rollout_id == rollout_id, MOVED, _c.back_at.is_(None), nodes.c.admission == "admitted", runs_it


def _is_local(digest: str, slots: Sequence[Mapping[str, Any]]) -> bool:
    """A slot filled at the factory has no digest that we know: the node says what it is."""
    passive = [slot for slot in slots if not slot.get("booted") and slot.get("good") is not False]
    return any(not digest or slot.get("digest") == digest for slot in passive)


def some_go_back(conn: Connection, rollout_id: str) -> bool:
    """Whether `ways_back` says something."""
    query = select(_c.node_id).join_from(rollout_nodes, nodes, nodes.c.id == _c.node_id)
    return conn.execute(query.where(*_goes_back(conn, rollout_id)).limit(1)).first() is not None


def moved_waves(conn: Connection, rollout_id: str) -> list[tuple[int, int]]:
    """(wave, nodes of it that `ways_back` counts), ascending."""
    query = (
        select(_c.wave, func.count())
        .join_from(rollout_nodes, nodes, nodes.c.id == _c.node_id)
        .where(*_goes_back(conn, rollout_id))
        .group_by(_c.wave)
        .order_by(_c.wave)
    )
    return [(wave, number) for wave, number in conn.execute(query)]
