"""Nodes as entering a rollout and staging in it go: a row each, read set-based (see app.core.rollout_entry)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, exists, func, not_, or_, select

from app.core.clocks import GatewaySeen, listened_s
from app.core.groups import Selector
from app.core.image_match import canonical_arch
from app.core.rollout_entry import Keeper
from app.core.rollouts import RolloutNodeState
from app.core.snapshot import TargetView
from app.store import bad_versions, gateways, kept_ways_back
from app.store.node_query import in_group
from app.store.schema import (
    channel_moves,
    channels,
    failed_versions,
    images,
    nodes,
    operations,
    rollout_nodes,
    rollouts,
)
from wire.messages import EvidenceClass

BUSY = nodes.c.id.in_(select(operations.c.node_id).where(operations.c.state == "open"))
"""It has an open operation. Not as EXISTS: SQLite would go through all open ones for each node."""
_AT_ONCE = 500
"""SQLite takes a bounded number of parameters."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A node as app.core.rollout_entry.NodeFacts asks for it, and what is stored of it in the rollout."""

    id: str
    name: str
    os_id: str
    arch: str
    version: str
    digest: str
    slot: str
    online: bool
    absent: bool
    commandable: bool
    pinned_to: str
    pin_digest: str
    failed: frozenset[str]
    busy: bool
    """It has an open operation, whoever gave it, that an order of the rollout would wait for."""
    kept_for: Keeper | None
    hold: dict[str, Any] | None = None


class Reader:
    """Facts at one moment. `digests`: of the rollout's targets, whose failures count; `absent_after_s`: see
    GroupPolicy."""

    def __init__(self, conn: Connection, digests: Collection[str], absent_after_s: float, now: float) -> None:
        self.conn, self.now = conn, now
        self._absent_after_s = absent_after_s
        self._heads = _channel_heads(conn)
        self._failed = _failed(conn, digests)
        self._gateways: list[GatewaySeen] | None = None
        self._names: dict[str, str] | None = None

    def newcomers(self, rollout_id: str, selector: Selector, limit: int) -> list[Facts]:
        """Admitted nodes that the selector takes and that the rollout does not have."""
        known = exists().where(rollout_nodes.c.rollout_id == rollout_id, rollout_nodes.c.node_id == nodes.c.id)
        query = rows_of_nodes().where(in_group(selector), not_(known)).order_by(nodes.c.id).limit(limit)
        return [self.facts(row) for row in self.conn.execute(query)]

    def all_of(self, selector: Selector) -> list[Facts]:
        query = rows_of_nodes().where(in_group(selector)).order_by(nodes.c.id)
        return [self.facts(row) for row in self.conn.execute(query)]

    def of(self, node_ids: Sequence[str]) -> list[Facts]:
        """These, without those that are not admitted."""
        found: list[Facts] = []
        for start in range(0, len(node_ids), _AT_ONCE):
            some = node_ids[start : start + _AT_ONCE]
            query = rows_of_nodes().where(nodes.c.id.in_(some), nodes.c.admission == "admitted").order_by(nodes.c.id)
            found += [self.facts(row) for row in self.conn.execute(query)]
        return found

    def away(self, rollout_id: str, limit: int) -> list[Facts]:
        """Nodes that wait without an order and that are declared lost, or have been offline for long."""
        here = and_(rollout_nodes.c.rollout_id == rollout_id, rollout_nodes.c.node_id == nodes.c.id)
        long_gone = and_(nodes.c.connection != "online", nodes.c.last_seen_at < self.now - self._absent_after_s)
        query = (
            rows_of_nodes()
            .join(rollout_nodes, here)
            .where(
                rollout_nodes.c.state == RolloutNodeState.WAITING.value,
                rollout_nodes.c.operation_id.is_(None),
                nodes.c.admission == "admitted",
                or_(nodes.c.lost_at.is_not(None), long_gone),
            )
            .order_by(nodes.c.id)
        )
        return [self.facts(row) for row in self.conn.execute(query.limit(limit))]

    def facts(self, row: Row[Any], **given: Any) -> Facts:
        """Of a row of `rows_of_nodes`."""
        online = row.connection == "online"
        seen_at = row.last_seen_at
        pinned = row.pin_version is not None or row.pin_channel is not None
        head = self._heads.get((row.pin_channel_id, row.os_id, canonical_arch(row.arch)), "")
        return Facts(
            id=row.id,
            name=row.name,
            os_id=row.os_id,
            arch=row.arch,
            version=row.version,
            digest=row.booted_digest,
            slot=row.booted_slot,
            online=online,
            absent=row.lost_at is not None or (not online and seen_at is not None and self._long_ago(seen_at)),
            commandable=row.evidence != EvidenceClass.PROTOCOL_ONLY.value and not row.in_conflict,
            pinned_to=_pin_words(row) if pinned else "",
            pin_digest=(row.pin_digest if row.pin_version is not None else head) if pinned else "",
            failed=self._failed.get(row.id, frozenset()),
            busy=bool(row.busy),
            kept_for=None if row.keeper_id is None else self._keeper(row.keeper_id),
            **given,
        )

    def _keeper(self, rollout_id: str) -> Keeper:
        if self._names is None:
            self._names = kept_ways_back.names(self.conn)
        return Keeper(rollout_id, self._names.get(rollout_id, "another rollout"))

    def _long_ago(self, seen_at: float) -> bool:
        """Silence counts only while somebody could have heard it (rule 4)."""
        if self.now - seen_at <= self._absent_after_s:
            return False
        if self._gateways is None:
            self._gateways = list(gateways.all_seen(self.conn).values())
        return listened_s(self._gateways, seen_at, self.now) > self._absent_after_s


