"""How much more may go away: floors of services, budgets of groups and domains, exposure of rollouts, as one list of
numbers from which each admitted node takes its part."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.holds import Hold, HoldCode
from app.core.planning.gates import Gates
from app.core.planning.standing import UNBOUND, Standing, floor_of
from app.core.planning.words import counted, missed, named, service_name
from app.core.rollouts import ACTIVE
from app.core.snapshot import Candidate

Cost = tuple[int, int]
"""(index of what limits, how much of it is taken)."""
Costs = tuple[Sequence[Cost], Sequence[Cost]]
"""What a node takes of budgets, in the order of the chain, and of services."""


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
        self.freed = self._freed()
        """By index of a rollout: services whose single replica its nodes may take."""
        self.spare = self._spare()
        """Of services: replicas above the floor with everything up."""
        self.limits = self._limits()
        self.left = self._left()
        self._budgets: dict[tuple[int, tuple[int, ...], tuple[int, ...]], list[Cost]] = {}
        self._said: dict[tuple[int, int, int], Hold] = {}
        self._domain: dict[int, int | None] = {}
        """Of groups that move one domain after another: the one whose turn it is."""
        self._carriers: dict[int, list[tuple[str, int]]] | None = None

    def costs(self, candidate: Candidate) -> Costs:
        """What it takes. What is counted down already takes no more."""
        node, rollout = self.standing.nodes[candidate.node], candidate.rollout
        exposes = node.exposed_to != self.standing.rollouts[rollout].id
        up = node.up
        missing = not up or not node.healthy
        taken = self.budgets(candidate.node, rollout if exposes else -1, counts=not missing or node.absent)
        return taken, node.placements if up else ()

    def budgets(self, place: int, rollout: int, *, counts: bool) -> list[Cost]:
        """One of the exposure of this rollout (-1: of none), and where it counts one of each group and domain."""
        memberships = self.standing.memberships[place] if counts else ()
        domains = self.standing.domains[place] if counts else ()
        key = (rollout, memberships, domains)
        if key not in self._budgets:
            exposure = [(self.rollouts_at + rollout, 1)] if rollout >= 0 else []
            groups = [(self.groups_at + group, 1) for group in memberships]
            self._budgets[key] = [*exposure, *groups, *((self.domains_at + domain, 1) for domain in domains)]
        return self._budgets[key]

    def hold(self, candidate: Candidate, costs: Costs) -> Hold | None:
        """The first reason of the chain for which this node has no room; None: it fits."""
        left = self.left
        budgets, services = costs
        for what, needed in budgets:
            if left[what] < needed:
                return self._budget(what, needed)
        ordered = self._domain_order(candidate)
        if ordered is not None or candidate.override_floor:
            return ordered
        node = self.standing.nodes[candidate.node]
        if node.up and not node.placement_known:
            return Hold(HoldCode.PLACEMENT_UNKNOWN, "what runs on it is not known, and it may be a service", node.id)
        # below its floor, 0 still costs nothing
        lacking = [cost for cost in self.bound(candidate, services) if left[cost[0]] < cost[1] and cost[1]]
        return self._floor(lacking) if lacking else None

    def take(self, candidate: Candidate, costs: Costs) -> None:
        for part in costs:
            for what, needed in part:
                self.left[what] -= needed
        self.admitted.append(candidate.node)
        if self._carriers is not None:
            self._carry(candidate.node, self._carriers)

    def bound(self, candidate: Candidate, services: Sequence[Cost]) -> Sequence[Cost]:
        """Of what it takes that for which floors count: not single replicas that its rollout may move."""
        freed = self.freed.get(candidate.rollout)
        return services if freed is None else [cost for cost in services if cost[0] not in freed]

    def hopeless(self, candidate: Candidate) -> bool:
        """Whether some floor would break without this node even with everything up."""
        spare, node = self.spare, self.standing.nodes[candidate.node]
        placements = self.bound(candidate, node.placements)
        return node.up and any(replicas > spare[service] and replicas for service, replicas in placements)

    def can_still_move(self, place: int) -> bool:
        """Whether a running rollout, time and the moves of others are all that this candidate needs."""
        candidate = self.standing.candidates[place]
        hopeless = not candidate.override_floor and self.hopeless(candidate)
        return not hopeless and self.may_move(place)

    def may_move(self, place: int) -> bool:
        """As `can_still_move`, whatever the floors of the services that are known to run on it."""
        candidate = self.standing.candidates[place]
        if self.gates.standing_order(place) or self.gates.endless(candidate.rollout, candidate.node):
            return False
        node = self.standing.nodes[candidate.node]
        return node.placement_known or candidate.override_floor or not node.up

    def _freed(self) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        allowed = [place for place, service in enumerate(self.standing.services) if service.allowed_for]
        places = {rollout.id: place for place, rollout in enumerate(self.standing.rollouts)} if allowed else {}
        for service in allowed:
            view = self.standing.services[service]
            for rollout_id in view.allowed_for if view.expected <= 1 else ():
                if rollout_id in places:
                    found.setdefault(places[rollout_id], set()).add(service)
        return found

    def _spare(self) -> list[int]:
        floors = ((service.expected, floor_of(service)) for service in self.standing.services)
        return [expected - floor if floor else UNBOUND for expected, floor in floors]

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
        for rollout, back, wanted in zip(standing.rollouts, standing.back, known, strict=True):
            size = max(rollout.size, wanted + standing.exposed[rollout.id])
            bound = not rollout.direct and not back
            limits.append(rollout.policy.max_unavailable.of(size) if bound else UNBOUND)
        return limits

    def _left(self) -> list[int]:
        standing = self.standing
        left = self.of_services(standing.available, standing.reserved)
        exposed = [standing.exposed[rollout.id] for rollout in standing.rollouts]
        used = standing.missing + standing.domain_missing + exposed
        left += [limit - taken for limit, taken in zip(self.limits[self.groups_at :], used, strict=True)]
        return left

    def of_services(self, healthy: Sequence[int], reserved: Sequence[int]) -> list[int]:
        """How many replicas of each may go. More than the expected ones do not count: in the middle of a move the old
        one may end at any moment, and what a lease took does not come back because one more was seen elsewhere."""
        left = []
        for service, number, taken in zip(self.standing.services, healthy, reserved, strict=True):
            floor = floor_of(service)
            counted = min(number, service.expected - taken) if floor else number  # nothing falls below a floor of none
            left.append(UNBOUND if floor is None else counted - floor)
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
            missing = missed(used, self.standing.domain_unhealthy[what - self.domains_at])
            text = f"waits for {domain} of {group.words}: {missing}, at most {limit:,}"
            return Hold(HoldCode.DOMAIN_BUDGET, text, group.id)
        group = self.standing.groups[what - self.groups_at]
        missing = missed(used, self.standing.unhealthy[what - self.groups_at])
        text = f"waits for the budget of {group.words}: {missing}, at most {limit:,}"
        return Hold(HoldCode.GROUP_BUDGET, text, group.id)

    def _domain_order(self, candidate: Candidate) -> Hold | None:
        standing = self.standing
        domain = self.ordered_domain(candidate)
        if domain is None:
            return None
        place, _ = standing.domain_names[domain]
        current = self._current_domain(place)
        if current is None or current == domain:
            return None
        group = standing.groups[place]
        label, value = group.policy.domain_label, standing.domain_names[current][1] or "(none)"
        text = f"waits for {label} {value}: group {group.name} moves one {label} after another"
        return Hold(HoldCode.DOMAIN_ORDER, text, group.id)

    def ordered_domain(self, candidate: Candidate) -> int | None:
        """The domain in whose turn it goes: by its policy group alone, so that two orders never wait for each other.
        Canaries go before all turns, ways back beside them."""
        standing = self.standing
        memberships = standing.memberships[candidate.node]
        if not memberships or candidate.canary or standing.back[candidate.rollout]:
            return None
        if not standing.groups[memberships[0]].policy.one_domain_after_another:
            return None
        mine = (
            domain for domain in standing.domains[candidate.node] if standing.domain_names[domain][0] == memberships[0]
        )
        return next(mine, None)

    def turns(self, group: int) -> list[int]:
        """Its domains in the order of their turns: those with nodes under way first, then by name."""
        standing = self.standing
        mine = [place for place, (owner, _) in enumerate(standing.domain_names) if owner == group]
        return sorted(mine, key=lambda place: (not standing.domain_under_way[place], standing.domain_names[place][1]))

    def _current_domain(self, group: int) -> int | None:
        """The one with nodes under way, else the first in which a node can still move."""
        if group not in self._domain:
            turns = self.turns(group)
            under_way = turns and self.standing.domain_under_way[turns[0]]
            self._domain[group] = turns[0] if under_way else self._first_moving(turns)
        return self._domain[group]

    def _first_moving(self, turns: list[int]) -> int | None:
        rank: dict[int | None, int] = {domain: place for place, domain in enumerate(turns)}
        best = len(turns)
        for place, candidate in enumerate(self.standing.candidates):
            turn = rank.get(self.ordered_domain(candidate), best)
            running = self.standing.rollouts[candidate.rollout].state in ACTIVE
            if turn < best and running and self.can_still_move(place):
                best = turn
            if best == 0:
                break
        return turns[best] if best < len(turns) else None

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
        left = f"{floor + self.left[service] - needed:,} of {view.expected:,} replicas"
        text = f"waits for {name}: without it {left} would be left, floor {floor:,}"
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
