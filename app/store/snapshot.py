"""What admission looks at, read set-based: members of the fleet, what runs on them, what wants them to move.

Every function takes `ids`: only these nodes, or all with None. The rows are of one statement each, so that a whole
fleet costs a handful of queries and one node costs the same handful. Statements are built once (`@cache`): building one
costs several times as much as running it for a node.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, case, exists, func, or_, select

from app.core.rollouts import TERMINAL, RolloutNodeState, RolloutState
from app.core.slots import ARMED
from app.store.failed_versions import let_pass
from app.store.schema import (
    bad_versions,
    containers,
    failed_versions,
    images,
    leases,
    nodes,
    operations,
    rollout_nodes,
    rollouts,
)
from wire.messages import OperationKind, Phase

_IDS_AT_ONCE = 500
"""SQLite takes a bounded number of parameters."""

Ids = Sequence[str] | None

SERVES = and_(containers.c.state == "running", containers.c.health.not_in(("unhealthy", "starting")))
"""A container that counts as a healthy replica (core.services.serves in SQL)."""

RESERVED = exists().where(leases.c.node_id == nodes.c.id, leases.c.ended_at.is_(None)).correlate(nodes)
"""A lease of the node has not been returned."""

_ON_THE_WAY = [phase.value for phase in ARMED]
_UNDER_LEASE = [OperationKind.ACTIVATE.value, OperationKind.ROLLBACK.value, OperationKind.REBOOT.value]
_HAS_SWITCHED = [*_ON_THE_WAY, Phase.SOAKING.value]

ON_TRIAL = or_(nodes.c.on_trial, nodes.c.phase.in_(_ON_THE_WAY))
"""Booted into a slot that is not confirmed, or on its way there."""


@cache
def _members() -> Select[Any]:
    return (
        select(
            nodes.c.id,
            nodes.c.name,
            nodes.c.labels,
            nodes.c.os_id,
            nodes.c.arch,
            nodes.c.version,
            nodes.c.booted_digest,
            nodes.c.slots,
            nodes.c.health_state,
            nodes.c.phase,
            nodes.c.evidence,
            nodes.c.connection,
            nodes.c.gateway_id,
            nodes.c.last_seen_at,
            nodes.c.conflict.is_not(None).label("conflict"),
            nodes.c.lost_at,
            nodes.c.placement_known,
            nodes.c.placement_told,
            nodes.c.declared,
            nodes.c.connected_at,
            nodes.c.pinned_at,
            nodes.c.pin_channel_id,
            nodes.c.pin_image_id,
            nodes.c.boot_id,
            ON_TRIAL.label("trial"),
            RESERVED.label("reserved"),
        )
        .where(nodes.c.admission == "admitted")
        .order_by(nodes.c.id)
    )


def members(conn: Connection, ids: Ids = None) -> list[Any]:
    """Admitted nodes: identity, what they run, how they are connected, whether they are reserved; by id."""
    query = _members()
    return of_ids(conn, query, nodes.c.id, ids)


@cache
def _replicas() -> Select[Any]:
    count = func.sum(case((SERVES, 1), else_=0))
    return select(containers.c.node_id, containers.c.scope, containers.c.service, count).group_by(
        containers.c.node_id, containers.c.scope, containers.c.service
    )


def replicas(conn: Connection, ids: Ids = None) -> dict[str, list[tuple[str, str, int]]]:
    """Node id → (scope as its containers say, service, replicas that are healthy there now)."""
    query = _replicas()
    found: defaultdict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for row in of_ids(conn, query, containers.c.node_id, ids):
        found[row[0]].append((row[1], row[2], row[3]))
    return found


@cache
def _reservations() -> Select[Any]:
    return select(leases.c.node_id, leases.c.costs).where(leases.c.ended_at.is_(None))


def reservations(conn: Connection, ids: Ids = None) -> dict[str, list[tuple[str, str, int]]]:
    """Node id → (scope, service, replicas) that its lease, which has not been returned, took when it was granted."""
    query = _reservations()
    found = of_ids(conn, query, leases.c.node_id, ids)
    return {row[0]: [(scope, name, replicas) for scope, name, replicas in row[1] or ()] for row in found}


@dataclass(frozen=True, slots=True)
class Content:
    """The containers of one (scope as they say, service) on a node."""

    scope: str
    service: str
    healthy: int
    labelled: int | None
    per_node: bool


@cache
def _contents() -> Select[Any]:
    return select(
        containers.c.node_id,
        containers.c.scope,
        containers.c.service,
        func.sum(case((SERVES, 1), else_=0)),
        func.max(containers.c.replicas),
        func.min(case((containers.c.per_node, 1), else_=0)),
    ).group_by(containers.c.node_id, containers.c.scope, containers.c.service)


def contents(conn: Connection, ids: Ids = None) -> dict[str, list[Content]]:
    """Node id → what is on it, as last seen."""
    query = _contents()
    found: defaultdict[str, list[Content]] = defaultdict(list)
    for row in of_ids(conn, query, containers.c.node_id, ids):
        found[row[0]].append(Content(row[1], row[2], int(row[3]), row[4], bool(row[5])))
    return found


@cache
def _failures() -> Select[Any]:
    return select(failed_versions.c.node_id, failed_versions.c.digest).where(failed_versions.c.cleared_at.is_(None))


def failures(conn: Connection, ids: Ids = None) -> dict[str, frozenset[str]]:
    """Node id → digests that failed there and were not cleared."""
    query = _failures()
    found: defaultdict[str, set[str]] = defaultdict(set)
    for row in of_ids(conn, query, failed_versions.c.node_id, ids):
        found[row[0]].add(row[1])
    return {node_id: frozenset(digests) for node_id, digests in found.items()}


@cache
def _exposing() -> tuple[Select[Any], Select[Any]]:
    open_lease = exists().where(leases.c.operation_id == operations.c.id, leases.c.ended_at.is_(None))
    forward = and_(operations.c.rollout_id == rollouts.c.id, rollouts.c.state != RolloutState.ROLLING_BACK.value)
    ordered = (
        select(operations.c.node_id, operations.c.rollout_id)
        .join(rollouts, forward)
        .where(
            operations.c.state == "open",
            operations.c.kind.in_((OperationKind.ACTIVATE.value, OperationKind.REBOOT.value)),
            or_(operations.c.phase.in_(_HAS_SWITCHED), open_lease),
        )
    )
    moving = (
        select(rollout_nodes.c.node_id, rollout_nodes.c.rollout_id)
        .join(rollouts, rollouts.c.id == rollout_nodes.c.rollout_id)
        .where(
            rollout_nodes.c.state == RolloutNodeState.MOVING.value,
            rollouts.c.state.not_in([*(state.value for state in TERMINAL), RolloutState.ROLLING_BACK.value]),
        )
    )
    return ordered, moving


def exposures(conn: Connection, ids: Ids = None) -> dict[str, str]:
    """Node id → the rollout whose version it has not proved yet.

    Reserved, on its way, on trial or soaking by an order of a rollout that leads forward, or written as moving in it
    (until its owner has judged how that ended).
    """
    ordered, moving = _exposing()
    found = [*of_ids(conn, ordered, operations.c.node_id, ids), *of_ids(conn, moving, rollout_nodes.c.node_id, ids)]
    return {row[0]: row[1] for row in found}


@cache
def _ordered() -> Select[Any]:
    held = exists().where(leases.c.operation_id == operations.c.id, leases.c.ended_at.is_(None))
    served = exists().where(leases.c.operation_id == operations.c.id, leases.c.nonce == operations.c.lease_nonce)
    return (
        select(
            operations.c.id,
            operations.c.node_id,
            operations.c.kind,
            operations.c.image_id,
            operations.c.target_version,
            operations.c.target_digest,
            operations.c.rollout_id,
            operations.c.override_floor,
            let_pass().label("override_failed"),
            operations.c.actor,
            operations.c.created_at,
            operations.c.lease_nonce,
            operations.c.lease_nonce_at,
            operations.c.lease_asked_at,
            operations.c.hold,
            operations.c.policy,
            nodes.c.activity,
            served.label("served"),
            func.coalesce(rollout_nodes.c.canary, False).label("canary"),
        )
        .join(nodes, and_(nodes.c.id == operations.c.node_id, nodes.c.desired_operation_id == operations.c.id))
        .outerjoin(
            rollout_nodes,
            and_(
                rollout_nodes.c.rollout_id == operations.c.rollout_id,
                rollout_nodes.c.node_id == operations.c.node_id,
            ),
        )
        .where(
            operations.c.state == "open",
            operations.c.kind.in_(_UNDER_LEASE),
            operations.c.phase.not_in(_HAS_SWITCHED),
            operations.c.cancel_asked_at.is_(None),
            nodes.c.admission == "admitted",
            ~held,
        )
        .order_by(operations.c.id)
    )


def ordered(conn: Connection, ids: Ids = None) -> list[Any]:
    """Open operations that still need their lease, each desired by its node: of a rollout, or of an operator."""
    query = _ordered()
    return of_ids(conn, query, operations.c.node_id, ids)


@cache
def _waiting() -> Select[Any]:
    return (
        select(
            rollout_nodes.c.rollout_id,
            rollout_nodes.c.node_id,
            rollout_nodes.c.canary,
            rollout_nodes.c.added_at,
        )
        .join(rollouts, rollouts.c.id == rollout_nodes.c.rollout_id)
        .where(
            rollout_nodes.c.state == RolloutNodeState.WAITING.value,
            rollouts.c.state.not_in([state.value for state in TERMINAL]),
        )
        .order_by(rollout_nodes.c.rollout_id, rollout_nodes.c.node_id)
    )


def waiting(conn: Connection, ids: Ids = None) -> list[Any]:
    """Nodes that a rollout, started or drafted, has not ordered yet."""
    query = _waiting()
    return of_ids(conn, query, rollout_nodes.c.node_id, ids)


@dataclass(frozen=True, slots=True)
class Progress:
    """What the nodes of a rollout did so far."""

    size: int
    """Without those that left it."""
    attempted: int
    failed: int
    canaries_left: int
    canaries_ended_at: float | None
    """When the last canary that is through was through."""


NO_PROGRESS = Progress(0, 0, 0, 0, None)


@cache
def _progress() -> Select[Any]:
    state, canary = rollout_nodes.c.state, rollout_nodes.c.canary
    tried = (RolloutNodeState.MOVING.value, RolloutNodeState.DONE.value, RolloutNodeState.FAILED.value)
    to_come = (RolloutNodeState.WAITING.value, RolloutNodeState.ORDERED.value, RolloutNodeState.MOVING.value)
    return (
        select(
            rollout_nodes.c.rollout_id,
            _number(state != RolloutNodeState.LEFT.value),
            _number(state.in_(tried)),
            _number(state == RolloutNodeState.FAILED.value),
            _number(and_(canary, state.in_(to_come))),
            func.max(case((and_(canary, state == RolloutNodeState.DONE.value), rollout_nodes.c.ended_at))),
        )
        .join(rollouts, rollouts.c.id == rollout_nodes.c.rollout_id)
        .where(rollouts.c.state.not_in([state.value for state in TERMINAL]))
        .group_by(rollout_nodes.c.rollout_id)
    )


def progress(conn: Connection, rollout_ids: Ids = None) -> dict[str, Progress]:
    """Of rollouts that have not ended; one without nodes is missing."""
    query = _progress()
    return {row[0]: Progress(*row[1:]) for row in of_ids(conn, query, rollout_nodes.c.rollout_id, rollout_ids)}


def bad_digests(conn: Connection) -> dict[str, str]:
    """Digest → why it is bad fleet-wide, where no operator cleared it."""
    return {row[0]: row[1] for row in conn.execute(_BAD)}


_BAD = (
    select(bad_versions.c.digest, bad_versions.c.reason)
    .where(bad_versions.c.cleared_at.is_(None))
    .order_by(bad_versions.c.cause)
)


def anything_wanted(conn: Connection) -> bool:
    """Whether some node or rollout wants anything at all: a fleet at rest costs two look-ups."""
    return any(conn.execute(query).first() is not None for query in (_OPEN_ORDER, _OPEN_ROLLOUT))


_OPEN_ORDER = select(operations.c.id).where(operations.c.state == "open", operations.c.kind.in_(_UNDER_LEASE)).limit(1)
_OPEN_ROLLOUT = select(rollouts.c.id).where(rollouts.c.state.not_in([state.value for state in TERMINAL])).limit(1)


@cache
def _image_rows() -> Select[Any]:
    return select(
        images.c.id,
        images.c.os,
        images.c.arch,
        images.c.version,
        images.c.digest,
        images.c.created_at,
        images.c.withdrawn_at,
        images.c.must_pass,
        images.c.not_from,
    )


def image_rows(conn: Connection, image_ids: Sequence[str]) -> dict[str, Any]:
    """The images that rollouts, orders and pins lead to."""
    query = _image_rows()
    return {row.id: row for row in of_ids(conn, query, images.c.id, sorted(set(image_ids)))}


def _number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def of_ids(conn: Connection, query: Select[Any], column: ColumnElement[str], ids: Ids) -> list[Any]:
    """`query`: the same object each time, for what is made of it is kept."""
    if ids is None:
        return list(conn.execute(query))
    found: list[Any] = []
    for start in range(0, len(ids), _IDS_AT_ONCE):
        found += conn.execute(_limited(query, column), {"of_ids": ids[start : start + _IDS_AT_ONCE]})
    return found


@lru_cache(maxsize=64)
def _limited(query: Select[Any], column: ColumnElement[str]) -> Select[Any]:
    return query.where(column.in_(bindparam("of_ids", expanding=True)))
