"""What happens to the fleet and not to one node by itself: power cuts, containers that move, agents that die."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from sim.dice import Dice
from sim.scenario import AgentDies, ContainersMove, PowerCut, Scenario
from sim.troubles import hits

HOUR_S = 3600.0


class What(Enum):
    POWER_CUT = auto()
    MOVE = auto()
    AGENT_DIES = auto()


@dataclass(frozen=True, order=True)
class Happening:
    """`at_s` since the start; `index` of the fault."""

    at_s: float
    index: int
    what: What = field(compare=False)


def rhythm(scenario: Scenario, index: int, per_hour: float) -> Iterator[float]:
    """Moments of a happening without memory (a Poisson process), in seconds since the start, without end."""
    dice, at_s = Dice(scenario.seed, "rhythm", index), 0.0
    while True:
        at_s += -math.log(1.0 - dice.chance()) * HOUR_S / per_hour
        yield at_s


def happenings(scenario: Scenario) -> list[Iterator[Happening]]:
    """One sequence in order of time for each fault that concerns the fleet."""
    found: list[Iterator[Happening]] = []
    for index, fault in enumerate(scenario.faults):
        match fault:
            case PowerCut(at_s=at_s):
                found.append(iter([Happening(at_s, index, What.POWER_CUT)]))
            case ContainersMove(per_hour=per_hour):
                found.append(_often(scenario, index, per_hour, What.MOVE))
            case AgentDies(per_hour=per_hour):
                found.append(_often(scenario, index, per_hour, What.AGENT_DIES))
            case _:
                pass
    return found


def _often(scenario: Scenario, index: int, per_hour: float, what: What) -> Iterator[Happening]:
    return (Happening(at_s, index, what) for at_s in rhythm(scenario, index, per_hour))


def concerned(scenario: Scenario, index: int, zones: list[str]) -> list[int]:
    """Places of the nodes that a fault concerns, of nodes whose zones are given in order of their number."""
    return [place for place, zone in enumerate(zones) if hits(scenario, index, place + 1, zone)]
