"""Where the fleet stands: a snapshot with its sums, brought up to date by what changed instead of built anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from app.core.holds import Hold
from app.core.rollouts import ACTIVE, RolloutKind, RolloutState
from app.core.snapshot import Candidate, GroupView, NodeView, RolloutView, ServiceView, Snapshot

UNBOUND = 1 << 60
"""Room of what has no limit."""


def leads_back(rollout: RolloutView) -> bool:
    """Gates do not bind it (rule 7)."""
    return rollout.reverse or rollout.kind is RolloutKind.ROLLBACK or rollout.state is RolloutState.ROLLING_BACK


def floor_of(service: ServiceView) -> int | None:
    """The floor that binds; None: there is none. An allowance frees a single replica and nothing else."""
    return 0 if service.floor is not None and service.allowed and service.expected <= 1 else service.floor


class Standing:
    """Nodes keep their indexes for its whole life; new ones are added at the end.

    Counted for each service: replicas on nodes that are up; for each group and domain: members that are missing; for
    each rollout: nodes that are exposed to it.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.now = snapshot.now
        self.fleet_hold = snapshot.fleet_hold
        self.rollouts: Sequence[RolloutView] = snapshot.rollouts
        self.back = [leads_back(rollout) for rollout in snapshot.rollouts]
        """Of each rollout: whether it leads back."""
        self.candidates: Sequence[Candidate] = snapshot.candidates
        self.holders = _holders(self.candidates, self.rollouts)
        self._wanted = {candidate.node for candidate in snapshot.candidates}
        self.services: Sequence[ServiceView] = snapshot.services
        self.groups: Sequence[GroupView] = snapshot.groups
        self._build(snapshot.nodes, snapshot.services, snapshot.groups)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Standing:
        return cls(snapshot)

    def replace_nodes(self, changed: Iterable[NodeView]) -> None:
        """Nodes as they are now; those with a new id are added. Services and groups that they name are known already; a
        node that is gone needs a new Standing."""
        for node in changed:
            place = self._place.get(node.id)
            if place is None:
                self._add(node)
                continue
            before = self.nodes[place]
            self._count(place, before, -1)
            self.nodes[place] = node
            if before.groups != node.groups or before.labels != node.labels:
                self._enrol(place, node)
            self._count(place, node, 1)

    def replace_rest(
        self,
        rollouts: Sequence[RolloutView],
        candidates: Sequence[Candidate],
        groups: Sequence[GroupView],
        services: Sequence[ServiceView],
        now: float,
        fleet_hold: Hold | None = None,
    ) -> None:
        """Everything but the nodes, as it is now. Services keep their indexes: new ones are added at the end."""
        rebuild = len(services) != len(self.services) or _shape(groups) != _shape(self.groups)
        self.rollouts, self.now, self.fleet_hold = rollouts, now, fleet_hold
        self.candidates = candidates
        self.back = [leads_back(rollout) for rollout in rollouts]
        self.holders = _holders(candidates, rollouts)
        wanted = {candidate.node for candidate in candidates}
        if not rebuild:
            self._want(self._wanted - wanted, -1)
            self._want(wanted - self._wanted, 1)
        self._wanted = wanted
        if rebuild:
            self._build(self.nodes, services, groups)
        else:
            self.services, self.groups = services, groups

    def snapshot(self) -> Snapshot:
        """As it stands, with the same indexes."""
        return Snapshot(
            now=self.now,
            nodes=tuple(self.nodes),
            services=tuple(self.services),
            groups=tuple(self.groups),
            rollouts=tuple(self.rollouts),
            candidates=tuple(self.candidates),
            fleet_hold=self.fleet_hold,
        )

    def _build(self, nodes: Iterable[NodeView], services: Sequence[ServiceView], groups: Sequence[GroupView]) -> None:
        self.services, self.groups = services, groups
        self.group_place = {group.id: place for place, group in enumerate(groups)}
        self.nodes: list[NodeView] = []
        self._place: dict[str, int] = {}
        self.memberships: list[tuple[int, ...]] = []
        """Of each node: indexes of its groups."""
        self.domains: list[tuple[int, ...]] = []
        """Of each node: indexes into `domain_names`, for those of its groups that have domains."""
        self.domain_names: list[tuple[int, str]] = []
        """(index of a group, value of its domain label); empty value: its nodes without the label."""
        self._domain_place: dict[tuple[int, str], int] = {}
        self._members: dict[tuple[str, ...], tuple[int, ...]] = {}
        self._shared: dict[tuple[int, ...], tuple[int, ...]] = {}
        """Tuples that thousands of nodes have in common, each once."""
        self.available = [0] * len(services)
        self.reserved = [0] * len(services)
        """Of each service: replicas that leases have taken."""
        self.wanted = [0] * len(services)
        """Of each service: replicas on nodes that are up and that a rollout wants to move."""
        self.not_up: set[int] = set()
        """Nodes that are neither up nor absent."""
        self.size = [0] * len(groups)
        self.missing = [0] * len(groups)
        self.unhealthy = [0] * len(groups)
        self.domain_missing: list[int] = []
        self.domain_unhealthy: list[int] = []
        self.domain_under_way: list[int] = []
        """Nodes of it that are reserved, on trial or exposed."""
        self.exposed: Counter[str] = Counter()
        for node in nodes:
            self._add(node)

    def _add(self, node: NodeView) -> None:
        place = len(self.nodes)
        self._place[node.id] = place
        self.nodes.append(node)
        self.memberships.append(())
        self.domains.append(())
        self._enrol(place, node)
        self._count(place, node, 1)

    def _enrol(self, place: int, node: NodeView) -> None:
        memberships = self._members.get(node.groups)
        if memberships is None:
            memberships = self._members[node.groups] = tuple([self.group_place[id] for id in node.groups])
        self.memberships[place] = memberships
        domains = []
        for group in memberships:
            label = self.groups[group].policy.domain_label
            if label:
                domains.append(self._domain((group, node.labels.get(label, ""))))
        shared = tuple(domains)
        self.domains[place] = self._shared.setdefault(shared, shared)

    def _domain(self, name: tuple[int, str]) -> int:
        place = self._domain_place.get(name)
        if place is None:
            place = self._domain_place[name] = len(self.domain_names)
            self.domain_names.append(name)
            self.domain_missing.append(0)
            self.domain_unhealthy.append(0)
            self.domain_under_way.append(0)
        return place

    def _want(self, nodes: Iterable[int], sign: int) -> None:
        wanted = self.wanted
        for place in nodes:
            if self.nodes[place].up:
                for service, replicas in self.nodes[place].placements:
                    wanted[service] += sign * replicas

    def _count(self, place: int, node: NodeView, sign: int) -> None:
        """Add the node to the sums, or with -1 take it out again."""
        if node.absent:
            return
        up = node.up
        unhealthy = up and not node.healthy
        missing = not up or unhealthy
        if up or node.reserved:
            sums = self.available if up else self.reserved
            for service, replicas in node.placements:
                sums[service] += sign * replicas
        if up and place in self._wanted:
            for service, replicas in node.placements:
                self.wanted[service] += sign * replicas
        if not up:
            (self.not_up.add if sign > 0 else self.not_up.discard)(place)
        if node.exposed_to:
            self.exposed[node.exposed_to] += sign
        for group in self.memberships[place]:
            self.size[group] += sign
            self.missing[group] += sign * missing
            self.unhealthy[group] += sign * unhealthy
        under_way = node.reserved or node.on_trial or bool(node.exposed_to)
        for domain in self.domains[place]:
            self.domain_missing[domain] += sign * missing
            self.domain_unhealthy[domain] += sign * unhealthy
            self.domain_under_way[domain] += sign * under_way


