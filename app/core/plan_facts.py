"""What is so in a snapshot, found in the simplest way: what the checker holds against the planner, whose code it does
not share. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.holds import HoldCode
from app.core.image_match import canonical_arch
from app.core.plan import Plan
from app.core.plan_ledger import Budgets, Costs, Supply, Violation
from app.core.rollouts import RolloutKind, RolloutState
from app.core.snapshot import Candidate, NodeView, RolloutView, ServiceKey, Snapshot
from app.core.versions import version_key
from app.core.windows import is_open


class Facts:
    """A snapshot, asked in the simplest way."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.groups = {group.id: group for group in snapshot.groups}

    def name(self, candidate: Candidate) -> str:
        return self.snapshot.nodes[candidate.node].name

    def mover(self, node: int, plan: Plan) -> Candidate:
        """The candidate of a node in a wave."""
        mine = [(place, one) for place, one in enumerate(self.snapshot.candidates) if one.node == node]
        return next(one for place, one in mine if len(mine) == 1 or _has_it(plan, place))

    def budgets(self, *, back: bool) -> Budgets:
        """As it is now; with `back`, as it is when all that our own operations took away is there again."""
        services: dict[ServiceKey, Supply] = {}
        seen = [0] * len(self.snapshot.services)
        reserved = [0] * len(self.snapshot.services)
        groups: dict[str, tuple[int, int]] = {}
        domains: dict[tuple[str, str], tuple[int, int]] = {}
        for node in self.snapshot.nodes:
            if _serves(node, back):
                for service, replicas in _placements(node, back):
                    seen[service] += replicas
            elif node.reserved and not node.absent:
                for service, replicas in node.placements:
                    reserved[service] += replicas
        for view, healthy, taken in zip(self.snapshot.services, seen, reserved, strict=True):
            if view.floor is not None:
                floor = 0 if view.allowed and view.expected <= 1 else view.floor
                services[view.key] = Supply(healthy, view.expected, taken, floor)
        for group in self.snapshot.groups:
            members = [node for node in self.snapshot.nodes if group.id in node.groups and not node.absent]
            missing = [node for node in members if not _counts(node, back)]
            groups[group.id] = (len(missing), group.policy.max_unavailable.of(len(members)))
            label, most = group.policy.domain_label, group.policy.max_per_domain
            for value in {node.labels.get(label, "") for node in members} if label and most else ():
                away = [node for node in missing if node.labels.get(label, "") == value]
                domains[group.id, value] = (len(away), most)
        return Budgets(services, groups, domains, self._exposures(back))

    def costs(self, candidate: Candidate, *, back: bool) -> Costs:
        node = self.snapshot.nodes[candidate.node]
        labels = {id: self.groups[id].policy.domain_label for id in node.groups}
        services, rollout = self.snapshot.services, self.snapshot.rollouts[candidate.rollout].id
        return Costs(
            node=node.name,
            already_missing=not _counts(node, back),
            services={services[one].key: _taken(node, one, back) for one, _ in _placements(node, back)}
            if _serves(node, back)
            else {},
            groups=node.groups,
            domains=[(id, node.labels.get(label, "")) for id, label in labels.items() if label],
            rollout="" if node.exposed_to == rollout else rollout,
            override_floor=candidate.override_floor,
            allowed=frozenset(view.key for view in services if rollout in view.allowed_for),
        )

    def refusal(self, candidate: Candidate) -> str | None:
        """Why this node may not move now whatever the others do."""
        node, rollout = self.snapshot.nodes[candidate.node], self.snapshot.rollouts[candidate.rollout]
        back = leads_back(rollout)
        unmet = {
            "is not ready": not candidate.ready,
            "cannot be commanded": not node.commandable,
            "is away": node.absent or not node.online,
            "belongs to a rollout that does not run": rollout.state
            not in (RolloutState.RUNNING, RolloutState.ROLLING_BACK),
            "runs what nobody knows": node.up and not node.placement_known and not candidate.override_floor,
            "has a target that it must not go to": self._wrong_target(node, candidate),
            "is frozen": self._frozen(node, rollout),
        }
        if not back:
            unmet["keeps its way back"] = candidate.kept is not None
            unmet["is outside its window, or its image is too young"] = self._too_early(node, rollout)
            unmet["waits for canaries"] = not candidate.canary and self._canaries_first(rollout)
            unmet["waits for health"] = self._unhealthy(node, rollout)
        return next((why for why, is_so in unmet.items() if is_so), None)

    def turns(self, rounds: Sequence[Sequence[Candidate]]) -> list[Violation]:
        """Where one domain moves after another: no round has two of them, and none comes back."""
        found = []
        over: dict[str, list[str]] = {}
        """By id of the group: domains in the order in which they came; the last one may still move."""
        for members in rounds:
            now: dict[str, str] = {}
            for one in members:
                turn = self._turn(one)
                if turn is None:
                    continue
                group, value = turn
                came = over.setdefault(group, [])
                if now.setdefault(group, value) != value or value in came[:-1]:
                    found.append(Violation(self.name(one), f"moves when it is not the turn of {value}"))
                elif value not in came:
                    came.append(value)
        return found

    def _turn(self, candidate: Candidate) -> tuple[str, str] | None:
        """(id of its policy group, its domain), where it has to wait for a turn."""
        node = self.snapshot.nodes[candidate.node]
        group = self.groups[node.groups[0]] if node.groups else None
        if group is None or candidate.canary or leads_back(self.snapshot.rollouts[candidate.rollout]):
            return None
        policy = group.policy
        if not policy.one_domain_after_another or not policy.domain_label:
            return None
        return group.id, node.labels.get(policy.domain_label, "")

    def canaries(self, waves: Sequence[Sequence[Candidate]]) -> list[Violation]:
        """No other node of a rollout moves in a wave of its canaries or before them."""
        last = {one.rollout: number for number, wave in enumerate(waves) for one in wave if one.canary}
        return [
            Violation(self.name(one), "moves before the canaries of its rollout")
            for number, wave in enumerate(waves)
            for one in wave
            if not one.canary and number <= last.get(one.rollout, -1)
        ]

    def _exposures(self, back: bool) -> dict[str, tuple[int, int]]:
        found = {}
        for place, rollout in enumerate(self.snapshot.rollouts):
            if not rollout.direct and not leads_back(rollout):
                exposed = [node for node in self.snapshot.nodes if node.exposed_to == rollout.id and not node.absent]
                wanted = [one for one in self.snapshot.candidates if one.rollout == place]
                size = max(rollout.size, len(exposed) + len(wanted))
                found[rollout.id] = (0 if back else len(exposed), rollout.policy.max_unavailable.of(size))
        return found

    def _wrong_target(self, node: NodeView, candidate: Candidate) -> bool:
        rollout = self.snapshot.rollouts[candidate.rollout]
        if rollout.kind is RolloutKind.REBOOT:
            return False
        fitting = [
            target
            for target in rollout.targets
            if target.os_id == node.os_id and canonical_arch(target.arch) == canonical_arch(node.arch)
        ]
        if not fitting:
            return not leads_back(rollout)
        target = fitting[-1]
        if target.withdrawn or target.bad or (target.digest in node.failed and not candidate.override_failed):
            return True
        if leads_back(rollout):
            return False
        booted = version_key(node.version)
        older = version_key(target.version) < booted and not rollout.allow_downgrade
        passed = not target.must_pass or any(version_key(one) <= booted for one in target.must_pass)
        pinned = bool(node.pinned_to) and node.pin_digest != target.digest
        return older or not passed or node.version in target.not_from or pinned

    def _frozen(self, node: NodeView, rollout: RolloutView) -> bool:
        holds = [self.groups[id].frozen for id in node.groups]
        fleet = self.snapshot.fleet_hold
        if fleet is not None and fleet.code is not HoldCode.FREEZE:
            return True
        return not (leads_back(rollout) or rollout.break_glass) and any(hold is not None for hold in (*holds, fleet))

    def _too_early(self, node: NodeView, rollout: RolloutView) -> bool:
        if not node.groups:
            return False
        policy, now = self.groups[node.groups[0]].policy, self.snapshot.now
        young = any(
            policy.minimum_age_s > 0 and now < target.created_at + policy.minimum_age_s
            for target in rollout.targets
            if target.os_id == node.os_id and canonical_arch(target.arch) == canonical_arch(node.arch)
        )
        closed = not rollout.break_glass and not is_open(policy.windows, now)
        return closed or (young and rollout.kind is not RolloutKind.REBOOT)

    def _canaries_first(self, rollout: RolloutView) -> bool:
        soaked_at = rollout.canaries_soaked_at
        soaking = soaked_at is not None and self.snapshot.now < soaked_at + rollout.policy.canary_soak_s
        return not rollout.direct and (rollout.canaries_left > 0 or soaking)

    def _unhealthy(self, node: NodeView, rollout: RolloutView) -> bool:
        if rollout.gates or not node.groups or not node.healthy:
            return bool(rollout.gates)
        group = self.groups[node.groups[0]]
        members = [one for one in self.snapshot.nodes if group.id in one.groups and not one.absent]
        ill = [one for one in members if one.up and not one.healthy]
        return group.policy.health_gate and len(ill) > group.policy.failure_limit.of(len(members))


def _has_it(plan: Plan, place: int) -> bool:
    return place not in plan.holds or plan.holds[place].code is not HoldCode.OTHER_ROLLOUT


def leads_back(rollout: RolloutView) -> bool:
    return rollout.reverse or rollout.kind is RolloutKind.ROLLBACK or rollout.state is RolloutState.ROLLING_BACK


def _serves(node: NodeView, back: bool) -> bool:
    """Its replicas count; with `back`, those of a node that our own operation took away do too."""
    return node.up or (back and not node.absent and (node.reserved or node.on_trial))


def _placements(node: NodeView, back: bool) -> list[tuple[int, int]]:
    """What it serves; with `back`, when it has started again what it served before it booted too."""
    return [*node.placements, *(node.returning if back and node.up else ())]


def _taken(node: NodeView, service: int, back: bool) -> int:
    return sum(replicas for one, replicas in _placements(node, back) if one == service)


def _counts(node: NodeView, back: bool) -> bool:
    """It is there, as far as budgets are concerned."""
    if back and not node.absent and (node.reserved or node.on_trial):
        return True
    return not node.missing
