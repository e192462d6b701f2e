"""How much more may go away: floors of services, budgets of groups and domains, exposure of rollouts, as one list of
numbers from which each admitted node takes its part."""

from __future__ import annotations

from app.core.holds import Hold, HoldCode
from app.core.planning.gates import Gates
from app.core.planning.standing import UNBOUND, Standing, floor_of, leads_back
from app.core.planning.words import counted, named, service_name
from app.core.snapshot import Candidate, NodeView

Cost = tuple[int, int]
"""(index of what limits, how much of it is taken)."""


class Room:
    """What is left beyond what is away already. Indexes: services first, then groups, domains and rollouts, each in the
    order of the Standing; a number below what a node needs holds that node."""

    def __init__(self, standing: Standing, gates: Gates) -> None:
        self.standing, self.gates = standing, gates
        self.groups_at = len(standing.services)
        self.domains_at = self.groups_at + len(standing.groups)
        self.rollouts_at = self.domains_at + len(standing.domain_names)
        self.admitted: list[int] = []
        """Nodes that took their part."""
        self.limits = self._limits()
        self.left = self._left()
        self._said: dict[tuple[int, int, int], Hold] = {}
        self._domain: dict[int, int | None] = {}
        self._carriers: dict[int, list[tuple[str, int]]] | None = None

    def costs(self, candidate: Candidate) -> list[Cost]:
        """What it takes: in the order of the chain, services last. What is counted down already takes no more."""
        node = self.standing.nodes[candidate.node]
        taken: list[Cost] = []
        if node.exposed_to != self.standing.rollouts[candidate.rollout].id:
            taken.append((self.rollouts_at + candidate.rollout, 1))
        if not node.missing:
            taken += [(self.groups_at + group, 1) for group in self.standing.memberships[candidate.node]]
            taken += [(self.domains_at + domain, 1) for domain in self.standing.domains[candidate.node]]
        if node.up:
            taken += node.placements
        return taken

    def hold(self, candidate: Candidate, costs: list[Cost]) -> Hold | None:
        """The first reason of the chain for which this node has no room; None: it fits."""
        left, services = self.left, self.groups_at
        lacking = [cost for cost in costs if left[cost[0]] < cost[1]]
        for what, needed in lacking:
            if what >= services:
                return self._budget(what, needed)
        ordered = self._domain_order(candidate)
        if ordered is not None or candidate.override_floor:
            return ordered
        node = self.standing.nodes[candidate.node]
        if node.up and not node.placement_known:
            return Hold(HoldCode.PLACEMENT_UNKNOWN, "what runs on it is not known, and it may be a service", node.id)
        return self._floor(lacking) if lacking else None

    def take(self, candidate: Candidate, costs: list[Cost]) -> None:
        for what, needed in costs:
            self.left[what] -= needed
        self.admitted.append(candidate.node)
        if self._carriers is not None:
            self._carry(candidate.node, self._carriers)

    def hopeless(self, node: NodeView) -> int | None:
        """Index of a service whose floor would break without this node even with everything up; None: there is none."""
        if not node.up:
            return None
        for service, replicas in node.placements:
            floor = floor_of(self.standing.services[service])
            if floor is not None and replicas and self.potential(service) - replicas < floor:
                return service
        return None

    def potential(self, service: int) -> int:
        """Replicas of it that would be healthy with every node up."""
        seen = self.standing.available[service] + self.standing.away[service]
        return max(seen, self.standing.services[service].expected)

    def can_still_move(self, place: int) -> bool:
        """Whether time and the moves of others are all that this candidate needs."""
        candidate = self.standing.candidates[place]
        if self.gates.standing_order(place) or self.gates.not_running(self.standing.rollouts[candidate.rollout]):
            return False
        timed = self.gates.timed(candidate.rollout, candidate.node)
        if timed is not None and timed.until is None:
            return False
        node = self.standing.nodes[candidate.node]
        if candidate.override_floor or not node.up:
            return True
        return node.placement_known and self.hopeless(node) is None

    def _limits(self) -> list[int]:
        """Of groups, domains and rollouts, after zeros for the services."""
        standing = self.standing
        limits = [0] * self.groups_at
        for group, size in zip(standing.groups, standing.size, strict=True):
            limits.append(group.policy.max_unavailable.of(size))
        limits += [standing.groups[group].policy.max_per_domain or UNBOUND for group, _ in standing.domain_names]
        known = [0] * len(standing.rollouts)
        for candidate in standing.candidates:
            known[candidate.rollout] += 1
        for rollout, wanted in zip(standing.rollouts, known, strict=True):
            size = max(rollout.size, wanted + standing.exposed[rollout.id])
            bound = not rollout.direct and not leads_back(rollout)
            limits.append(rollout.policy.max_unavailable.of(size) if bound else UNBOUND)
        return limits

    def _left(self) -> list[int]:
        standing = self.standing
        left = []
        for service, available in zip(standing.services, standing.available, strict=True):
            floor = floor_of(service)
            left.append(UNBOUND if floor is None else available - floor)
        exposed = [standing.exposed[rollout.id] for rollout in standing.rollouts]
        used = standing.missing + standing.domain_missing + exposed
        left += [limit - taken for limit, taken in zip(self.limits[self.groups_at :], used, strict=True)]
        return left

    def _budget(self, what: int, needed: int) -> Hold:
        key = (what, needed, self.left[what])
        if key not in self._said:
            self._said[key] = self._worded_budget(what)
        return self._said[key]

    def _worded_budget(self, what: int) -> Hold:
        limit = self.limits[what]
        used = limit - self.left[what]
        if what >= self.rollouts_at:
            rollout = self.standing.rollouts[what - self.rollouts_at]
            text = f"waits for {rollout.name}: {counted(used, 'node')} on trial or soaking, at most {limit:,}"
            return Hold(HoldCode.EXPOSURE, text, rollout.id)
        if what >= self.domains_at:
            place, value = self.standing.domain_names[what - self.domains_at]
            group = self.standing.groups[place]
            domain = f"{group.policy.domain_label} {value}" if value else f"no {group.policy.domain_label}"
            text = f"waits for {domain} of group {group.name}: {counted(used, 'node')} away, at most {limit:,}"
            return Hold(HoldCode.DOMAIN_BUDGET, text, group.id)
        group = self.standing.groups[what - self.groups_at]
        text = f"waits for the budget of group {group.name}: {counted(used, 'node')} away, at most {limit:,}"
        return Hold(HoldCode.GROUP_BUDGET, text, group.id)

    def _domain_order(self, candidate: Candidate) -> Hold | None:
        standing = self.standing
        for domain in standing.domains[candidate.node]:
            group = standing.domain_names[domain][0]
            policy = standing.groups[group].policy
            if not policy.one_domain_after_another or leads_back(standing.rollouts[candidate.rollout]):
                continue
            current = self._current_domain(group)
            if current is not None and current != domain:
                value = standing.domain_names[current][1] or "(none)"
                text = (
                    f"waits for {policy.domain_label} {value}: group {standing.groups[group].name} moves one at a time"
                )
                return Hold(HoldCode.DOMAIN_ORDER, text, standing.groups[group].id)
        return None

    def _current_domain(self, group: int) -> int | None:
        """The one with nodes under way, else the first by name in which a node can still move."""
        if group not in self._domain:
            standing = self.standing
            mine = [place for place, (owner, _) in enumerate(standing.domain_names) if owner == group]
            mine.sort(key=lambda place: standing.domain_names[place][1])
            under_way = (place for place in mine if standing.domain_under_way[place])
            self._domain[group] = next(under_way, None)
            if self._domain[group] is None:
                self._domain[group] = self._first_moving(mine)
        return self._domain[group]

    def _first_moving(self, domains: list[int]) -> int | None:
        rank = {domain: place for place, domain in enumerate(domains)}
        best = len(domains)
        for place, candidate in enumerate(self.standing.candidates):
            for domain in self.standing.domains[candidate.node]:
                if rank.get(domain, best) < best and self.can_still_move(place):
                    best = rank[domain]
            if best == 0:
                break
        return domains[best] if best < len(domains) else None

    def _floor(self, lacking: list[Cost]) -> Hold:
        """Of several services the single replica speaks, else the one that lacks most."""
        services = self.standing.services
        service, needed = min(
            lacking, key=lambda cost: (services[cost[0]].expected > 1, self.left[cost[0]] - cost[1], cost[0])
        )
        key = (service, needed, self.left[service])
        if key not in self._said:
            self._said[key] = self._worded_floor(service, needed)
        return self._said[key]

    def _worded_floor(self, service: int, needed: int) -> Hold:
        view = self.standing.services[service]
        name, floor = service_name(view.key), floor_of(view)
        assert floor is not None, "without a floor there is room"
        if view.expected <= 1:
            text = f"runs the single replica of {name}, which may not move without an allowance"
            return Hold(HoldCode.SINGLE_REPLICA, text, name)
        have = floor + self.left[service]
        text = f"waits for {name}: {have:,} of {counted(view.expected, 'replica')} left, floor {floor:,}"
        return Hold(HoldCode.SERVICE_FLOOR, text + self._frees(service, needed - self.left[service]), name)

    def _frees(self, service: int, short: int) -> str:
        """Which nodes' return makes up for `short` replicas, where one or all of them do."""
        if self._carriers is None:
            self._carriers = {}
            for place in [*self.standing.not_up, *self.admitted]:
                self._carry(place, self._carriers)
        away = sorted(self._carriers.get(service, ()))
        alone = [name for name, replicas in away if replicas >= short]
        if alone:
            return f"; free when {alone[0]} is back"
        if sum(replicas for _, replicas in away) >= short:
            return f"; free when {named([name for name, _ in away])} are back"
        return ""

    def _carry(self, place: int, carriers: dict[int, list[tuple[str, int]]]) -> None:
        node = self.standing.nodes[place]
        for service, replicas in node.placements:
            if replicas:
                carriers.setdefault(service, []).append((node.name, replicas))
