"""Figures of rollouts: progress of many at once, what was attempted and failed, how fast it goes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, select

from app.core.rollout_progress import Progress
from app.core.rollouts import RolloutNodeState
from app.store.rollout_cells import PROGRESS
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
    for id, reached, number in rows:
        found[id][Progress(reached)] = number
    return {id: {each: counts[each] for each in Progress if each in counts} for id, counts in found.items()}


def done_since(conn: Connection, rollout_id: str, at: float) -> int:
    """Nodes that were done, or came back, at that moment or later."""
    done = and_(_c.state == RolloutNodeState.DONE.value, _c.back_at.is_(None), _c.ended_at >= at)
    query = select(func.count()).select_from(rollout_nodes)
    return conn.execute(query.where(_c.rollout_id == rollout_id, done | (_c.back_ended_at >= at))).scalar_one()


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


def of_node(conn: Connection, node_id: str, states: Collection[str]) -> InRollout | None:
    """Of those in one of the states, the newest; None where it is in none."""
    row = conn.execute(
        select(
            rollouts.c.number, rollouts.c.version, rollouts.c.group_name, rollouts.c.state, _c.wave, PROGRESS.label("p")
        )
        .join_from(rollout_nodes, rollouts, rollouts.c.id == _c.rollout_id)
        .where(_c.node_id == node_id, rollouts.c.state.in_(list(states)))
        .order_by(rollouts.c.number.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    return InRollout(
        row.number, f"{row.group_name or 'chosen nodes'} → {row.version}", Progress(row.p), row.state, row.wave
    )
