"""Nodes as plans see them, and the setting that they are seen in: groups, freezes, gateways, rollouts. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from app.core.clocks import GatewaySeen, listened_s
from app.core.freezes import Freeze
from app.core.group_policy import GroupPolicy
from app.core.groups import Group, Grouping
from app.core.image_match import canonical_arch
from app.core.rollouts import TERMINAL, RolloutState
from app.core.services import scope_of
from app.core.snapshot import NodeView, ServiceKey
from app.services.service_views import Frozen
from app.store import channels, fleet, freezes, gateways, groups, rollouts
from app.store import snapshot as store
from app.store.rollouts import Rollout
from wire.messages import EvidenceClass, HealthState, Phase

UNGROUPED = "ungrouped"
"""Id of the group of all nodes that no selector takes: one of them moves at a time."""

OPEN_STATES = frozenset(RolloutState) - TERMINAL


@dataclass(frozen=True)
class Setting:
    """What views of nodes depend on beside their own rows."""

    now: float
    groups: tuple[Group, ...]
    ungrouped: GroupPolicy
    freezes: tuple[Freeze, ...]
    rollouts: tuple[Rollout, ...]
    gateways: Mapping[str, GatewaySeen]
    channel_heads: Mapping[tuple[str, str, str], str]
    channel_names: Mapping[str, str]
    grouping: Grouping = field(compare=False)

    def group_of(self, labels: Mapping[str, str]) -> str:
        """Name of the policy group; empty: none."""
        found = self.grouping.of(labels)
        return found[0].name if found else ""

    def fresh(self, gateway_id: str | None) -> bool:
        """Whether a connection through this gateway is alive, as far as can be known now."""
        gateway = self.gateways.get(gateway_id) if gateway_id is not None else None
        return gateway is not None and gateway.fresh(self.now)

    @property
    def frozen(self) -> Frozen:
        """What rollouts that were started and have not ended expect and allow."""
        return Frozen.of(rollout for rollout in self.rollouts if rollout.state is not RolloutState.DRAFT)


def read_setting(conn: Connection, now: float) -> Setting:
    found = groups.all_groups(conn)
    return Setting(
        now=now,
        groups=tuple(found),
        ungrouped=GroupPolicy(timing=fleet.policy(conn)),
        freezes=tuple(freezes.not_over(conn, now)),
        rollouts=tuple(rollouts.in_states(conn, OPEN_STATES)),
        gateways=gateways.all_seen(conn),
        channel_heads={
            (channel, os, canonical_arch(arch)): digest for (channel, os, arch), digest in channels.heads(conn).items()
        },
        channel_names=channels.names(conn),
        grouping=Grouping(found),
    )


class NodeReader:
    """Reads nodes as views; services get their indexes in the order in which they are met."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.service_place: dict[ServiceKey, int] = {}

    def read(self, conn: Connection, ids: Sequence[str] | None) -> list[NodeView]:
        rows = store.members(conn, ids)
        replicas, failed = store.replicas(conn, ids), store.failures(conn, ids)
        exposed, taken = store.exposures(conn, ids), store.reservations(conn, ids)
        wanted = sorted({row.pin_image_id for row in rows if row.pin_image_id})
        images = store.image_rows(conn, wanted) if wanted else {}
        none: frozenset[str] = frozenset()
        return [
            self._view(
                row,
                self._placements(row, replicas.get(row.id, ()), taken.get(row.id, ())),
                failed.get(row.id, none),
                exposed.get(row.id, ""),
                images,
            )
            for row in rows
        ]

    def _view(
        self,
        row: Any,
        placements: tuple[tuple[int, int], ...],
        failed: frozenset[str],
        exposed_to: str,
        images: Mapping[str, Any],
    ) -> NodeView:
        setting = self.setting
        member_of = setting.grouping.of(row.labels)
        policy = member_of[0].policy if member_of else setting.ungrouped
        passive: Mapping[str, Any] = next((slot for slot in row.slots if not slot["booted"]), {})
        pinned_to, pin_digest = self._pin(row, images)
        return NodeView(
            id=row.id,
            name=row.name,
            labels=row.labels,
            groups=tuple(group.id for group in member_of) or (UNGROUPED,),
            os_id=row.os_id,
            arch=row.arch,
            version=row.version,
            digest=row.booted_digest,
            online=self._online(row),
            healthy=row.health_state != HealthState.UNHEALTHY,
            on_trial=row.trial,
            soaking=row.phase == Phase.SOAKING,
            reserved=row.reserved,
            absent=self._absent(row, policy.absent_after_s),
            commandable=row.evidence != EvidenceClass.PROTOCOL_ONLY and not row.conflict,
            placement_known=self._told(row) and (row.placement_known or row.declared is not None),
            placements=placements,
            has_local_way_back=passive.get("good") is True,
            staged_digest=passive.get("digest") or "",
            pinned_to=pinned_to,
            pin_digest=pin_digest,
            failed=failed,
            exposed_to=exposed_to,
        )

    def _online(self, row: Any) -> bool:
        return row.connection == "online" and self.setting.fresh(row.gateway_id)

    def _told(self, row: Any) -> bool:
        """Whether what is known of its placement may be counted on. Of a node that has just come back it is from
        before: it may have rebooted, or its containers stopped, unseen. Of one that is away, or may go under its
        lease, nothing is counted as serving anyway, and what was last seen is what it serves again."""
        return row.placement_told or row.reserved or not self._online(row)

    def _absent(self, row: Any, absent_after_s: float) -> bool:
        if row.lost_at is not None:
            return True
        away = row.connection == "offline" and row.last_seen_at is not None
        if not away or self.setting.now - row.last_seen_at <= absent_after_s:
            return False
        return listened_s(self.setting.gateways.values(), row.last_seen_at, self.setting.now) > absent_after_s

    def _placements(
        self, row: Any, replicas: Sequence[tuple[str, str, int]], taken: Sequence[tuple[str, str, int]]
    ) -> tuple[tuple[int, int], ...]:
        """What an operator declared counts only while the node itself cannot say. What its lease took stays taken
        while the containers stop, and when they have come up elsewhere."""
        here: Counter[ServiceKey] = Counter()
        group, told = self.setting.group_of(row.labels) if replicas else "", self._told(row)
        if told and row.placement_known:
            for scope, name, healthy in replicas:
                here[(scope_of(scope, group), name)] += healthy
        elif told and row.declared is not None:
            for scope, name, healthy in row.declared:
                here[(scope, name)] += healthy
        for scope, name, number in taken:
            here[(scope, name)] = max(here[(scope, name)], number)
        places = self.service_place
        return tuple((places.setdefault(key, len(places)), number) for key, number in here.items() if number)

    def _pin(self, row: Any, images: Mapping[str, Any]) -> tuple[str, str]:
        if row.pinned_at is None:
            return "", ""
        image = images.get(row.pin_image_id) if row.pin_image_id else None
        if image is not None:
            return f"version {image.version}", image.digest
        channel = row.pin_channel_id or ""
        head = self.setting.channel_heads.get((channel, row.os_id, canonical_arch(row.arch)), "")
        return f"channel {self.setting.channel_names.get(channel, channel)}", head
