"""The fleet as admission sees it: gathered from the database once, then kept up to date by what changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from sqlalchemy import Connection

from app.core.clocks import GatewaySeen, listened_s
from app.core.domains import Loss
from app.core.freezes import Freeze, freeze_hold
from app.core.group_policy import Amount, GroupPolicy
from app.core.groups import Group, Grouping
from app.core.holds import Hold, HoldCode
from app.core.image_match import canonical_arch
from app.core.leases import ANSWER_WITHIN_S, Asking
from app.core.planning.words import span
from app.core.rollouts import TERMINAL, RolloutKind, RolloutState
from app.core.services import scope_of
from app.core.snapshot import Candidate, GroupView, NodeView, RolloutView, ServiceKey, Snapshot, TargetView
from app.services.service_views import Frozen, service_views
from app.store import fleet, freezes, gateways, groups, rollouts
from app.store import snapshot as store
from app.store.rollouts import Rollout
from wire.messages import EvidenceClass, HealthState, OperationKind, Phase

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
            (channel, os, canonical_arch(arch)): digest
            for (channel, os, arch), digest in store.channel_heads(conn).items()
        },
        channel_names=store.channel_names(conn),
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
        exposed = store.exposures(conn, ids)
        wanted = sorted({row.pin_image_id for row in rows if row.pin_image_id})
        images = store.image_rows(conn, wanted) if wanted else {}
        none: frozenset[str] = frozenset()
        return [
            self._view(row, replicas.get(row.id, ()), failed.get(row.id, none), exposed.get(row.id, ""), images)
            for row in rows
        ]

    def _view(
        self,
        row: Any,
        replicas: Sequence[tuple[str, str, int]],
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
            online=row.connection == "online" and setting.fresh(row.gateway_id),
            healthy=row.health_state != HealthState.UNHEALTHY,
            on_trial=row.trial,
            soaking=row.phase == Phase.SOAKING,
            reserved=row.reserved,
            absent=self._absent(row, policy.absent_after_s),
            commandable=row.evidence != EvidenceClass.PROTOCOL_ONLY and not row.conflict,
            placement_known=row.placement_known or row.declared is not None,
            placements=self._placements(row, replicas, member_of[0].name if member_of else ""),
            has_local_way_back=passive.get("good") is True,
            staged_digest=passive.get("digest") or "",
            pinned_to=pinned_to,
            pin_digest=pin_digest,
            failed=failed,
            exposed_to=exposed_to,
        )

    def _absent(self, row: Any, absent_after_s: float) -> bool:
        if row.lost_at is not None:
            return True
        away = row.connection == "offline" and row.last_seen_at is not None
        if not away or self.setting.now - row.last_seen_at <= absent_after_s:
            return False
        return listened_s(self.setting.gateways.values(), row.last_seen_at, self.setting.now) > absent_after_s

    def _placements(
        self, row: Any, replicas: Sequence[tuple[str, str, int]], group: str
    ) -> tuple[tuple[int, int], ...]:
        """What an operator declared counts only while the node itself cannot say."""
        here: Counter[ServiceKey] = Counter()
        if row.placement_known:
            for scope, name, healthy in replicas:
                here[(scope_of(scope, group), name)] += healthy
        elif row.declared is not None:
            for scope, name, healthy in row.declared:
                here[(scope, name)] += healthy
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


class FleetView:
    """Nodes, rollouts and services keep their indexes as long as it lives."""

    def __init__(
        self,
        conn: Connection,
        now: float,
        losses: Sequence[Loss] = (),
        gates: Mapping[str, tuple[Hold, ...]] | None = None,
    ) -> None:
        self.losses, self.gates = losses, gates or {}
        self.setting = read_setting(conn, now)
        self.nodes: list[NodeView] = []
        self.asking: dict[str, Asking] = {}
        """By operation: requests for a lease that have not been granted."""
        self.ready: dict[str, Asking] = {}
        """By operation: those of `asking` that may be granted now."""
        self._node_place: dict[str, int] = {}
        self._reader = NodeReader(self.setting)
        self._rollout_place: dict[str, int] = {}
        self._rollouts: list[RolloutView] = []
        self._candidates: dict[str, tuple[Candidate, ...]] = {}
        self._put_nodes(self._reader.read(conn, None))
        self._read_services(conn)
        self._read_rollouts(conn)
        self._read_candidates(conn, None)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(chain.from_iterable(self._candidates.values()))

    def snapshot(self) -> Snapshot:
        return Snapshot(
            now=self.setting.now,
            nodes=tuple(self.nodes),
            services=tuple(self.services),
            groups=self.group_views,
            rollouts=tuple(self._rollouts),
            candidates=self.candidates,
            fleet_hold=self.fleet_hold,
        )

    @property
    def rollouts(self) -> tuple[RolloutView, ...]:
        return tuple(self._rollouts)

    @property
    def fleet_hold(self) -> Hold | None:
        return freeze_hold(self.setting.freezes, (), self.setting.now)

    @property
    def group_views(self) -> tuple[GroupView, ...]:
        views = [
            GroupView(group.id, group.name, group.policy, self._group_freeze(group.id)) for group in self.setting.groups
        ]
        return (*views, GroupView(UNGROUPED, "of nodes without a group", self.setting.ungrouped))

    def refresh(
        self,
        conn: Connection,
        setting: Setting,
        changed: Iterable[str],
        losses: Sequence[Loss],
        gates: Mapping[str, tuple[Hold, ...]],
        *,
        rollouts_too: bool,
    ) -> list[NodeView] | None:
        """Read what changed; the views of nodes that are different now. None: a node is gone, or the groups are
        others, and all has to be gathered anew."""
        if setting.groups != self.setting.groups or setting.ungrouped != self.setting.ungrouped:
            return None
        self.setting = self._reader.setting = setting
        self.losses, self.gates = losses, gates
        ids = sorted(changed)
        known = len(self._reader.service_place)
        found = self._reader.read(conn, ids)
        if any(node_id in self._node_place for node_id in set(ids) - {node.id for node in found}):
            return None
        different = [node for node in found if self._node(node.id) != node]
        self._put_nodes(different)
        if len(self._reader.service_place) != known:
            self._read_services(conn)
        if rollouts_too:
            self._read_rollouts(conn)
        if ids:
            self._read_candidates(conn, ids)
        self._expire()
        return different

    # --- nodes and services ---------------------------------------------------------------------------------

    def _node(self, node_id: str) -> NodeView | None:
        place = self._node_place.get(node_id)
        return None if place is None else self.nodes[place]

    def _put_nodes(self, found: Iterable[NodeView]) -> None:
        for node in found:
            place = self._node_place.setdefault(node.id, len(self.nodes))
            if place == len(self.nodes):
                self.nodes.append(node)
            else:
                self.nodes[place] = node

    def _read_services(self, conn: Connection) -> None:
        healthy: Counter[int] = Counter()
        for node in self.nodes:
            if node.up:
                for service, replicas in node.placements:
                    healthy[service] += replicas
        numbers = {key: healthy[place] for key, place in self._reader.service_place.items()}
        names = {group.name for group in self.setting.groups}
        found = service_views(conn, numbers, names, self.setting.frozen, self.setting.now, all_of_them=True)
        self.services = [found[key] for key in self._reader.service_place]

    # --- rollouts and candidates ----------------------------------------------------------------------------

    def _read_rollouts(self, conn: Connection) -> None:
        found = self.setting.rollouts
        progress = store.progress(conn) if found else {}
        images = store.image_rows(conn, [id for rollout in found for id in rollout.targets])
        self._bad = store.bad_digests(conn)
        for rollout in found:
            seen = progress.get(rollout.id, store.NO_PROGRESS)
            view = rollout_view(rollout, seen, images, self._bad, self._gates(rollout))
            self._put_rollout(view)
        open_ids = {rollout.id for rollout in found}
        for place, view in enumerate(self._rollouts):
            if not view.direct and view.id not in open_ids:
                self._rollouts[place] = replace(view, state=RolloutState.ABORTED)

    def _put_rollout(self, view: RolloutView) -> int:
        place = self._rollout_place.setdefault(view.id, len(self._rollouts))
        if place == len(self._rollouts):
            self._rollouts.append(view)
        else:
            self._rollouts[place] = view
        return place

    def _gates(self, rollout: Rollout) -> tuple[Hold, ...]:
        return (*loss_holds(self.losses, self.setting.now), *self.gates.get(rollout.id, ()))

    def _read_candidates(self, conn: Connection, ids: Sequence[str] | None) -> None:
        ordered, waiting = store.ordered(conn, ids), store.waiting(conn, ids)
        if ids is None:
            self._candidates, self.asking, self.ready = {}, {}, {}
        for node_id in ids or ():
            for candidate in self._candidates.pop(node_id, ()):
                self.asking.pop(candidate.operation_id, None)
                self.ready.pop(candidate.operation_id, None)
        images = store.image_rows(conn, [row.image_id for row in ordered if row.image_id and not row.rollout_id])
        for row in ordered:
            self._add_candidate(row.node_id, self._ordered(row, images))
        for row in waiting:
            self._add_candidate(row.node_id, self._waiting(row))

    def _expire(self) -> None:
        """Requests that their nodes have given up meanwhile are none."""
        for operation_id, asking in list(self.ready.items()):
            here = self._candidates.get(asking.node_id, ())
            mine = next((each for each in here if each.operation_id == operation_id), None)
            if mine is None or not self._is_ready(asking, self._rollouts[mine.rollout]):
                del self.ready[operation_id]
                self._candidates[asking.node_id] = tuple(
                    replace(each, ready=False) if each is mine else each for each in here
                )

    def _add_candidate(self, node_id: str, found: Candidate | None) -> None:
        if found is not None:
            self._candidates[node_id] = (*self._candidates.get(node_id, ()), found)

    def _waiting(self, row: Any) -> Candidate | None:
        node, rollout = self._node_place.get(row.node_id), self._rollout_place.get(row.rollout_id)
        if node is None or rollout is None:
            return None
        return Candidate(
            node=node, rollout=rollout, operation_id="", ready=False, canary=bool(row.canary), since=row.added_at
        )

    def _ordered(self, row: Any, images: Mapping[str, Any]) -> Candidate | None:
        node = self._node_place.get(row.node_id)
        if node is None:
            return None
        rollout = self._rollout_place.get(row.rollout_id) if row.rollout_id else self._direct(row, node, images)
        if rollout is None:
            return None
        asking = None if row.lease_nonce is None or row.served else asking_of(row, self.nodes[node].name)
        if asking is not None:
            self.asking[row.id] = asking
            if self._is_ready(asking, self._rollouts[rollout]):
                self.ready[row.id] = asking
        return Candidate(
            node=node,
            rollout=rollout,
            operation_id=row.id,
            ready=row.id in self.ready,
            canary=bool(row.canary),
            since=row.lease_asked_at or row.created_at,
            override_floor=row.override_floor,
            override_failed=row.override_failed,
            said=_said(row, asking),
        )

    def _is_ready(self, asking: Asking, rollout: RolloutView) -> bool:
        """Of a rollout's nodes whoever asks now may go. Orders to one node and ways back keep their turn while the
        node waits to ask again, so that a large rollout cannot starve them."""
        if rollout.direct or rollout.reverse or rollout.state is RolloutState.ROLLING_BACK:
            return asking.waits(self.setting.now)
        return asking.can_be_answered(self.setting.now)

    def _direct(self, row: Any, node: int, images: Mapping[str, Any]) -> int:
        """An operator's order is a rollout of one node."""
        image = images.get(row.image_id)
        view = self.nodes[node]
        named = TargetView(view.os_id, view.arch, row.target_version, row.target_digest, 0.0, False)
        kind = _KINDS[OperationKind(row.kind)]
        gates = (*loss_holds(self.losses, self.setting.now), *self.gates.get(view.groups[0], ()))
        return self._put_rollout(
            RolloutView(
                id=row.id,
                name=f"the order of {row.actor}",
                kind=kind,
                state=RolloutState.RUNNING,
                policy=_ONE_NODE,
                targets=(named if image is None else target_view(image, self._bad),),
                created_at=row.created_at,
                direct=True,
                reverse=kind is RolloutKind.ROLLBACK,
                allow_downgrade=True,
                size=1,
                gates=gates,
            )
        )

    def _group_freeze(self, group_id: str) -> Hold | None:
        own = [each for each in self.setting.freezes if each.group_id == group_id]
        return freeze_hold(own, (group_id,), self.setting.now) if own else None