def _pin_words(row: Row[Any]) -> str:
    return f"version {row.pin_version}" if row.pin_version is not None else f"channel {row.pin_channel}"


def rows_of_nodes(*more: Any, busy: ColumnElement[bool] = BUSY) -> Select[Any]:
    """A query that can be narrowed; `more`: further columns."""
    return (
        select(
            nodes.c.id,
            nodes.c.name,
            nodes.c.os_id,
            nodes.c.arch,
            nodes.c.version,
            nodes.c.booted_digest,
            nodes.c.booted_slot,
            nodes.c.connection,
            nodes.c.last_seen_at,
            nodes.c.lost_at,
            nodes.c.evidence,
            nodes.c.conflict.is_not(None).label("in_conflict"),
            nodes.c.pin_channel_id,
            channels.c.name.label("pin_channel"),
            images.c.version.label("pin_version"),
            images.c.digest.label("pin_digest"),
            busy.label("busy"),
            kept_ways_back.keeper_id().label("keeper_id"),
            *more,
        )
        .select_from(nodes)
        .outerjoin(channels, channels.c.id == nodes.c.pin_channel_id)
        .outerjoin(images, images.c.id == nodes.c.pin_image_id)
    )


def _channel_heads(conn: Connection) -> dict[tuple[str, str, str], str]:
    return {(row[0], row[1], row[2]): row[3] for row in conn.execute(_HEADS)}


_HEADS = (
    select(channel_moves.c.channel_id, channel_moves.c.os, channel_moves.c.arch, images.c.digest)
    .join(images, images.c.id == channel_moves.c.image_id)
    .where(channel_moves.c.until.is_(None))
)


_FAILED = select(failed_versions.c.node_id, failed_versions.c.digest).where(
    failed_versions.c.digest.in_(bindparam("digests", expanding=True)), failed_versions.c.cleared_at.is_(None)
)


def _failed(conn: Connection, digests: Collection[str]) -> dict[str, frozenset[str]]:
    if not digests:
        return {}
    rows = conn.execute(_FAILED, {"digests": list(digests)})
    found: dict[str, set[str]] = {}
    for node_id, digest in rows:
        found.setdefault(node_id, set()).add(digest)
    return {node_id: frozenset(some) for node_id, some in found.items()}


_TARGETS = select(images).where(images.c.id.in_(bindparam("ids", expanding=True))).order_by(images.c.os, images.c.arch)


def targets(conn: Connection, image_ids: Collection[str]) -> tuple[TargetView, ...]:
    """The images as rollouts lead to them, with what is said of their versions fleet-wide."""
    bad = bad_versions.not_cleared(conn)
    rows = conn.execute(_TARGETS, {"ids": list(image_ids)})
    return tuple(
        TargetView(
            os_id=row.os,
            arch=row.arch,
            version=row.version,
            digest=row.digest,
            created_at=row.created_at,
            withdrawn=row.withdrawn_at is not None,
            bad=bad[row.digest].reason if row.digest in bad else "",
            must_pass=tuple(row.must_pass or ()),
            not_from=tuple(row.not_from or ()),
        )
        for row in rows
    )


def gone(conn: Connection, rollout_id: str, selector: Selector | None, limit: int) -> list[str]:
    """Nodes that have not moved and that were retired, or that the selector does not take any more."""
    stays = nodes.c.admission == "admitted" if selector is None else in_group(selector)
    rows = conn.execute(
        select(rollout_nodes.c.node_id)
        .join(nodes, nodes.c.id == rollout_nodes.c.node_id)
        .where(
            rollout_nodes.c.rollout_id == rollout_id,
            rollout_nodes.c.state.in_((RolloutNodeState.WAITING.value, RolloutNodeState.ORDERED.value)),
            not_(stays),
        )
        .order_by(rollout_nodes.c.node_id)
        .limit(limit)
    )
    return list(rows.scalars())


def reached(conn: Connection, rollout_id: str) -> frozenset[str]:
    """Digests that the rollout leads its nodes to; of one that leads back those that its orders named."""
    found: list[list[str]] = list(conn.execute(select(rollouts.c.targets).where(rollouts.c.id == rollout_id)).scalars())
    ids = [image_id for some in found for image_id in some]
    named = conn.execute(select(images.c.digest).where(images.c.id.in_(ids))).scalars()
    ordered = conn.execute(
        select(operations.c.target_digest)
        .where(operations.c.rollout_id == rollout_id, operations.c.target_digest != "")
        .distinct()
    ).scalars()
    return frozenset(named) if ids else frozenset(ordered)


def done_and_elsewhere(conn: Connection, rollout_id: str) -> int:
    """How many nodes did what the rollout wanted and run something else by now: they were sent back, or moved on."""
    digests = reached(conn, rollout_id)
    if not digests:
        return 0  # it led to no other version
    done = rollout_nodes.c.rollout_id == rollout_id, rollout_nodes.c.state == RolloutNodeState.DONE.value
    query = select(func.count()).select_from(rollout_nodes).join(nodes, nodes.c.id == rollout_nodes.c.node_id)
    there = or_(nodes.c.booted_digest == "", nodes.c.booted_digest.in_(digests))
    return conn.execute(query.where(*done, not_(there))).scalar_one()
