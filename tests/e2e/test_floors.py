"""No service falls below its floor: whole rollouts, counted from outside in the engines at every moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from app.core.holds import HoldCode
from app.core.rollouts import RolloutNodeState, RolloutState
from sim.local import LocalNode, wait_until
from tests.e2e import rollouts
from tests.e2e.kit import Fleet
from tests.e2e.town import Town

EXPECTED, FLOOR = 3, 2
SIDES = ("east", "east", "west", "west", "west")
"""Of the nodes; the first three carry the service at the start of each test."""
MOVING, DONE = RolloutNodeState.MOVING, RolloutNodeState.DONE
SEEN_S = 15.0
"""Until the control plane has heard what runs where."""
SETTLED_S = 1.0
"""How long a replica serves at its new place before the old one is taken away, as orchestrators do it."""


@dataclass
class Shop:
    """Five nodes with an engine each; `shop/web` has three replicas."""

    fleet: Fleet
    town: Town
    nodes: list[LocalNode]

    def restore(self) -> None:
        """One replica on each of the first three nodes, and the control plane knows it."""
        for number, node in enumerate(self.nodes):
            for name in self.town.on(node):
                self.town.stop(node, name)
            if number < EXPECTED:
                self.town.start(node, f"web-{number + 1}")
        self.until_known()
        self.town.forget()

    def until_known(self) -> None:
        """The pages say what the engines say."""
        for node in self.nodes:
            self.fleet.wait(node, lambda row, node=node: row["containers_running"] == len(self.town.on(node)), SEEN_S)

    def version(self, node: LocalNode) -> str:
        return str(self.fleet.row(node)["version"])


@pytest.fixture(scope="module")
def built(fleet: Fleet) -> Iterator[Shop]:
    rollouts.make_group(fleet, "shop", "role=shop")
    for side in ("east", "west"):
        rollouts.make_group(fleet, side, f"side={side}", "max_unavailable=2")
    with Town(fleet, "shop", "web", EXPECTED) as town:
        nodes = town.build(len(SIDES))
        rollouts.join_all(fleet, nodes, [("role=shop", f"side={side}") for side in SIDES])
        yield Shop(fleet, town, nodes)
        for node in nodes:
            fleet.remove(node)


@pytest.fixture
def shop(built: Shop) -> Shop:
    built.restore()
    return built


def test_a_whole_rollout_while_a_container_moves(fleet: Fleet, shop: Shop) -> None:
    town, version = shop.town, rollouts.new_version(fleet)
    number = rollouts.start(fleet, "shop", version, canary_soak_s="5s")
    rollouts.until(fleet, number, lambda: rollouts.in_state(fleet, number, MOVING), "its canary moves")
    moves(fleet, shop, number)
    ended = rollouts.until_ended(fleet, number)
    assert ended["state"] == RolloutState.SUCCEEDED
    assert {shop.version(node) for node in shop.nodes} == {version}
    assert (town.least, town.most) == (FLOOR, EXPECTED + 1), town.counts
    wait_until(lambda: town.serving() == EXPECTED, "all serve again")


def moves(fleet: Fleet, shop: Shop, number: int) -> None:
    """A replica goes from one node that is still to come to another: first there, then no longer here."""
    town = shop.town
    busy = rollouts.in_state(fleet, number, MOVING, DONE)
    here = next(node for node in town.carriers() if node.name not in busy)
    there = next(node for node in shop.nodes if node not in town.carriers() and node.name not in busy)
    town.start(there, "web-4")
    rollouts.until(fleet, number, lambda: steadily(town, there), "it serves at its new place")
    for name in town.on(here):
        town.stop(here, name)


def steadily(town: Town, node: LocalNode) -> bool:
    """Whether the node's replica serves, and still does a moment later."""
    since = time.monotonic()
    wait_until(lambda: not town.serving(node) or time.monotonic() - since > SETTLED_S, "a moment", every_s=0.01)
    return bool(town.serving(node))


def test_a_node_that_dies_by_itself_is_the_only_one_missing(fleet: Fleet, shop: Shop) -> None:
    """Nothing else that carries the service is taken down until its replica runs elsewhere."""
    town, version = shop.town, rollouts.new_version(fleet)
    carriers = {node.name for node in town.carriers()}
    others = {node.name for node in shop.nodes} - carriers
    dead = shop.nodes[0]
    number = rollouts.start(fleet, "shop", version)
    rollouts.until(fleet, number, lambda: rollouts.in_state(fleet, number, MOVING), "its canary moves")
    assert rollouts.in_state(fleet, number, MOVING) <= others, "the canary is one that leaves the most room"
    dead.stop()

    left = carriers - {dead.name}
    rollouts.until(fleet, number, lambda: rollouts.in_state(fleet, number, DONE) == others, "the others are through")
    rollouts.until(
        fleet,
        number,
        lambda: rollouts.holds(fleet, number, left) == {HoldCode.SERVICE_FLOOR},
        "the floor holds the rest",
    )
    said = {str(row["hold"]["text"]) for name, row in fleet.ledger.rollout_nodes(number).items() if name in left}
    assert all("shop/web" in text for text in said), said
    assert not rollouts.in_state(fleet, number, MOVING) and town.serving() == FLOOR

    for name in town.on(dead):
        town.stop(dead, name)
    town.start(next(node for node in shop.nodes if node.name in others), "web-4")
    rollouts.until(fleet, number, lambda: rollouts.in_state(fleet, number, DONE) == others | left, "the rest goes on")
    dead.start()
    assert rollouts.until_ended(fleet, number)["state"] == RolloutState.SUCCEEDED
    assert {shop.version(node) for node in shop.nodes} == {version}
    assert (town.least, town.most) == (FLOOR, EXPECTED), town.counts


def test_two_rollouts_at_once_share_the_floor(fleet: Fleet, shop: Shop) -> None:
    """Nodes of both groups carry the service, and each group could spare two."""
    town, version = shop.town, rollouts.new_version(fleet)
    numbers = [rollouts.start(fleet, side, version, canaries="0") for side in ("east", "west")]
    assert {fleet.ledger.rollout(number)["state"] for number in numbers} == {RolloutState.RUNNING}, "both at once"
    for number in numbers:
        assert rollouts.until_ended(fleet, number)["state"] == RolloutState.SUCCEEDED
    assert {shop.version(node) for node in shop.nodes} == {version}
    assert (town.least, town.most) == (FLOOR, EXPECTED), town.counts
