"""The waves in which all that can still move would move, if what goes away comes back healthy each time. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from app.core.plan import Wave
from app.core.planning.gates import Gates
from app.core.planning.packing import Grid, Item, pack
from app.core.planning.room import Costs, Room
from app.core.planning.standing import UNBOUND, Standing, leads_back, precedence
from app.core.rollouts import ACTIVE, RolloutState
from app.core.snapshot import Candidate, NodeView

IN_FORECAST = ACTIVE | {RolloutState.DRAFT}


@dataclass(slots=True)
class Forecast:
    limits: list[int]
    """As one wave has them, in the order of the Room: what our own operations took away is back by then."""
    wave_of: dict[int, int] = field(default_factory=dict)
    """By index of the candidate; waves from 1. Who is not in it moves only when something else changes."""
    waves: tuple[Wave, ...] = ()
    peaks: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By index of a service with a floor: the most replicas that one wave takes, and that wave."""
    freed: set[int] = field(default_factory=set)
    """Services whose single replica some wave takes because a rollout may."""
    stuck: list[int] = field(default_factory=list)
    """Rollouts of which no canary can move, so that none of their other nodes will."""


def forecast(standing: Standing, gates: Gates, room: Room) -> Forecast:
    """`room`: before anything was admitted."""
    return _Forecaster(standing, gates, room).run()


def by_our_doing(node: NodeView) -> bool:
    """Away, and expected back: reserved, or on its way into a new slot."""
    return not node.absent and (node.reserved or node.on_trial)


def costs_in_a_wave(room: Room, candidate: Candidate) -> Costs:
    """What it takes in its wave, as far as that is bound; a node that our own operation took away counts as back
    before."""
    node = room.standing.nodes[candidate.node]
    if by_our_doing(node):
        return room.budgets(candidate.node, candidate.rollout, counts=True), room.bound(candidate, node.placements)
    budgets, _ = room.costs(candidate)
    return budgets, room.bound(candidate, node.placements_back if node.up else ())


def limits_of_a_wave(room: Room) -> list[int]:
    """What one wave has of each limit, in the order of the Room: also with what starts again on nodes that came back
    moments ago, for a wave is minutes away."""
    standing = room.standing
    limits = room.left.copy()
    limits[room.rollouts_at :] = room.limits[room.rollouts_at :]
    healthy = standing.available.copy()
    for place in standing.not_up:
        node = standing.nodes[place]
        if by_our_doing(node):
            for service, replicas in node.placements:
                healthy[service] += replicas
            for group in standing.memberships[place]:
                limits[room.groups_at + group] += 1
            for domain in standing.domains[place]:
                limits[room.domains_at + domain] += 1
    for node in standing.nodes:
        if node.returning and node.up:
            for service, replicas in node.returning:
                healthy[service] += replicas
    limits[: room.groups_at] = room.of_services(healthy, [0] * len(healthy))
    return limits


