"""Versions that fail and are not bad everywhere yet: on which nodes, under which policies, and how many tried them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, and_, cast, exists, func, not_, or_, select

from app.core.group_policy import GroupPolicy
from app.core.policy_json import policy_from_builtins
from app.core.rollouts import TERMINAL, RolloutKind, RolloutNodeState
from app.store.bad_versions import Cause
from app.store.rollout_nodes import UNDER_WAY
from app.store.schema import bad_versions, failed_versions, images, nodes, operations, rollout_nodes, rollouts
from app.store.ways_back import leads_back


@dataclass(frozen=True, slots=True)
class Failing:
    digest: str
    version: str
    nodes: tuple[str, ...]
    """Names, the newest failure first."""


def failing(conn: Connection, least: int, digests: Collection[str] | None = None) -> list[Failing]:
    """Versions that failed on at least so many different nodes, since an operator said that they may be tried again; of
    these digests, where given. What somebody cleared on a node does not count, nor what is bad already, nor what failed
    on its way back: the version ran there before, and stopping it everywhere would take other ways back."""
    counted = failed_versions.c.digest, func.count()
    query = _failures(counted, digests).group_by(failed_versions.c.digest).having(func.count() >= least)
    found = {row[0]: _named(conn, row[0]) for row in conn.execute(query.order_by(failed_versions.c.digest))}
    return [one for one in found.values() if len(one.nodes) >= least]


def _named(conn: Connection, digest: str) -> Failing:
    query = _failures((failed_versions.c.version, nodes.c.name), (digest,))
    rows = conn.execute(query.order_by(failed_versions.c.at.desc(), nodes.c.name)).all()
    return Failing(digest, rows[0].version if rows else "", tuple(row.name for row in rows))


def _failures(columns: Collection[Any], digests: Collection[str] | None) -> Select[Any]:
    judged = and_(bad_versions.c.digest == failed_versions.c.digest, bad_versions.c.cause == Cause.FAILED.value)
    since = and_(bad_versions.c.cleared_at.is_not(None), failed_versions.c.at > bad_versions.c.cleared_at)
    query = (
        select(*columns)
        .select_from(failed_versions)
        .join(nodes, nodes.c.id == failed_versions.c.node_id)
        .outerjoin(bad_versions, judged)
        .where(failed_versions.c.cleared_at.is_(None), or_(bad_versions.c.digest.is_(None), since))
        .where(not_(_unseen()), not_(_on_the_way_back()))
    )
    return query if digests is None else query.where(failed_versions.c.digest.in_(list(digests)))


def _unseen() -> ColumnElement[bool]:
    """Its rollout does not know of it yet: that one is judged first, for it may have to roll back."""
    return exists().where(
        rollout_nodes.c.node_id == failed_versions.c.node_id,
        rollout_nodes.c.operation_id == failed_versions.c.operation_id,
        rollout_nodes.c.state.in_(UNDER_WAY),
    )


def _on_the_way_back() -> ColumnElement[bool]:
    """Of the operation that is named, or of the one that was under way when the node itself listed the failure."""
    of, at = operations.c, failed_versions.c.at
    listed = and_(
        failed_versions.c.operation_id.is_(None),
        of.target_digest == failed_versions.c.digest,
        of.created_at <= at,
        or_(of.ended_at.is_(None), of.ended_at >= at),
    )
    return exists().where(
        of.node_id == failed_versions.c.node_id, or_(of.id == failed_versions.c.operation_id, listed), leads_back()
    )


def tried(conn: Connection, digest: str) -> int:
    """Admitted nodes that run it, and those on which it failed."""
    failed = select(failed_versions.c.node_id).where(
        failed_versions.c.digest == digest, failed_versions.c.cleared_at.is_(None)
    )
    runs = and_(nodes.c.admission == "admitted", nodes.c.booted_digest == digest)
    return conn.execute(select(func.count()).where(or_(runs, nodes.c.id.in_(failed)))).scalar_one()


def policies(conn: Connection, digest: str) -> list[tuple[int, GroupPolicy]]:
    """With the numbers of their rollouts: of the updates to it that are under way, or in which a node failed."""
    ids = conn.execute(select(images.c.id).where(images.c.digest == digest)).scalars()
    leads = [cast(rollouts.c.targets, Text).contains(image_id, autoescape=True) for image_id in ids]
    if not leads:
        return []
    failed = exists().where(
        rollout_nodes.c.rollout_id == rollouts.c.id, rollout_nodes.c.state == RolloutNodeState.FAILED.value
    )
    query = select(rollouts.c.number, rollouts.c.policy).where(
        rollouts.c.kind == RolloutKind.UPDATE.value,
        rollouts.c.started_at.is_not(None),
        or_(*leads),
        or_(rollouts.c.state.not_in([state.value for state in TERMINAL]), failed),
    )
    return [(row.number, policy_from_builtins(row.policy)) for row in conn.execute(query)]