def _shape(groups: Sequence[GroupView]) -> list[tuple[str, str]]:
    return [(group.id, group.policy.domain_label) for group in groups]


def precedence(rollout: RolloutView) -> tuple[bool, bool, float, str]:
    """Whose nodes go first: an operator's order to one node, then ways back, then the older rollout."""
    return (not rollout.direct, not leads_back(rollout), rollout.created_at, rollout.id)


def _holders(candidates: Sequence[Candidate], rollouts: Sequence[RolloutView]) -> dict[int, int]:
    """For nodes that several want: index of the candidate that has it. One that is ordered already keeps its node; a
    rollout that does not run, and least of all a draft, has none as long as another wants it."""
    first: dict[int, int] = {}
    shared: dict[int, int] = {}
    for place, candidate in enumerate(candidates):
        other = first.setdefault(candidate.node, place)
        if other != place:
            best = shared.get(candidate.node, other)
            rank = _claim(candidate, rollouts) < _claim(candidates[best], rollouts)
            shared[candidate.node] = place if rank else best
    return shared


def _claim(candidate: Candidate, rollouts: Sequence[RolloutView]) -> tuple[bool, bool, bool, tuple[object, ...]]:
    rollout = rollouts[candidate.rollout]
    idle = rollout.state not in ACTIVE
    return (rollout.state is RolloutState.DRAFT, not candidate.operation_id, idle, precedence(rollout))
