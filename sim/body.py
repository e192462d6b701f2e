"""The node's body: machine, containers, power and network on one clock. What runs on it, the agent, is in sim.node."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.drivers.files_node import MachineCause
from agent.drivers.files_record import Entry
from agent.phases.model import Work, WorkKind
from sim.dice import Dice
from sim.labour import SHORT_S
from sim.machine import Deed, Machine
from sim.replicas import Replica, Replicas
from sim.scenario import MIB, ChecksFail, DurationsPart, Span
from sim.troubles import Troubles
from sim.watch import Cause, Watch

if TYPE_CHECKING:
    from sim.node import SimNode

BOOT_CLOCK_S = 5.0
"""What the boot clock shows when the agent starts."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What a node is; `number` counts from 1."""

    number: int
    name: str
    zone: str
    labels: dict[str, str]
    os: str
    arch: str
    version: str
    digest: str
    seed: int
    durations: DurationsPart
    troubles: Troubles


class Body:
    """Fields to read: spec, machine, engine (its containers), dice, up, now; and when what changes by itself does:
    up_at (the next attempt to boot ends), network_at. `node` is who the watch is told of."""

    __slots__ = (
        "_boot_cause",
        "_node",
        "_start",
        "_watch",
        "dice",
        "engine",
        "machine",
        "network_at",
        "now",
        "spec",
        "up",
        "up_at",
        "up_since",
    )

    def __init__(self, node: SimNode, spec: NodeSpec, replicas: list[Replica], watch: Watch, start: float) -> None:
        self.spec = spec
        self.machine = Machine(spec.digest, spec.version)
        self.machine.stubborn = spec.troubles.claim is not None
        self.engine = Replicas(replicas)
        self.dice = Dice(spec.seed, "node", spec.number)
        self.up = True
        self.now = self.up_since = start
        self.up_at = math.inf
        self._node, self._watch, self._start = node, watch, start
        self._boot_cause = MachineCause.POWER_ON
        self.network_at = self._next_network_change()

    # --- time and chance ------------------------------------------------------------------------------------

    @property
    def run_s(self) -> float:
        """Since the start of the run."""
        return self.now - self._start

    @property
    def uptime_s(self) -> float:
        return self.now - self.up_since

    @property
    def boot_s(self) -> float:
        """The boot clock."""
        return self.uptime_s + BOOT_CLOCK_S

    @property
    def boot_id(self) -> str:
        return f"{self.spec.name}.{self.machine.boots}"

    def within(self, span: Span) -> float:
        return self.dice.between(span[0], span[1]) if isinstance(span, tuple) else span

    # --- power ----------------------------------------------------------------------------------------------

    def go_down(self, boot_cause: MachineCause, down_s: float, cause: Cause) -> None:
        """Its containers are gone at once; it comes back after `down_s` and a boot."""
        self._tell_replicas(self.engine.stop(), -1, cause)
        self.up = False
        self._boot_cause = boot_cause
        self.up_at = self.now + down_s + self.within(self.spec.durations.boot_s)

    def try_boot(self) -> bool:
        """An attempt to boot ends; whether the machine is up."""
        slot = self.machine.next_boot
        if not self.machine.power_on(self._boot_cause, self._comes_up):
            self.tell(Deed.PANICKED, slot)
            self._boot_cause = MachineCause.PANIC
            self.up_at = self.now + self.within(self.spec.durations.boot_s)
            return False
        self.up, self.up_at, self.up_since = True, math.inf, self.now
        self.engine.start(lambda: self.now + self.within(self.spec.durations.containers_s))
        self.tell(Deed.BOOTED, self.machine.booted)
        return True

    def _comes_up(self, entry: Entry) -> bool:
        return entry.version not in self.spec.troubles.no_boot

    # --- containers -----------------------------------------------------------------------------------------

    def failing(self) -> ChecksFail | None:
        """The fault that makes a required check fail now."""
        return self.spec.troubles.failing(self.machine.running.version, self.uptime_s)

    def next_health_change(self) -> float:
        """When checks may find something else; infinite when never."""
        version = self.machine.running.version
        return self.up_since + self.spec.troubles.next_health_change(version, self.uptime_s)

    def turn_replicas(self) -> bool:
        """Those that are healthy from now on, and those that a broken image takes down; whether there are any."""
        fault = self.failing()
        came, went = self.engine.turn(self.now, broken=fault is not None and fault.breaks_services)
        self._tell_replicas(came, 1, Cause.STARTED)
        self._tell_replicas(went, -1, Cause.UNHEALTHY)
        return bool(came or went)

    def take(self, replica: Replica) -> None:
        ready_s = self.within(self.spec.durations.containers_s)
        self.engine.add(replica, self.now + ready_s if self.up else math.inf)

    def drop(self, replica: Replica) -> None:
        self._tell_replicas(self.engine.remove(replica), -1, Cause.MOVED)

    # --- the network ----------------------------------------------------------------------------------------

    def network_up(self) -> bool:
        return self.spec.troubles.network_up(self.run_s)

    def turn_network(self) -> bool:
        """The network comes or goes now; whether it is up."""
        self.network_at = self._next_network_change()
        return self.network_up()

    def _next_network_change(self) -> float:
        return self._start + self.spec.troubles.next_network_change(self.run_s)

    def work_s(self, work: Work) -> float:
        """How long a piece of work takes."""
        seconds = self.within(SHORT_S)
        if work.kind is WorkKind.STAGE and work.image is not None:
            rate = MIB * self.within(self.spec.durations.download_mib_s) / self.spec.troubles.download_factor
            seconds += work.image.size / (min(rate, work.bandwidth_bytes_s) if work.bandwidth_bytes_s else rate)
        elif work.kind is WorkKind.DRAIN:
            seconds += min(self.within(self.spec.durations.drain_s), work.limit_s)
        return seconds

    def download_is_dead(self) -> bool:
        return not self.network_up() or self.spec.troubles.download_is_dead(self.run_s)

    # --- what somebody beside it sees -----------------------------------------------------------------------

    def tell(self, deed: Deed, slot: str) -> None:
        self._watch.deed(self._node, deed, slot, self.now)

    def _tell_replicas(self, services: list[int], change: int, cause: Cause) -> None:
        if services:
            self._watch.replicas(self._node, services, change, cause, self.now)
