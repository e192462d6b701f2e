"""Floors hold whatever an orchestrator does beside us: what may go is counted from the expected replicas."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.holds import HoldCode
from app.core.plan_check import Budgets, Costs, Supply, check, check_admitted
from app.core.planner import plan
from app.core.snapshot import Candidate, NodeView, Snapshot
from tests.core.plan_fleets import node, rollout, service, snapshot, snapshots, wants


def names(view: Snapshot) -> list[str]:
    return [view.nodes[view.candidates[place].node].name for place in plan(view).admitted]


def checked(supply: Supply, *takes: int) -> list[bool]:
    """Which of nodes that take so many replicas the checker lets go."""
    key = ("", "web")
    costs = [Costs(str(place), False, {key: replicas}, (), (), "") for place, replicas in enumerate(takes)]
    refused = {one.node for one in check_admitted(costs, Budgets(services={key: supply}))}
    return [str(place) not in refused for place in range(len(takes))]


def test_one_more_than_expected_lets_nobody_more_go() -> None:
    """In the middle of a move four are healthy; the old one ends in a moment, and two must be left then."""
    four = [node(name, (0, 1)) for name in "abcd"]
    assert len(names(snapshot(four, services=(service("web", 3, 2),)))) == 1
    assert checked(Supply(healthy=4, expected=3, reserved=0, floor=2), 1, 1) == [True, False]


@pytest.mark.parametrize(
    ("away", "others", "goes"),
    [
        ({"reserved": True}, 3, 0),  # let go in the middle of a move, and up yet
        ({"reserved": True, "online": False}, 3, 0),  # and down
        ({"reserved": True, "online": False}, 4, 0),  # come up elsewhere meanwhile
        ({"reserved": True, "online": False, "absent": True}, 3, 1),  # it does not come back
        ({"online": False}, 3, 1),  # down for another reason, and come up elsewhere
        ({"online": False}, 2, 0),  # and not come up elsewhere
        ({"on_trial": True}, 2, 0),
    ],
)
def test_what_is_away_counts_once(away: dict[str, bool], others: int, goes: int) -> None:
    nodes = [node("away", (0, 1), **away), *(node(f"n{place}", (0, 1)) for place in range(others))]
    wanted = tuple(wants(place) for place in range(1, len(nodes)))
    view = snapshot(nodes, services=(service("web", 3, 2),), candidates=wanted)
    assert len(names(view)) == goes
    assert check(plan(view), view) == []


def test_the_checker_counts_what_leases_took_by_itself() -> None:
    nodes = [node("away", (0, 1), reserved=True), *(node(name, (0, 1)) for name in "abc")]
    wanted = tuple(wants(place) for place in range(1, 4))
    view = snapshot(nodes, services=(service("web", 3, 2),), candidates=wanted)
    made = plan(view)
    forced = replace(made, admitted=(0,), holds={place: made.holds[place] for place in (1, 2)})
    assert [one.text for one in check(forced, view)] == ["/web would have 1 healthy replicas, floor 2"]


def test_a_wide_floor_has_room_for_as_many_as_are_expected() -> None:
    nodes = [node(f"n{place}", (0, 1), reserved=place == 0) for place in range(6)]
    view = snapshot(nodes, services=(service("web", 4, 1),), candidates=tuple(wants(place) for place in range(1, 6)))
    assert len(names(view)) == 2, "of four expected one is reserved, and one stays; the two beyond do not count"


def _left_at_worst(view: Snapshot, service: int, down: set[int], *, ours_back: bool) -> int:
    """Replicas one by one: those of `down` and of leases go, and then all end that are more than expected."""
    serving, gone = [], 0
    for place, one in enumerate(view.nodes):
        ours = (one.reserved or one.on_trial) and not one.absent and ours_back
        for index, replicas in one.placements:
            if index == service and (one.up or ours):
                serving += [place] * replicas
            elif index == service and one.reserved and not one.absent:
                gone += replicas
    surplus = max(0, len(serving) + gone - view.services[service].expected)
    return len([place for place in serving if place not in down]) - surplus


def _bound(view: Snapshot, movers: list[Candidate], *, ours_back: bool) -> None:
    """Of each service of which somebody took something without leave, what is left at worst keeps its floor. Who has
    leave goes first: that what it took counts for the others is then as strict as it can be."""
    for place, service_view in enumerate(view.services):
        floor, single = service_view.floor, service_view.expected <= 1
        if not floor or (service_view.allowed and single):
            continue
        strict = False
        for one in movers:
            node, rollout = view.nodes[one.node], view.rollouts[one.rollout]
            takes = any(replicas for service, replicas in node.placements if service == place)
            leave = one.override_floor or (single and rollout.id in service_view.allowed_for)
            strict |= takes and (node.up or ours_back) and not leave
        if strict and not any(one.override_floor for one in movers):
            down = {one.node for one in movers}
            assert _left_at_worst(view, place, down, ours_back=ours_back) >= floor, (service_view, down)


@settings(max_examples=300, deadline=None)
@given(snapshots())
def test_no_replica_beyond_the_expected_ones_is_ever_spent(view: Snapshot) -> None:
    made = plan(view)
    _bound(view, [view.candidates[place] for place in made.admitted], ours_back=False)
    for wave in made.waves:
        theirs = {place for place, hold in made.holds.items() if hold.code is HoldCode.OTHER_ROLLOUT}
        movers = [one for place, one in enumerate(view.candidates) if one.node in wave.nodes and place not in theirs]
        _bound(view, movers, ours_back=True)


# --- an orchestrator at work --------------------------------------------------------------------------------


@dataclass
class Town:
    """Nodes with replicas of one service, which somebody else keeps at its number: starts what lacks, ends what is too
    much (starting before ending where it moves one). We take nodes down, one lease at a time or several."""

    dice: random.Random
    expected: int
    floor: int
    count: int
    here: list[int] = field(default_factory=list)
    leased: dict[int, int] = field(default_factory=dict)
    """Node → replicas that its lease reserved."""
    down: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.here = [0] * self.count
        for _ in range(self.expected):
            self.here[self.dice.randrange(self.count)] += 1

    @property
    def serving(self) -> int:
        return sum(number for place, number in enumerate(self.here) if place not in self.down)

    def view(self) -> Snapshot:
        nodes = [self._node(place) for place in range(self.count)]
        wanted = tuple(wants(place) for place in range(self.count) if place not in self.leased)
        return snapshot(nodes, services=(service("web", self.expected, self.floor),), candidates=wanted)

    def _node(self, place: int) -> NodeView:
        replicas = max(self.here[place], self.leased.get(place, 0))
        away = {"reserved": place in self.leased, "online": place not in self.down}
        return node(f"n{place}", *([(0, replicas)] if replicas else []), **away)

    def step(self) -> None:
        self.dice.choice((self.admit, self.admit, self.go_down, self.come_back, self.start, self.move, self.end))()

    def admit(self) -> None:
        view = self.view()
        for place in plan(view).admitted:
            chosen = view.candidates[place].node
            self.leased[chosen] = self.here[chosen]

    def go_down(self) -> None:
        self.down |= {place for place in self.leased if self.dice.random() < 0.5}

    def come_back(self) -> None:
        for place in [place for place in self.down if self.dice.random() < 0.5]:
            self.down.discard(place)
            del self.leased[place]

    def start(self) -> None:
        if self.serving < self.expected:
            self._start()

    def move(self) -> None:
        if self.serving == self.expected:
            self._start()

    def _start(self) -> None:
        free = [place for place in range(self.count) if place not in self.leased]
        if free:
            self.here[self.dice.choice(free)] += 1

    def end(self) -> None:
        running = [place for place, number in enumerate(self.here) if number and place not in self.down]
        if self.serving > self.expected and running:
            self.here[self.dice.choice(running)] -= 1


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 5), st.integers(1, 3), st.integers(3, 8), st.randoms(use_true_random=False))
def test_moves_and_reschedules_beside_a_rollout_never_end_below_the_floor(
    expected: int, headroom: int, count: int, dice: random.Random
) -> None:
    town = Town(dice, expected, max(0, expected - headroom), count)
    for _ in range(40):
        town.step()
        assert town.serving >= town.floor, (town.here, town.leased, town.down)


def test_an_allowance_of_one_rollout_frees_no_other() -> None:
    ours, theirs = rollout("ours"), rollout("theirs")
    nodes = [node("a", (0, 1)), node("b", (1, 1))]
    single = tuple(replace(service(name, 1, 1), allowed_for=("ours",)) for name in ("db", "cache"))
    wanted = (wants(0), wants(1, 1))
    view = snapshot(nodes, services=single, rollouts=(ours, theirs), candidates=wanted)
    made = plan(view)
    assert made.admitted == (0,) and made.holds[1].code is HoldCode.SINGLE_REPLICA
    assert check(made, view) == []
    assert [(one.service, one.left, one.floor) for one in made.worst] == [(0, 0, 0)]
    both = replace(made, admitted=(0, 1), holds={})
    assert [one.node for one in check(both, view)] == ["b"], "the checker knows it by itself"


def test_nothing_falls_below_a_floor_of_none() -> None:
    """Two of a service of which one is expected, for a moment or by a wrong label."""
    view = snapshot([node("a", (0, 2)), node("b", (1, 1))], services=(service("db", 1, 1, True), service("web", 0, 0)))
    assert plan(view).admitted == (0, 1) and check(plan(view), view) == []


def test_who_may_go_below_a_floor_waits_for_canaries_all_the_same() -> None:
    nodes = [node("a", (0, 1)), node("b", (0, 1)), node("c")]
    gated = rollout(canaries_left=1)
    wanted = (wants(0, override_floor=True), wants(1, override_floor=True), wants(2, canary=True))
    view = snapshot(nodes, services=(service("db", 2, 2),), rollouts=(gated,), candidates=wanted)
    made = plan(view)
    assert [wave.nodes for wave in made.waves] == [(2,), (0, 1)] and check(made, view) == []


def test_a_reserved_node_costs_its_group_and_its_service_once() -> None:
    """Down for our doing: its replica is missing, and no second one is counted for it."""
    nodes = [replace(node("a", (0, 1)), reserved=True, online=False), *(node(name, (0, 1)) for name in "bc")]
    view = snapshot(nodes, services=(service("web", 3, 1),), candidates=(wants(1), wants(2)))
    assert len(names(view)) == 1
