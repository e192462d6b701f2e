"""Somebody beside the fleet who sees its machines and engines, and never what agents say: the judge of the rules."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

from sim.machine import Deed

if TYPE_CHECKING:
    from sim.node import SimNode


class Cause(Enum):
    """Why a replica came or went."""

    OPERATION = auto()
    """Its node reboots under a lease of the control plane."""
    RETREAT = auto()
    """Its node goes back by itself from a slot on trial."""
    MACHINE = auto()
    """Power, or a boot that did not come up."""
    MOVED = auto()
    """Its orchestrator."""
    UNHEALTHY = auto()
    STARTED = auto()


class Watch:
    """Counts healthy replicas, by index of the service in the scenario. Tests override what they judge."""

    def __init__(self, services: int) -> None:
        self.healthy: list[int] = [0] * services

    def replicas(self, node: SimNode, services: Sequence[int], change: int, cause: Cause, now: float) -> None:
        """Replicas of these services on `node` turned healthy (`change` 1) or not (-1), together."""
        for service in services:
            self.healthy[service] += change

    def deed(self, node: SimNode, deed: Deed, slot: str, now: float) -> None:
        """`node` did this; `slot` is empty where it is about none."""