_ONE_NODE = GroupPolicy(canaries=Amount(count=0))
_KINDS = {
    OperationKind.ACTIVATE: RolloutKind.UPDATE,
    OperationKind.REBOOT: RolloutKind.REBOOT,
    OperationKind.ROLLBACK: RolloutKind.ROLLBACK,
}


def rollout_view(
    rollout: Rollout,
    seen: store.Progress,
    images: Mapping[str, Any],
    bad: Mapping[str, str],
    gates: tuple[Hold, ...] = (),
) -> RolloutView:
    """A rollout as the planner sees it. One that is rolling back leads each node to what it ran before, so its own
    image is nobody's target any more."""
    back = rollout.state is RolloutState.ROLLING_BACK
    targets = () if back else tuple(target_view(images[id], bad) for id in rollout.targets if id in images)
    soaked_at = rollout.canaries_soaked_at
    return RolloutView(
        id=rollout.id,
        name=rollout.name,
        kind=rollout.kind,
        state=rollout.state,
        policy=rollout.policy,
        targets=targets,
        created_at=rollout.created_at,
        reverse=rollout.leads_back,
        allow_downgrade=rollout.allow_downgrade,
        break_glass=rollout.break_glass,
        attempted=seen.attempted,
        failed=seen.failed,
        canaries_left=seen.canaries_left,
        canaries_soaked_at=soaked_at if soaked_at is not None else seen.canaries_ended_at,
        size=seen.size,
        gates=gates,
    )


