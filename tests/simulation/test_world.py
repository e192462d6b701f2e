"""The world of the simulation: what ends with a gateway, and what is known when another one has started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sim.node import SimNode
from tests.simulation.network import HALF_OPEN_S
from tests.simulation.story import story
from tests.simulation.world import World, world_of

OFF_S = 1000.0


@pytest.fixture
def world() -> Iterator[World]:
    """A fleet that is connected, and nothing going on."""
    with world_of(story(1)) as made:
        made.begin()
        made.run(15.0)
        yield made


def _without_power(world: World) -> SimNode:
    """A node that has just lost it; its gateway has not noticed."""
    node = world.fleet.nodes[0]
    world.fleet.cut_power(node, world.now, OFF_S)
    world.serve([node])
    return node


def test_a_connection_that_nobody_missed_ends_with_its_gateway(world: World) -> None:
    """Else the next gateway would notice its end, which for it had never begun."""
    line = world.ways[1].line
    assert line is not None
    _without_power(world)
    assert line.open
    world.end_gateway(in_order=False)
    assert not line.open


def test_a_gateway_that_starts_knows_of_nobody_who_does_not_come(world: World) -> None:
    """Such a node is counted as away at once, so that nobody is excused by not having known."""
    node = _without_power(world)
    record = world.judge.records[node.spec.number]
    world.end_gateway(in_order=False)
    world.run(20.0)
    assert record.down_known_at is None
    world.start_gateway()
    assert record.down_known_at == world.now
    assert all(loss.known_at == world.now for loss in world.judge.losses if loss.node is node)


def test_who_loses_its_power_beside_a_gateway_that_lives_is_known_when_that_notices(world: World) -> None:
    node = _without_power(world)
    record = world.judge.records[node.spec.number]
    began = world.now
    world.run(world.seconds + HALF_OPEN_S + 5.0)
    assert record.down_known_at is not None
    assert began < record.down_known_at <= began + HALF_OPEN_S + 1.0
