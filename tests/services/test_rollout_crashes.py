"""Conductors that are killed between any two transactions, and several at once: the story ends the same."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace

from app.config import Settings
from app.core.group_policy import Amount, OnFailure
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import rollout_steps
from app.store.database import Database
from tests.services.rollout_world import QUICK, Mood, Mortal, World
from tests.services.test_rollouts import ON_SQLITE, begin


def dying(world: World) -> None:
    """In each tick the first conductor dies after one transaction more than the last time."""
    lives = itertools.cycle(range(9))
    world.mortal = lambda: Mortal(world.db, next(lives))


@ON_SQLITE
def test_killed_between_any_two_transactions(database: Database, settings: Settings) -> None:
    world = World(database, settings, 4)
    dying(world)
    rollout_id = begin(world)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"2.0"} and world.most_exposed <= 2
    assert all(node.boots == 2 for node in world.nodes.values())  # nothing was done twice


@ON_SQLITE
def test_killed_while_it_halts_and_rolls_back(database: Database, settings: Settings) -> None:
    policy = replace(QUICK, canaries=Amount(count=0), failure_limit=Amount(count=0), on_failure=OnFailure.ROLL_BACK)
    world = World(database, settings, 4, policy)
    world.nodes["n3"].mood = Mood.SICK
    dying(world)
    rollout_id = begin(world)
    world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    assert set(world.versions().values()) == {"1.0"}
    assert world.kinds(rollout_id).count("rolling-back") == 1


def test_several_conductors_at_once(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=1)))
    rollout_id = begin(world)
    for _ in range(9):
        together(world)
        world.tick()
    assert world.most_exposed == 1
    states = world.states(rollout_id).values()
    assert RolloutNodeState.DONE in states and RolloutNodeState.FAILED not in states
    assert all(world.open_operations(name) <= 1 for name in world.nodes)


def together(world: World) -> None:
    """Three at the same moment; an error in one of them fails the test."""
    ready, errors = threading.Barrier(3), []

    def conduct() -> None:
        ready.wait()
        try:
            rollout_steps.run_all(world.db, world.now)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=conduct) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
