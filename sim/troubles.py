"""What goes wrong with one node, and when. Times are seconds since the start of the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from sim.dice import Dice
from sim.scenario import (
    AnyFault,
    ChecksFail,
    Claim,
    DeadDownload,
    Flapping,
    Lies,
    NetworkLost,
    NoBoot,
    Scenario,
    SlowDownload,
)

FOREVER = math.inf


@dataclass(slots=True)
class Troubles:
    """`network` are spans without it, in order of their beginning."""

    no_boot: frozenset[str] = frozenset()
    checks: tuple[ChecksFail, ...] = ()
    download_factor: float = 1.0
    downloads_dead: tuple[tuple[float, float], ...] = ()
    network: list[tuple[float, float]] = field(default_factory=list)
    claim: Claim | None = None

    def failing(self, version: str, uptime_s: float) -> ChecksFail | None:
        """The fault that makes a required check fail now."""
        return next((fault for fault in self.checks if _concerns(fault, version) and _active(fault, uptime_s)), None)

    def next_health_change(self, version: str, uptime_s: float) -> float:
        """Uptime at which checks may find something else; infinite when never."""
        edges = [edge for fault in self.checks if _concerns(fault, version) for edge in _edges(fault)]
        return min((edge for edge in edges if edge > uptime_s), default=FOREVER)

    def download_is_dead(self, at_s: float) -> bool:
        return any(begin <= at_s < end for begin, end in self.downloads_dead)

    def network_up(self, at_s: float) -> bool:
        return not any(begin <= at_s < end for begin, end in self.network)

    def next_network_change(self, at_s: float) -> float:
        return min((edge for span in self.network for edge in span if edge > at_s), default=FOREVER)


NONE = Troubles()
"""Of most nodes; shared, so nobody writes to it."""


def _concerns(fault: ChecksFail, version: str) -> bool:
    return fault.version in ("", version)


def _edges(fault: ChecksFail) -> tuple[float, ...]:
    return (fault.after_s, fault.after_s + fault.for_s) if fault.for_s else (fault.after_s,)


def _active(fault: ChecksFail, uptime_s: float) -> bool:
    return fault.after_s <= uptime_s and (not fault.for_s or uptime_s < fault.after_s + fault.for_s)


def hits(scenario: Scenario, index: int, number: int, zone: str) -> bool:
    """Whether the fault of this index concerns the node of this number; the same for the same seed."""
    fault = scenario.faults[index]
    if fault.nodes:
        return number in fault.nodes
    if fault.zone and fault.zone != zone:
        return False
    return fault.share >= 1 or Dice(scenario.seed, "fault", index, number).chance() < fault.share


def troubles_of(scenario: Scenario, number: int, zone: str) -> Troubles:
    """Everything in the scenario that concerns one node."""
    found = [fault for index, fault in enumerate(scenario.faults) if hits(scenario, index, number, zone)]
    return _collected(found, Dice(scenario.seed, "troubles", number)) if found else NONE


def _collected(found: Sequence[AnyFault], dice: Dice) -> Troubles:
    troubles = Troubles()
    for fault in found:
        match fault:
            case NoBoot(version=version):
                troubles.no_boot |= {version}
            case ChecksFail():
                troubles.checks += (fault,)
            case SlowDownload(factor=factor):
                troubles.download_factor *= factor
            case DeadDownload(at_s=at_s, for_s=for_s):
                troubles.downloads_dead += ((at_s, at_s + for_s if for_s else FOREVER),)
            case NetworkLost(at_s=at_s, for_s=for_s):
                troubles.network.append((at_s, at_s + for_s))
            case Flapping():
                troubles.network += _flaps(fault, dice)
            case Lies(claim=claim):
                troubles.claim = claim
            case _:
                pass  # concerns the fleet, not one node
    troubles.network.sort()
    return troubles


def _flaps(fault: Flapping, dice: Dice) -> list[tuple[float, float]]:
    first = fault.at_s + fault.period_s * dice.chance()
    count = max(0, math.ceil((fault.at_s + fault.for_s - first) / fault.period_s))
    begins = [first + fault.period_s * number for number in range(count)]
    return [(begin, begin + fault.period_s / 2) for begin in begins]
