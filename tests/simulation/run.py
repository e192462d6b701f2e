"""One seed from its begin to its end: the story happens, then everything has to come to rest, and all rules hold."""

from __future__ import annotations

from dataclasses import dataclass

from sim.node import SimNode
from tests.simulation import ledger
from tests.simulation.director import AWAY_S, Director
from tests.simulation.judge import RuleBroken
from tests.simulation.story import CALM_S, Fault, story
from tests.simulation.world import World, world_of

STEP_S = 60.0
PATIENCE_S = 400.0
"""When nothing goes wrong any more some nodes, one after another, are through by then."""
LONGEST_S = 1800.0
"""For the way back of all of them."""


@dataclass(frozen=True)
class Outcome:
    """How a seed went; `broken` is empty when all rules hold."""

    seed: int
    broken: str
    trace: tuple[str, ...]
    reboots: int
    simulated_s: float


def run_seed(seed: int) -> Outcome:
    """The same for the same seed, wherever PYTHONHASHSEED is the same."""
    broken = ""
    with world_of(story(seed)) as world:
        try:
            _play(world)
        except RuleBroken as problem:
            broken = str(problem)
        return Outcome(seed, broken, tuple(world.trace), world.judge.reboots, world.seconds)


def _play(world: World) -> None:
    world.begin()
    director = Director(world)
    director.plan()
    _until_calm(world)
    _calm(world, director)
    _come_to_rest(world, director)
    _settled(world, director)


def _until_calm(world: World) -> None:
    """Until the last fault is over, and further while something moves, for as long as there may be faults."""
    events = world.story.events
    away_s = AWAY_S if any(event.what is Fault.AWAY for event in events) else 0.0
    world.run(max((event.at_s for event in events), default=0.0) + away_s + STEP_S)
    while world.seconds < CALM_S + away_s and _left(world):
        world.run(world.seconds + STEP_S)


def _left(world: World) -> list[str]:
    with world.stage.read() as conn:
        return ledger.under_way(conn)


def _calm(world: World, director: Director) -> None:
    """Nothing breaks any more; operators go on with what they stopped, and send back what was halted."""
    world.kill_in, world.deaf = None, False
    world.say("calm")
    director.lift()
    director.resume_paused()
    director.send_back_halted()


def _come_to_rest(world: World, director: Director) -> None:
    """Everything ends by itself, or each that waits says for what, and then a person ends it."""
    if _rests_within(world, director, PATIENCE_S):
        return
    with world.stage.read() as conn:
        silent = [row["node"] for row in ledger.waiting(conn) if not row["hold"]]
    if silent:
        raise RuleBroken(f"wait without a reason: {', '.join(silent)}")
    world.say("what still waits is ended")
    director.end_all()
    if _rests_within(world, director, LONGEST_S):
        return
    _cure(world, director)
    if not _rests_within(world, director, LONGEST_S):
        raise RuleBroken(f"never ends: {'; '.join(_left(world))}")


def _cure(world: World, director: Director) -> None:
    """Ways back stop at budgets (rule 7). A node that is sick on the bad version takes one, where no rollout leads it
    away any more, until a person does; whoever waits for that has to say so."""
    with world.stage.read() as conn:
        waits_for_them, sick = ledger.waits_for_the_sick(conn), ledger.sick(conn)
    if not sick or not waits_for_them:
        raise RuleBroken(f"never ends: {'; '.join(_left(world))}")
    world.say("who is sick is updated")
    director.cure(sick)


def _rests_within(world: World, director: Director, seconds: float) -> bool:
    until = world.seconds + seconds
    while world.seconds < until:
        world.run(world.seconds + STEP_S)
        if not _left(world):
            return True
        director.send_back_halted()
    return False


def _settled(world: World, director: Director) -> None:
    """Rule 4: on a good version only nodes fail that had a fault of their own."""
    troubled = director.troubled | {node.spec.number for node in world.fleet.nodes if _troubled(node)}
    with world.stage.read() as conn:
        failed = ledger.failures(conn)
    for number, version, operation_id, words in failed:
        if number not in troubled and operation_id not in world.judge.struck:
            raise RuleBroken(f"node {number} failed on {version}, and nothing was wrong with it: {words}")


def _troubled(node: SimNode) -> bool:
    """Whether its own scenario may make it fail on a version that is good."""
    troubles = node.spec.troubles
    return bool(troubles.network or troubles.downloads_dead or troubles.claim)