def target_view(image: Any, bad: Mapping[str, str]) -> TargetView:
    return TargetView(
        os_id=image.os,
        arch=image.arch,
        version=image.version,
        digest=image.digest,
        created_at=image.created_at,
        withdrawn=image.withdrawn_at is not None,
        bad=bad.get(image.digest, ""),
        must_pass=tuple(image.must_pass or ()),
        not_from=tuple(image.not_from or ()),
    )


def loss_holds(losses: Sequence[Loss], now: float) -> tuple[Hold, ...]:
    """The gate that the loss of a domain shuts (rule 4)."""
    return tuple(
        Hold(
            HoldCode.HEALTH_GATE,
            f"{loss.text}: nothing starts before they are back, or {span(loss.until - now)} have passed",
            f"{loss.label}={loss.value}" if loss.label else "",
            loss.until,
        )
        for loss in losses
    )


def asking_of(row: Any, node_name: str) -> Asking:
    """The newest lease request of an operation."""
    hold = row.hold or {}
    answered = hold.get("nonce") == row.lease_nonce
    return Asking(
        operation_id=row.id,
        node_id=row.node_id,
        node_name=node_name,
        kind=row.kind,
        nonce=row.lease_nonce,
        asked_at=row.lease_asked_at,
        nonce_at=row.lease_nonce_at,
        answered=answered,
        retry_s=float(hold.get("retry_s", 0.0)) if answered else 0.0,
    )


def answerable_until(asking: Asking) -> float:
    """After this its node has given the request up."""
    return asking.nonce_at + ANSWER_WITHIN_S


_KNOWN_CODES = {code.value for code in HoldCode}


def _said(row: Any, asking: Asking | None) -> Hold | None:
    """Why it is not ready: what it was told when it asked, else what the node itself says."""
    told = row.hold
    if asking is not None and told is not None:
        code = HoldCode(told["code"]) if told["code"] in _KNOWN_CODES else HoldCode.NOT_READY
        return Hold(code, told["text"], told.get("subject", ""), told.get("until"))
    activity = row.activity or {}
    own = activity.get("holds") or ()
    if own:
        return Hold(HoldCode.NOT_READY, own[0]["text"], row.node_id)
    inhibitors = activity.get("inhibitors") or ()
    return Hold(HoldCode.NOT_READY, f"held on the node itself: {inhibitors[0]}", row.node_id) if inhibitors else None