class _Forecaster:
    def __init__(self, standing: Standing, gates: Gates, room: Room) -> None:
        self.standing, self.gates, self.room = standing, gates, room
        self.made = Forecast(limits_of_a_wave(room))
        self.grid = Grid(self.made.limits)
        self.items: dict[int, Item] = {}
        """Of each candidate that can still move."""
        self.below: list[int] = []
        """Those that go below a floor in any wave, because an operator lets them."""

    def run(self) -> Forecast:
        """Canaries first; then in turn by domain where domains take turns, and by rollout; each stage into what the
        ones before it left of the waves."""
        self._collect()
        canaries_end = self._canaries()
        ends: dict[tuple[int, int], int] = {}
        for (turn, _, rollout, group), places in sorted(self._stages().items()):
            if rollout in self.made.stuck:
                continue
            before = (end for (other, earlier), end in ends.items() if other == group and earlier < turn)
            end = self._put(places, max(canaries_end.get(rollout, 0), *before, 0))
            if group >= 0:
                ends[group, turn] = max(ends.get((group, turn), 0), end)
        self.made.waves = self._waves()
        for service in range(self.room.groups_at):
            replicas, wave = self.grid.peak(service)
            if replicas:
                self.made.peaks[service] = (replicas, wave + 1)
        self._peaks_of_freed()
        return self.made

    def _peaks_of_freed(self) -> None:
        """Of single replicas that some rollouts may move: what these take is in no grid."""
        taken: Counter[tuple[int, int]] = Counter()
        for place, wave in self.made.wave_of.items():
            candidate = self.standing.candidates[place]
            node = self.standing.nodes[candidate.node]
            for service, replicas in node.placements_back if node.up or by_our_doing(node) else ():
                if replicas and service in self.room.freed.get(candidate.rollout, ()):
                    taken[service, wave] += replicas
        for (service, wave), replicas in sorted(taken.items()):
            self.made.freed.add(service)
            most = replicas + self.grid.used(service, wave - 1)
            if most > self.made.peaks.get(service, (0, 0))[0]:
                self.made.peaks[service] = (most, wave)

    def _collect(self) -> None:
        limits = self.made.limits
        within = [rollout.state in IN_FORECAST for rollout in self.standing.rollouts]
        for place, candidate in enumerate(self.standing.candidates):
            if not within[candidate.rollout] or not self.room.may_move(place):
                continue
            budgets, services = costs_in_a_wave(self.room, candidate)
            units = [what for what, _ in budgets if limits[what] < _NO_LIMIT]
            units += [what for what, much in services if much == 1 and limits[what] < _NO_LIMIT]
            more = [one for one in services if one[1] > 1 and limits[one[0]] < _NO_LIMIT]
            item = Item(tuple(units), tuple(more))
            if self.grid.fits(item):  # which nothing does that is hopeless: no wave has more room than there ever is
                self.items[place] = item
            elif candidate.override_floor and self.grid.fits(self._budgets_of(item)):
                self.items[place] = item
                self.below.append(place)

    def _budgets_of(self, item: Item) -> Item:
        return Item(tuple([what for what in item.units if what >= self.room.groups_at]))

    def _overridden(self, places: Sequence[int], start: int) -> int:
        """Before all others from this wave on, so that nobody goes with what they leave of a floor."""
        end = 0
        for place in places:
            item = self.items.pop(place)
            budgets = self._budgets_of(item)
            wave = self.grid.first_fit([budgets], [0], start)[0]
            services = tuple([what for what in item.units if what < self.room.groups_at])
            self.grid.take(Item(services, item.more), wave)
            self.made.wave_of[place] = wave + 1
            end = max(end, wave + 1)
        return end

    def _canaries(self) -> dict[int, int]:
        """Waves until the canaries of each rollout are through; who goes below a floor goes before those that do not,
        and behind the canaries of its rollout."""
        ends: dict[int, int] = {}
        mine: dict[int, list[int]] = {}
        candidates = self.standing.candidates
        for place in self.items:
            if candidates[place].canary:
                mine.setdefault(candidates[place].rollout, []).append(place)
        self._find_stuck(mine)
        below = [place for place in self.below if candidates[place].rollout not in self.made.stuck]
        behind = [place for place in below if candidates[place].rollout in mine and not candidates[place].canary]
        self._overridden([place for place in below if candidates[place].rollout not in mine], 0)
        for rollout in mine:
            first = [place for place in below if candidates[place].rollout == rollout and candidates[place].canary]
            ends[rollout] = self._overridden(first, 0)
        for rollout in _by_precedence(self.standing):
            rest = [place for place in mine.get(rollout, ()) if place in self.items]
            if rest:
                ends[rollout] = max(ends[rollout], self._put(rest, 0))
        self._overridden(behind, max(ends.values(), default=0))
        return ends

    def _find_stuck(self, mine: Collection[int]) -> None:
        """`mine`: rollouts of which a canary can move."""
        for rollout in _by_precedence(self.standing):
            view = self.standing.rollouts[rollout]
            if rollout in mine:
                continue
            if (
                view.canaries_left > 0
                and not self.standing.exposed[view.id]
                and not view.direct
                and not leads_back(view)
            ):
                self.made.stuck.append(rollout)

    def _stages(self) -> dict[tuple[int, int, int, int], list[int]]:
        """Who is packed together: (turn of its domain, rank of its rollout, rollout, group that takes turns or -1)."""
        ranks = {rollout: rank for rank, rollout in enumerate(_by_precedence(self.standing))}
        turns: dict[int, dict[int, int]] = {}
        stages: dict[tuple[int, int, int, int], list[int]] = {}
        for place in self.items:
            candidate = self.standing.candidates[place]
            if candidate.canary:
                continue
            turn, group = 0, -1
            domain = self.room.ordered_domain(candidate)
            if domain is not None:
                group = self.standing.domain_names[domain][0]
                if group not in turns:
                    turns[group] = {one: number for number, one in enumerate(self.room.turns(group))}
                turn = turns[group][domain]
            stages.setdefault((turn, ranks[candidate.rollout], candidate.rollout, group), []).append(place)
        return stages

    def _put(self, places: Sequence[int], start: int) -> int:
        """Number of waves until they are through."""
        nodes, candidates = self.standing.nodes, self.standing.candidates
        places = sorted(
            places, key=lambda place: (nodes[candidates[place].node].name, nodes[candidates[place].node].id)
        )
        found = pack(self.grid, [self.items[place] for place in places], start)
        for place, wave in zip(places, found, strict=True):
            self.made.wave_of[place] = wave + 1
        return max(found) + 1

    def _waves(self) -> tuple[Wave, ...]:
        candidates = self.standing.candidates
        members: list[list[int]] = [[] for _ in range(max(self.made.wave_of.values(), default=0))]
        ordinary = set()
        for place in sorted(self.made.wave_of):
            wave = self.made.wave_of[place]
            members[wave - 1].append(candidates[place].node)
            if not candidates[place].canary:
                ordinary.add(wave)
        return tuple(
            Wave(number, tuple(nodes), canary=number not in ordinary) for number, nodes in enumerate(members, start=1)
        )


_NO_LIMIT = UNBOUND // 2


def _by_precedence(standing: Standing) -> list[int]:
    """Rollouts in the order in which they choose; drafts last."""
    rollouts = standing.rollouts
    return sorted(
        range(len(rollouts)),
        key=lambda place: (rollouts[place].state is RolloutState.DRAFT, precedence(rollouts[place])),
    )
