"""A machine in memory for the runner: driver, checks, engine, witnesses; `boot` starts an agent on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from agent.download import Supply
from agent.drain import Verb
from agent.drivers.base import DriverError, Progress
from agent.drivers.files import EVIDENCE
from agent.evidence import EvidenceTable
from agent.inhibit import Inhibitors
from agent.phases.inputs import Limits
from agent.phases.model import State
from agent.runner import Runner, Surroundings
from agent.senses import Sources
from agent.state import Identity, StateFolder
from agent.status import Shown
from agent.trust import TrustCode, TrustError
from agent.work import Means
from tests.agent.wanted import digest
from wire.messages import BootCause, Check, CheckState, Health, HealthState, Image, OsFacts, Placement, Slot

TRIES = 3


class Machine:
    """The driver of agent.drivers.base on two slots in memory, and what else an agent needs.

    Fields that tests set: health, broken (versions that do not boot), failures (method -> errors to raise),
    trusted, standing, placement, full_disk, drain_fails, gates (method -> event that it waits for).
    """

    name = "memory"

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.slots_: dict[str, Slot] = {
            "a": Slot(name="a", booted=True, next_boot=True, version="1", digest=digest("1"), good=True),
            "b": Slot(name="b", booted=False, next_boot=False, good=False, tries_left=0),
        }
        self.boots = 1
        self.health = Health(state=HealthState.HEALTHY)
        self.placement = Placement(known=True, engine="memory")
        self.placement_changed = asyncio.Event()
        self.broken: set[str] = set()
        self.failures: dict[str, list[Exception]] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.first_reading_s = 10.0
        self.trusted = True
        self.standing = True
        self.shuts_down = False
        self.full_disk = False
        self.drain_fails: set[Verb] = set()
        self.supplies: list[Supply] = []
        self.rebooted = asyncio.Event()
        self.calls: list[str] = []
        self.shown: list[Shown] = []
        self.checked_with: list[Placement | None] = []
        self.boot_offset_s = 0.0

    # --- the driver -------------------------------------------------------------------------------------

    async def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.gates:
            await self.gates[name].wait()
        if self.failures.get(name):
            raise self.failures[name].pop(0)

    async def os(self) -> OsFacts:
        return OsFacts(id="demo", arch="amd64", version="1", driver=self.name)

    async def boot_id(self) -> str:
        return f"boot-{self.boots}"

    async def slots(self) -> list[Slot]:
        return list(self.slots_.values())

    async def stage(self, image: Image, payload: Path, progress: Progress) -> None:
        await self._called("stage")
        assert payload.read_text() == image.version
        progress(0.5)
        self._set(self.passive, version=image.version, digest=image.digest, good=None, tries_left=0)

    async def arm(self, slot: str) -> None:
        await self._called("arm")
        self._set(slot, good=None, tries_left=TRIES)
        self._next(slot)

    async def disarm(self) -> None:
        await self._called("disarm")
        self._next(self.booted)

    async def mark_good(self) -> None:
        await self._called("mark_good")
        self._set(self.booted, good=True, tries_left=None)

    async def mark_bad(self, slot: str) -> None:
        await self._called("mark_bad")
        self._set(slot, good=False, tries_left=0)

    async def reboot(self) -> None:
        await self._called("reboot")
        self.rebooted.set()
        await asyncio.get_running_loop().create_future()

    async def boot_cause(self) -> BootCause:
        return BootCause.UNKNOWN

    # --- the machine ------------------------------------------------------------------------------------

    @property
    def booted(self) -> str:
        return next(slot.name for slot in self.slots_.values() if slot.booted)

    @property
    def passive(self) -> str:
        return next(slot.name for slot in self.slots_.values() if not slot.booted)

    def _set(self, name: str, **changes: Any) -> None:
        self.slots_[name] = msgspec.structs.replace(self.slots_[name], **changes)

    def _next(self, name: str) -> None:
        for slot in self.slots_:
            self._set(slot, next_boot=slot == name)

    def power_on(self) -> None:
        """The boot loader chooses; the agent is not started."""
        chosen = next(slot for slot in self.slots_.values() if slot.next_boot)
        if chosen.version in self.broken:
            self._set(chosen.name, good=False, tries_left=0)
            chosen = next(slot for slot in self.slots_.values() if slot.name != chosen.name)
        elif chosen.tries_left:
            self._set(chosen.name, tries_left=chosen.tries_left - 1)
        for slot in self.slots_:
            self._set(slot, booted=slot == chosen.name, next_boot=slot == chosen.name)
        self.boots += 1
        self.rebooted.clear()

    # --- the rest of it ---------------------------------------------------------------------------------

    def boot_s(self) -> float:
        return time.monotonic() + self.boot_offset_s

    async def _download(self, image: Image, into: Path, progress: Progress, supply: Supply) -> None:
        await self._called("download")
        self.supplies.append(supply)
        into.write_text(image.version)
        progress(1.0)

    def _trust(self, image: Image) -> None:
        if not self.trusted:
            raise TrustError(TrustCode.UNKNOWN_KEY, f"{image.version} is signed by nobody we know")

    async def _probe(self) -> dict[str, bool]:
        return {"route": self.standing}

    async def _drain(self, script: str, verb: Verb, limit_s: float) -> Check:
        await self._called(verb)
        state = CheckState.FAILED if verb in self.drain_fails else CheckState.PASSED
        return Check(name=f"drain.d/{script}", state=state, text=f"{verb} within {limit_s:.0f} s", output="said")

    async def _check(self, placement: Placement | None) -> Health:
        self.checked_with.append(placement)
        if "check" in self.gates:
            await self._called("check")
        return self.health

    async def _placement(self) -> Placement:
        return self.placement

    def runner(self, folder: StateFolder, identity: Identity, **more: Any) -> Runner:
        means = Means(
            driver=self,
            download=self._download,
            trust=self._trust,
            probe=self._probe,
            still_standing=lambda before, now: before == now,
            drain=self._drain,
            boot_s=self.boot_s,
            downloads=folder.downloads,
        )
        sources = Sources(
            driver=self,
            check=self._check,
            runtimes=[Engine(self)],
            inhibitors=self.inhibitors(),
            boot_s=self.boot_s,
            check_interval_s=0.02,
            trial_check_interval_s=0.01,
            slots_interval_s=0.05,
            inhibitors_interval_s=0.02,
            first_reading_s=self.first_reading_s,
            unknown_s=0.02,
        )
        surroundings = Surroundings(
            evidence=EvidenceTable(EVIDENCE, tries=TRIES),
            wall=time.time,
            boot_at=lambda: 1.0,
            shutting_down=lambda: self.shuts_down,
            hostname="host",
            agent_version="1",
        )
        return Runner(
            folder,
            identity,
            folder.read_state() or State(),
            means,
            sources,
            surroundings,
            limits=more.pop("limits", Limits(work_retry_s=0.01, stage_backoff_s=0.01)),
            status=self.shown.append,
            chance=lambda: 0.5,
            disk_retry_s=0.01,
            **more,
        )

    def inhibitors(self) -> Inhibitors:
        return Inhibitors(self.root / "inhibitors", "kernel-boot")


class Engine:
    """A container engine of the machine."""

    name = "memory"

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def placement(self) -> Placement:
        if "placement" in self._machine.gates:
            await self._machine.gates["placement"].wait()
        return self._machine.placement

    async def changes(self) -> AsyncIterator[None]:
        while True:
            await self._machine.placement_changed.wait()
            self._machine.placement_changed.clear()
            yield None


class FullableFolder(StateFolder):
    """A state folder on a disk that can be full."""

    def __init__(self, folder: Path, full: Callable[[], bool]) -> None:
        super().__init__(folder)
        self._full = full
        self.refused = 0

    def write_state(self, state: State) -> None:
        if self._full():
            self.refused += 1
            raise OSError(28, "No space left on device")
        super().write_state(state)


@asynccontextmanager
async def agent_on(machine: Machine, identity: Identity, **more: Any) -> AsyncIterator[Runner]:
    """An agent that runs on the machine; leaving the block is kill -9, unless it was stopped before."""
    folder = FullableFolder(machine.root / "state", lambda: machine.full_disk)
    folder.open()
    runner = machine.runner(folder, identity, **more)
    task = asyncio.create_task(runner.run())
    try:
        yield runner
        if task.done() or runner._stop.is_set():
            await asyncio.wait_for(task, 10)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        folder.close()


def driver_error(code: str = "tool", text: str = "the tool says no") -> DriverError:
    return DriverError(code, text)
