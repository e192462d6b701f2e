"""The invented container engine of one node: replicas of services, each healthy some time after its start."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import msgspec

from agent.phases.model import Serving
from wire.messages import Container, Placement


class Replica:
    """One container, as it is shown while it is healthy; `service` is its index in the scenario."""

    __slots__ = ("container", "healthy", "ready_at", "service")

    def __init__(self, service: int, container: Container) -> None:
        self.service = service
        self.container = container
        self.healthy = False
        self.ready_at = math.inf
        """When it has started; health may still be denied to it by a broken node."""


class Replicas:
    """All of one node. What changes health returns the services concerned, one for each replica.

    Fields to read: held (the replicas), next_at (when the next one has started).
    """

    __slots__ = ("_broken", "_shown", "held", "next_at")

    def __init__(self, held: list[Replica]) -> None:
        self.held = held
        self.next_at = math.inf
        self._broken = False
        self._shown: Placement | None = None

    @property
    def healthy(self) -> list[Replica]:
        return [replica for replica in self.held if replica.healthy]

    def start(self, ready_at: Callable[[], float]) -> None:
        """The machine is up: all of them start, each healthy from its own moment on."""
        for replica in self.held:
            replica.ready_at = ready_at()
        self._changed()

    def stop(self) -> list[int]:
        """The machine is down."""
        gone = [replica.service for replica in self.held if replica.healthy]
        for replica in self.held:
            replica.healthy, replica.ready_at = False, math.inf
        self._changed()
        return gone

    def add(self, replica: Replica, ready_at: float) -> None:
        replica.healthy, replica.ready_at = False, ready_at
        self.held.append(replica)
        self._changed()

    def remove(self, replica: Replica) -> list[int]:
        self.held.remove(replica)
        gone = [replica.service] if replica.healthy else []
        replica.healthy = False
        self._changed()
        return gone

    def turn(self, now: float, *, broken: bool) -> tuple[list[int], list[int]]:
        """Those that turn healthy now, and those that a broken node takes down."""
        self._broken = broken
        came: list[int] = []
        went: list[int] = []
        for replica in self.held:
            healthy = not broken and replica.ready_at <= now
            if healthy != replica.healthy:
                replica.healthy = healthy
                (came if healthy else went).append(replica.service)
        self._changed(now)
        return came, went

    def shown(self) -> Placement:
        """As the agent reads it from its engine."""
        if self._shown is None:
            self._shown = Placement(known=True, engine="sim", containers=[self._container(each) for each in self.held])
        return self._shown

    def serving(self) -> Serving:
        """What a reboot would take down."""
        names = (
            f"{each.container.scope}/{each.container.service}" for each in self.healthy if not each.container.per_node
        )
        return Serving(known=True, replicas=dict(Counter(names)))

    def _container(self, replica: Replica) -> Container:
        if replica.healthy:
            return replica.container
        return msgspec.structs.replace(replica.container, health="unhealthy" if self._broken else "starting")

    def _changed(self, now: float = -math.inf) -> None:
        self._shown = None
        self.next_at = min((each.ready_at for each in self.held if each.ready_at > now), default=math.inf)
