"""What each hold claims, defined a second time from the snapshot alone: nothing of the planner is used here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from app.core.holds import Hold, HoldCode
from app.core.image_match import canonical_arch
from app.core.plan import Plan
from app.core.plan_check import Budgets, check_admitted
from app.core.plan_facts import Facts, leads_back
from app.core.rollouts import RolloutKind, RolloutState
from app.core.snapshot import Candidate, GroupView, NodeView, RolloutView, Snapshot, TargetView
from app.core.versions import version_key
from app.core.windows import is_open

RUNNING = (RolloutState.RUNNING, RolloutState.ROLLING_BACK)
GOES_ON = (*RUNNING, RolloutState.DRAFT)
ROOM = (
    HoldCode.EXPOSURE,
    HoldCode.GROUP_BUDGET,
    HoldCode.DOMAIN_BUDGET,
    HoldCode.SINGLE_REPLICA,
    HoldCode.SERVICE_FLOOR,
)


class Case:
    """One candidate, with all that its holds may be about."""

    def __init__(self, snapshot: Snapshot, made: Plan, place: int) -> None:
        self.snapshot, self.made, self.place = snapshot, made, place
        self.candidate = snapshot.candidates[place]
        self.node: NodeView = snapshot.nodes[self.candidate.node]
        self.rollout: RolloutView = snapshot.rollouts[self.candidate.rollout]
        self.back = leads_back(self.rollout)
        groups = {group.id: group for group in snapshot.groups}
        self.groups = [groups[id] for id in self.node.groups]

    @property
    def target(self) -> TargetView | None:
        if self.rollout.kind is RolloutKind.REBOOT:
            return None
        fitting = [
            one
            for one in self.rollout.targets
            if one.os_id == self.node.os_id and canonical_arch(one.arch) == canonical_arch(self.node.arch)
        ]
        return fitting[-1] if fitting else None


def is_true(code: HoldCode, case: Case) -> bool:
    """Whether a hold of this code, which is not about room, is so for this candidate."""
    return _SO[code](case)


def lacks(case: Case, hold: Hold) -> bool:
    """Beside all that was admitted, or alone when everything of ours is back, this limit alone refuses this node."""
    facts = Facts(case.snapshot)
    for back in (False, True):
        beside = [] if back else [case.snapshot.candidates[place] for place in case.made.admitted]
        costs = [facts.costs(one, back=back) for one in (*beside, case.candidate)]
        refused = check_admitted(costs, _only(facts.budgets(back=back), case, hold))
        if refused and refused[-1].node == case.node.name:
            return True
    return False


def _only(budgets: Budgets, case: Case, hold: Hold) -> Budgets:
    """Of all limits the one that the hold is about."""
    none = replace(budgets, services={}, groups={}, domains={}, exposures={})
    if hold.code is HoldCode.EXPOSURE:
        assert hold.subject == case.rollout.id
        return replace(none, exposures={hold.subject: budgets.exposures[hold.subject]})
    if hold.code is HoldCode.GROUP_BUDGET:
        return replace(none, groups={hold.subject: budgets.groups[hold.subject]})
    if hold.code is HoldCode.DOMAIN_BUDGET:
        (group,) = [group for group in case.groups if group.id == hold.subject]
        domain = (group.id, case.node.labels.get(group.policy.domain_label, ""))
        return replace(none, domains={domain: budgets.domains[domain]})
    (service,) = [one for one in case.snapshot.services if "/".join(filter(None, one.key)) == hold.subject]
    assert (hold.code is HoldCode.SINGLE_REPLICA) == (service.expected <= 1)
    return replace(none, services={service.key: budgets.services[service.key]})


def _other_rollout(case: Case) -> bool:
    """Another one wants the node and comes before it: a draft last, who has ordered it first, then who runs, an order
    to one node, a way back, the older."""
    mine = [one for one in case.snapshot.candidates if one.node == case.candidate.node]

    def rank(one: Candidate) -> tuple[object, ...]:
        rollout = case.snapshot.rollouts[one.rollout]
        draft, runs = rollout.state is RolloutState.DRAFT, rollout.state in RUNNING
        later = (not rollout.direct, not leads_back(rollout), rollout.created_at, rollout.id)
        return (draft, not one.operation_id, not runs, *later)

    return min(mine, key=rank) is not case.candidate


def _version_edge(case: Case) -> bool:
    target, booted = case.target, version_key(case.node.version)
    if target is None or case.back:
        return False
    skips = bool(target.must_pass) and all(booted < version_key(one) for one in target.must_pass)
    return skips or case.node.version in target.not_from


def _downgrade(case: Case) -> bool:
    target = case.target
    if target is None or case.back or case.rollout.allow_downgrade:
        return False
    return version_key(target.version) < version_key(case.node.version)


def _failed_here(case: Case) -> bool:
    return case.target is not None and case.target.digest in case.node.failed and not case.candidate.override_failed


def _pinned(case: Case) -> bool:
    node, target = case.node, case.target
    return target is not None and not case.back and bool(node.pinned_to) and node.pin_digest != target.digest


def _no_image(case: Case) -> bool:
    return case.rollout.kind is not RolloutKind.REBOOT and case.target is None and not case.back


def _freeze(case: Case) -> bool:
    frozen = [case.snapshot.fleet_hold, *(group.frozen for group in case.groups)]
    return any(frozen) and not case.back and not case.rollout.break_glass


def _window(case: Case) -> bool:
    if case.back or case.rollout.break_glass:
        return False
    return not is_open(case.groups[0].policy.windows, case.snapshot.now)


def _minimum_age(case: Case) -> bool:
    if case.target is None or case.back:
        return False
    return case.snapshot.now - case.target.created_at < case.groups[0].policy.minimum_age_s


def _canaries(case: Case) -> bool:
    rollout = case.rollout
    if case.candidate.canary or rollout.direct or case.back:
        return False
    soaked_at = rollout.canaries_soaked_at
    soaks = soaked_at is not None and case.snapshot.now - soaked_at < rollout.policy.canary_soak_s
    return rollout.canaries_left > 0 or soaks


def _domain_order(case: Case) -> bool:
    """A node of another domain is under way, or can go before it."""
    group = case.groups[0]
    label = group.policy.domain_label
    if case.candidate.canary or case.back or not (label and group.policy.one_domain_after_another):
        return False
    under_way, mine = _under_way(case.snapshot, group), case.node.labels.get(label, "")
    if under_way:
        return mine != min(under_way)
    before = [_case for _case in _others(case) if not (_case.back or _case.candidate.canary)]
    return any(
        one.groups[0] is group and one.node.labels.get(label, "") < mine and one.rollout.state in RUNNING
        for one in before
        if not any(_SO[code](one) for code in FOR_GOOD)
    )


def _under_way(snapshot: Snapshot, group: GroupView) -> set[str]:
    members = [one for one in snapshot.nodes if group.id in one.groups and not one.absent]
    moving = [one for one in members if one.reserved or one.on_trial or one.exposed_to]
    return {one.labels.get(group.policy.domain_label, "") for one in moving}


def _others(case: Case) -> list[Case]:
    places = range(len(case.snapshot.candidates))
    return [Case(case.snapshot, case.made, place) for place in places if place != case.place]


def _health_gate(case: Case) -> bool:
    if case.back or case.rollout.gates:
        return not case.back
    group = case.groups[0]
    if not case.node.healthy:
        return False
    members = [one for one in case.snapshot.nodes if group.id in one.groups and not one.absent]
    ill = [one for one in members if one.up and not one.healthy]
    return group.policy.health_gate and len(ill) > group.policy.failure_limit.of(len(members))


_SO: dict[HoldCode, Callable[[Case], bool]] = {
    HoldCode.NOT_COMMANDABLE: lambda case: not case.node.commandable,
    HoldCode.ABSENT: lambda case: case.node.absent,
    HoldCode.OFFLINE: lambda case: not case.node.online,
    HoldCode.OTHER_ROLLOUT: _other_rollout,
    HoldCode.NO_IMAGE: _no_image,
    HoldCode.PINNED: _pinned,
    HoldCode.VERSION_EDGE: _version_edge,
    HoldCode.DOWNGRADE: _downgrade,
    HoldCode.WITHDRAWN: lambda case: case.target is not None and case.target.withdrawn,
    HoldCode.BAD_VERSION: lambda case: case.target is not None and bool(case.target.bad),
    HoldCode.FAILED_HERE: _failed_here,
    HoldCode.KEEPING_WAY_BACK: lambda case: case.candidate.kept is not None and not case.back,
    HoldCode.NOT_RUNNING: lambda case: case.rollout.state not in RUNNING,
    HoldCode.FREEZE: _freeze,
    HoldCode.WINDOW: _window,
    HoldCode.MINIMUM_AGE: _minimum_age,
    HoldCode.NOT_READY: lambda case: not case.candidate.ready,
    HoldCode.CANARIES: _canaries,
    HoldCode.DOMAIN_ORDER: _domain_order,
    HoldCode.PLACEMENT_UNKNOWN: lambda case: (
        case.node.up and not case.node.placement_known and not case.candidate.override_floor
    ),
    HoldCode.HEALTH_GATE: _health_gate,
}
FOR_GOOD = tuple(_SO)[: list(_SO).index(HoldCode.NOT_RUNNING)]
"""What time does not change, in the order of the chain."""
GATES = tuple(_SO)[: list(_SO).index(HoldCode.DOMAIN_ORDER)]
"""What a node meets whatever the others do, in the order of the chain."""
