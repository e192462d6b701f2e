"""The fleet as admission sees it: gathered from the database once, then kept up to date by what changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from sqlalchemy import Connection

from app.core.domains import Loss
from app.core.freezes import freeze_hold
from app.core.group_policy import Amount, GroupPolicy
from app.core.holds import Hold
from app.core.leases import Asking
from app.core.rollout_entry import Keeper
from app.core.rollouts import RolloutKind, RolloutState
from app.core.snapshot import Candidate, GroupView, NodeView, RolloutView, Snapshot, TargetView
from app.services import rollout_canaries
from app.services.kept_ways_back import with_keeper
from app.services.node_views import UNGROUPED, NodeReader, Setting, read_setting
from app.services.rollout_groups import outside
from app.services.rollout_views import asking_of, loss_holds, rollout_view, said_of, target_view
from app.services.service_views import service_views
from app.store import snapshot as store
from app.store.kept_ways_back import all_kept
from app.store.rollouts import Rollout
from wire.messages import OperationKind

_ONE_NODE = GroupPolicy(canaries=Amount(count=0))
_KINDS = {
    OperationKind.ACTIVATE: RolloutKind.UPDATE,
    OperationKind.REBOOT: RolloutKind.REBOOT,
    OperationKind.ROLLBACK: RolloutKind.ROLLBACK,
}


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
        self._rows: dict[str, Rollout] = {}
        self._candidates: dict[str, tuple[Candidate, ...]] = {}
        self._kept: Mapping[str, Keeper] = {}
        """By node: whose way back is kept, where a domain has its turn only while a node of it can still move."""
        self._put_nodes(self._reader.read(conn, None))
        self._read_services(conn)
        self._read_rollouts(conn)
        self._read_candidates(conn, None)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        found = chain.from_iterable(self._candidates.values())
        if not self._kept:
            return tuple(found)
        kept, nodes, rollouts = self._kept, self.nodes, self._rollouts
        return tuple(with_keeper(one, rollouts[one.rollout], kept.get(nodes[one.node].id)) for one in found)

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
        return (*views, GroupView(UNGROUPED, "", self.setting.ungrouped))

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
        self._rows = {rollout.id: rollout for rollout in found}
        unwell = rollout_canaries.unwell(conn, found, self.setting.now, self.setting.gateways) if found else {}
        in_turns = any(group.policy.one_domain_after_another for group in self.setting.groups)
        self._kept = all_kept(conn) if found and in_turns else {}
        for rollout in found:
            seen = progress.get(rollout.id, store.NO_PROGRESS)
            view = rollout_view(rollout, seen, images, self._bad, self._gates(rollout), now=self.setting.now)
            if rollout.id in unwell:
                view = replace(view, canaries_wait=unwell[rollout.id][0].text)
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
        if node is None or rollout is None or self._outside(row.rollout_id, node):
            return None
        of = self._rows[row.rollout_id]
        return Candidate(
            node=node,
            rollout=rollout,
            operation_id="",
            ready=False,
            canary=bool(row.canary),
            since=row.added_at,
            override_floor=of.leads_back and of.override_floor,
        )

    def _ordered(self, row: Any, images: Mapping[str, Any]) -> Candidate | None:
        node = self._node_place.get(row.node_id)
        if node is None or self._outside(row.rollout_id, node):
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
            said=said_of(row, asking),
        )

    def _outside(self, rollout_id: str | None, node: int) -> bool:
        """It is about to leave the rollout, whose group it is not of any more."""
        rollout = self._rows.get(rollout_id) if rollout_id else None
        return rollout is not None and outside(rollout, self.nodes[node].groups)

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
