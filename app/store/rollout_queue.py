"""Nodes of a rollout that wait for their orders: all of them, and those whose turn it is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, exists, false, not_, or_, select

from app.core.holds import HoldCode
from app.core.rollouts import RolloutNodeState
from app.core.slots import ARMED
from app.store.kept_ways_back import kept
from app.store.rollout_facts import BUSY, Facts, Reader, rows_of_nodes
from app.store.schema import failed_versions, leases, nodes, operations, rollout_nodes
from wire.messages import EvidenceClass, OperationKind

_c = rollout_nodes.c
_OPEN = operations.c.state == "open"
_HOLDS_LEASE = exists().where(leases.c.operation_id == operations.c.id, leases.c.ended_at.is_(None))
_PAST_RECALL = nodes.c.id.in_(
    select(operations.c.node_id).where(
        _OPEN,
        or_(
            operations.c.kind == OperationKind.ROLLBACK.value,
            operations.c.phase.in_([phase.value for phase in ARMED]),
            _HOLDS_LEASE,
        ),
    )
)
"""A way back does not wait for what has armed nothing, nor for a soak (rule 7)."""


_TELLABLE = and_(
    nodes.c.connection == "online",
    nodes.c.conflict.is_(None),
    nodes.c.evidence != EvidenceClass.PROTOCOL_ONLY.value,
)
"""Connected and to be commanded."""


@dataclass(frozen=True, slots=True)
class Platform:
    """As nodes have it; see app.core.rollout_entry.Runs."""

    os_id: str
    arch: str
    version: str


def anybody(conn: Connection, rollout_id: str) -> bool:
    """Whether any node is without an order: in most of a rollout's time none is."""
    return conn.execute(_anybody(), {"rollout_id": rollout_id}).first() is not None


def platforms(conn: Connection, rollout_id: str) -> list[Platform]:
    """What the nodes without an order run: a handful of kinds, however many they are."""
    return [Platform(*row) for row in conn.execute(_platforms(), {"rollout_id": rollout_id})]


def odd_ones(
    reader: Reader, rollout_id: str, versions: Collection[str], *, leads_back: bool, updates: bool
) -> list[Facts]:
    """Nodes without an order that have a hold, or may have to have one: of whatever hold, those that cannot be told now
    or are busy, that are pinned, where something failed, that run one of these versions, or (where it `updates`) whose
    way back is kept for another rollout."""
    given = {"rollout_id": rollout_id, "versions": sorted(versions)}
    return [_facts(reader, row) for row in reader.conn.execute(_odd_ones(leads_back, updates), given)]


def next_ones(
    reader: Reader,
    rollout_id: str,
    *,
    leads_back: bool,
    updates: bool,
    but: Collection[HoldCode],
    jitter_s: float,
    limit: int,
) -> list[Facts]:
    """Those that can be ordered now and have none of the holds `but`: canaries first, then by wave and when they may
    stage. A time that is further away than `jitter_s` is none: then the clock was set back."""
    given = {"rollout_id": rollout_id, "now": reader.now, "latest": reader.now + jitter_s, "most": limit}
    codes = tuple(sorted(code.value for code in but))
    return [_facts(reader, row) for row in reader.conn.execute(_next_ones(leads_back, updates, codes), given)]


@cache
def _anybody() -> Select[Any]:
    here = _c.rollout_id == bindparam("rollout_id"), _c.state == RolloutNodeState.WAITING.value
    return select(_c.node_id).where(*here, _c.operation_id.is_(None)).limit(1)


@cache
def _waiting(leads_back: bool) -> Select[Any]:
    return (
        rows_of_nodes(_c.hold, busy=_busy(leads_back))
        .join(rollout_nodes, and_(_c.rollout_id == bindparam("rollout_id"), _c.node_id == nodes.c.id))
        .where(_c.state == RolloutNodeState.WAITING.value, _c.operation_id.is_(None), nodes.c.admission == "admitted")
    )


@cache
def _platforms() -> Select[Any]:
    here = _c.rollout_id == bindparam("rollout_id"), _c.state == RolloutNodeState.WAITING.value
    joined = select(nodes.c.os_id, nodes.c.arch, nodes.c.version).join(rollout_nodes, _c.node_id == nodes.c.id)
    return joined.where(*here, _c.operation_id.is_(None)).distinct()


@cache
def _odd_ones(leads_back: bool, updates: bool) -> Select[Any]:
    failed = exists().where(failed_versions.c.node_id == nodes.c.id, failed_versions.c.cleared_at.is_(None))
    odd = or_(
        _c.hold.is_not(None),
        not_(_TELLABLE),
        _busy(leads_back),
        _kept(updates),
        nodes.c.pinned_at.is_not(None),
        failed,
        nodes.c.version.in_(bindparam("versions", expanding=True)),
    )
    return _waiting(leads_back).where(odd).order_by(nodes.c.id)


@cache
def _next_ones(leads_back: bool, updates: bool, codes: tuple[str, ...]) -> Select[Any]:
    return (
        _waiting(leads_back)
        .where(
            _TELLABLE,
            or_(_c.stage_at.is_(None), _c.stage_at <= bindparam("now"), _c.stage_at > bindparam("latest")),
            or_(_c.hold.is_(None), _c.hold["code"].as_string().not_in(codes)),
            ~_busy(leads_back),
            ~_kept(updates),
        )
        .order_by(_c.canary.desc(), _c.wave, _c.stage_at, nodes.c.id)
        .limit(bindparam("most"))
    )


def _busy(leads_back: bool) -> ColumnElement[bool]:
    return _PAST_RECALL if leads_back else BUSY


def _kept(updates: bool) -> ColumnElement[bool]:
    """Rule 2; a way back ignores it (rule 7), and a reboot writes nothing."""
    return kept(bindparam("rollout_id")) if updates else false()


def _facts(reader: Reader, row: Row[Any]) -> Facts:
    return reader.facts(row, hold=row.hold)
