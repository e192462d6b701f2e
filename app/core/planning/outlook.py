"""What a forecast means: the worst moment of each service, and what never moves unless somebody acts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.core.holds import Hold, HoldCode
from app.core.plan import Impossible, WorstMoment
from app.core.planning.forecast import IN_FORECAST, Forecast, by_our_doing, costs_in_a_wave
from app.core.planning.gates import Gates
from app.core.planning.room import Cost, Room
from app.core.planning.standing import Standing, floor_of, leads_back
from app.core.planning.words import counted, named, service_name
from app.core.rollouts import RolloutKind
from app.core.snapshot import Candidate


def worst_moments(standing: Standing, made: Forecast) -> tuple[WorstMoment, ...]:
    """Of each service with a floor that a wave touches, the tightest first."""
    moments = []
    for service, (replicas, wave) in made.peaks.items():
        floor = floor_of(standing.services[service])
        if floor is not None:
            left = made.limits[service] + floor - replicas
            bound = 0 if service in made.freed else floor
            moments.append(WorstMoment(service, standing.available[service], left, wave, bound))
    return tuple(sorted(moments, key=lambda one: (one.left - (one.floor or 0), one.left, one.service)))


def loses_way_back(standing: Standing, gates: Gates) -> tuple[int, ...]:
    """Nodes whose passive slot holds their way back and will be overwritten with the target. Who is held because a
    rollout keeps it loses none: when that is over, it is the way back of nothing that is under way."""
    lost = set()
    for candidate in standing.candidates:
        node, rollout = standing.nodes[candidate.node], standing.rollouts[candidate.rollout]
        if not node.has_local_way_back or rollout.kind is not RolloutKind.UPDATE or rollout.state not in IN_FORECAST:
            continue
        target = gates.target(candidate.rollout, node)
        if target is None or leads_back(rollout) or candidate.kept is not None:
            continue
        if node.staged_digest != target.digest:
            lost.add(candidate.node)
    return tuple(sorted(lost))


@dataclass(frozen=True, slots=True)
class _Blocked:
    """Why a candidate is in no wave although nothing is wrong with the node itself."""

    hold: Hold
    text: str
    helps: tuple[str, ...]


class Blocks:
    """Finds for each candidate outside the waves what keeps it there."""

    def __init__(self, standing: Standing, gates: Gates, room: Room, made: Forecast) -> None:
        self.standing, self.gates, self.room, self.made = standing, gates, room, made
        self._away: dict[int, list[str]] | None = None

    def hold_for_good(self, place: int) -> Hold | None:
        """The reason that time and other moves do not remove; None where the present one is as good."""
        order = self.gates.standing_order(place)
        if order is not None:
            return order
        blocked = self._blocked(place)
        return blocked.hold if blocked is not None else None

    def impossible(self, places: Iterable[int]) -> tuple[Impossible, ...]:
        """One for each thing that blocks, with all nodes that it blocks; those that block most first."""
        found: dict[tuple[str, str], tuple[_Blocked, list[int]]] = {}
        for place in places:
            if self.gates.standing_order(place) is None:
                blocked = self._blocked(place)
                if blocked is not None and blocked.hold.code is not HoldCode.PLACEMENT_UNKNOWN:
                    key = (blocked.hold.subject, blocked.text)
                    found.setdefault(key, (blocked, []))[1].append(self.standing.candidates[place].node)
        made = [
            Impossible(
                one.hold.subject,
                one.text,
                tuple(sorted(nodes)),
                self._helps(one, nodes),
                waits=one.hold.code is HoldCode.FREEZE,
            )
            for one, nodes in found.values()
        ]
        return tuple(sorted(made, key=lambda one: (-len(one.nodes), one.subject, one.text)))

    def _helps(self, blocked: _Blocked, nodes: Sequence[int]) -> tuple[str, ...]:
        if blocked.hold.code is HoldCode.FREEZE:  # it holds all of them: without them nothing would be left to move
            return blocked.helps
        names = named(sorted(self.standing.nodes[node].name for node in nodes))
        return (*blocked.helps, f"leaving {names} out")

    def _blocked(self, place: int) -> _Blocked | None:
        candidate = self.standing.candidates[place]
        rollout = self.standing.rollouts[candidate.rollout]
        if rollout.state not in IN_FORECAST:
            return None
        endless = self.gates.endless(candidate.rollout, candidate.node)
        if endless is not None and endless.code is HoldCode.WINDOW:
            return _Blocked(endless, f"{self._group(endless)} has windows that never open", ("another window",))
        if endless is not None:
            return _Blocked(endless, endless.text, ("lifting the freeze", "an end for it"))
        if candidate.rollout in self.made.stuck and not candidate.canary:
            hold = Hold(HoldCode.CANARIES, "waits for canaries, none of which can move", rollout.id)
            return _Blocked(hold, f"no canary of {rollout.name} can move", ("another canary",))
        return self._without_room(candidate)

    def _group(self, hold: Hold) -> str:
        named = (group.words for group in self.standing.groups if group.id == hold.subject or group.frozen is hold)
        return next(named, "the fleet")

    def _without_room(self, candidate: Candidate) -> _Blocked | None:
        limits = self.made.limits
        budgets, replicas = costs_in_a_wave(self.room, candidate)
        for what, needed in budgets:
            if limits[what] < needed:
                return self._budget(what)
        node = self.standing.nodes[candidate.node]
        if candidate.override_floor:
            return None
        if node.up and not node.placement_known:
            hold = Hold(HoldCode.PLACEMENT_UNKNOWN, "what runs on it is not known, and it may be a service", node.id)
            return _Blocked(hold, "", ())
        services = self.standing.services
        lacking = [cost for cost in replicas if limits[cost[0]] < cost[1] and cost[1]]
        lacking.sort(key=lambda cost: (services[cost[0]].expected > 1, limits[cost[0]] - cost[1], cost[0]))
        return self._floor(lacking[0]) if lacking else None

    def _budget(self, what: int) -> _Blocked:
        limit, standing = self.room.limits[what], self.standing
        if what >= self.room.rollouts_at:
            rollout = standing.rollouts[what - self.room.rollouts_at]
            hold = Hold(HoldCode.EXPOSURE, f"waits for {rollout.name}, which may move no node at all", rollout.id)
            return _Blocked(hold, f"{rollout.name} may have no node unavailable", ("a larger budget",))
        if what >= self.room.domains_at:
            place, value = standing.domain_names[what - self.room.domains_at]
            group, code = standing.groups[place], HoldCode.DOMAIN_BUDGET
            which = f"{group.policy.domain_label} {value or '(none)'} of {group.words}"
        else:
            group, code = standing.groups[what - self.room.groups_at], HoldCode.GROUP_BUDGET
            which = group.words
        if limit <= 0:
            text = f"{which} may have no node missing"
            return _Blocked(Hold(code, f"waits for a larger budget: {text}", group.id), text, ("a larger budget",))
        missing = limit - self.made.limits[what]
        text = f"{which} may miss {counted(limit, 'node')}, and {missing:,} {'is' if missing == 1 else 'are'} missing"
        helps = ("bringing them back", "declaring them lost", "a larger budget")
        return _Blocked(Hold(code, f"waits for nodes that are missing: {text}", group.id), text, helps)

    def _floor(self, cost: Cost) -> _Blocked:
        service, needed = cost
        view = self.standing.services[service]
        name, floor = service_name(view.key), floor_of(view)
        assert floor is not None, "without a floor nothing is lacking"
        if view.expected <= 1:
            text = f"runs the single replica of {name}, which may not move without an allowance"
            helps = ("another replica", f"an allowance for the single replica of {name}")
            return _Blocked(
                Hold(HoldCode.SINGLE_REPLICA, text, name), f"{name} has a single replica, which may not move", helps
            )
        have, away = self.made.limits[service] + floor, self._carriers(service)
        here = f", {needed:,} of them on one node" if needed > 1 else ""
        what = f"{have:,} of {counted(view.expected, 'replica')} healthy{here}, floor {floor:,}"
        more = ["another replica"]
        if away:
            what += f", while {named(away)} {'is' if len(away) == 1 else 'are'} away"
            more.insert(0, f"bringing {named(away)} back")
        elif have < view.expected:
            missing = view.expected - have
            more.insert(0, f"the return of the missing {'replica' if missing == 1 else f'{missing:,} replicas'}")
        if have >= view.expected:  # else it is no floor that is too high: what serves is too little
            more.append("a lower floor")
        hold = Hold(HoldCode.SERVICE_FLOOR, f"waits for {name}: {what}", name)
        return _Blocked(hold, f"{name} has {what}", tuple(more))

    def _carriers(self, service: int) -> list[str]:
        """Nodes that run it and are away, not by our doing."""
        if self._away is None:
            self._away = {}
            for place in sorted(self.standing.not_up):
                node = self.standing.nodes[place]
                for one, replicas in () if by_our_doing(node) else node.placements:
                    if replicas:
                        self._away.setdefault(one, []).append(node.name)
        return sorted(self._away.get(service, ()))
