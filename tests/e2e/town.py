"""Nodes with invented engines, and what serves on them now, counted in the engines themselves.

Containers are down from the moment at which their node begins to reboot or loses its power, and serve again some time
after it has booted. Nothing here asks agent or control plane: it is what the users of a service would see.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sim.engine import InventedContainer, InventedEngine
from sim.local import LocalNode
from tests.e2e.kit import Fleet

LOOK_S = 0.01
"""Between two looks of the watch."""
START_S = 2.0
"""From a boot until containers are healthy: longer than an agent needs to confirm its slot."""
LIMIT_S = 10.0
"""For the engines' thread to answer."""


@dataclass
class Machine:
    """A node, its engine, and the boot that its containers run in; an empty one while it is down."""

    node: LocalNode
    engine: InventedEngine
    boot_id: str = ""
    over: str = ""
    """The boot that has ended."""
    healthy_at: float = 0.0

    def look(self, now: float) -> None:
        """Follow the machine below: down, booted, containers healthy."""
        boot_id = self._boot_id()
        if boot_id != self.boot_id:
            self.over, self.boot_id, self.healthy_at = self.boot_id or self.over, boot_id, now + START_S
            self._all("starting", running=bool(boot_id))
        elif boot_id and self.healthy_at and now >= self.healthy_at:
            self.healthy_at = 0.0
            self._all("healthy", running=True)

    @property
    def serving(self) -> int:
        """Containers that users reach."""
        return sum(one.running and one.health == "healthy" for one in self.engine.containers.values())

    def _boot_id(self) -> str:
        """Of the boot that runs; empty: the machine is off, or on its way to the next boot."""
        run = self.node.root / "run"
        if not self.node.process.running or (run / "reboot").exists():
            return ""
        with suppress(FileNotFoundError):
            found = str(json.loads((run / "boot.json").read_bytes())["boot_id"])
            return found if found != self.over else ""
        return ""

    def _all(self, health: str, *, running: bool) -> None:
        for name, one in self.engine.containers.items():
            if one.running != running:
                self.engine.set_running(name, running)
            self.engine.set_health(name, health)


@dataclass
class Town:
    """Use it in `with`. One service runs here: every container is a replica of it."""

    fleet: Fleet
    scope: str
    service: str
    expected: int
    counts: list[tuple[float, int]] = field(default_factory=list)
    """When so many replicas began to serve, since `forget`."""
    _machines: dict[str, Machine] = field(default_factory=dict)
    _numbers: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def __enter__(self) -> Town:
        self._thread = threading.Thread(target=self._loop.run_forever, name="engines")
        self._thread.start()
        self._watching = asyncio.run_coroutine_threadsafe(self._watch(), self._loop)
        return self

    def __exit__(self, *_: object) -> None:
        self._watching.cancel()
        for machine in self._machines.values():
            self._do(machine.engine.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- nodes ----------------------------------------------------------------------------------------------

    def build(self, number: int) -> list[LocalNode]:
        """Machines that have not joined, each with an engine and nothing on it."""
        made = []
        for _ in range(number):
            self._numbers += 1
            engine = InventedEngine(self.fleet.folder / f"engine-{self._numbers}.sock", [])
            self._do(engine.start())
            node = self.fleet.powered_off_node(runtimes=json.dumps([str(engine.socket)]))
            self._machines[node.name] = Machine(node, engine)
            made.append(node)
        return made

    # --- containers -----------------------------------------------------------------------------------------

    def start(self, node: LocalNode, name: str) -> None:
        """A replica comes to run here; it is healthy at once, and with its node after each boot."""
        self._do(self._start(self._machines[node.name], name))

    def stop(self, node: LocalNode, name: str) -> None:
        """It is taken away from here."""
        self._do(self._stop(self._machines[node.name], name))

    def carriers(self) -> list[LocalNode]:
        """Nodes that it is placed on, up or not."""
        return [machine.node for machine in self._machines.values() if machine.engine.containers]

    def on(self, node: LocalNode) -> list[str]:
        return list(self._machines[node.name].engine.containers)

    def serving(self, *nodes: LocalNode) -> int:
        """Replicas that serve now, on these nodes or on all."""
        names = {node.name for node in nodes} or set(self._machines)
        return sum(self._machines[name].serving for name in names)

    # --- the watch ------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Watch from now on."""
        self._do(self._forget())

    @property
    def least(self) -> int:
        """Fewest that served at any moment since `forget`."""
        return min(count for _, count in self.counts)

    @property
    def most(self) -> int:
        return max(count for _, count in self.counts)

    async def _watch(self) -> None:
        while True:
            for machine in list(self._machines.values()):
                machine.look(time.monotonic())
            count = self.serving()
            if not self.counts or self.counts[-1][1] != count:
                self.counts.append((time.time(), count))
            await asyncio.sleep(LOOK_S)

    async def _forget(self) -> None:
        self.counts = [(time.time(), self.serving())]

    async def _start(self, machine: Machine, name: str) -> None:
        labels = {
            "twinroot.scope": self.scope,
            "twinroot.service": self.service,
            "twinroot.replicas": str(self.expected),
        }
        up = bool(machine.boot_id)
        container = InventedContainer(name, f"{self.scope}/{self.service}:1", labels, running=False)
        machine.engine.containers[name] = container
        if up:
            machine.engine.set_running(name, True)

    async def _stop(self, machine: Machine, name: str) -> None:
        machine.engine.set_running(name, False)
        del machine.engine.containers[name]

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT_S)
