"""What the runner hears of the machine: rounds of checks, slots, containers, inhibitors.

Each sense is a loop for the life of the agent. It remembers the newest it has seen and tells the runner's queue
what the phase machine has to know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence

import msgspec

from agent.drivers.base import Driver, DriverError
from agent.inhibit import Inhibitors
from agent.phases.inputs import Checked, Inhibited, Input, Placed, SlotsSeen, Ticked
from agent.phases.model import State, Step
from agent.placement import NO_CONTAINERS, NO_RUNTIME, merged, serving
from agent.runtimes.base import Runtime
from wire.messages import Health, HealthState, Hold, Placement

TICK_S = 1.0
SLOTS_S = 30.0
"""How often slots are looked at although nothing of ours changed them."""
INHIBITORS_S = 1.0
PLACEMENT_S = 15.0
"""A reading without an event: an engine that hangs says none, and until then its placement passes for known. It costs
the engine one list; what is known of each container is kept."""
UNKNOWN_S = 5.0
"""An engine that hung and answers again says no event: while it is unknown it is read this often."""
FIRST_READING_S = 15.0
"""The first round of checks waits this long for the container engines: without them it would be unhealthy for
a moment at every start. An engine that is slower than this is a finding."""


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Where the senses look; tests bring their own."""

    driver: Driver
    check: Callable[[Placement | None], Awaitable[Health]]
    runtimes: Sequence[Runtime]
    inhibitors: Inhibitors
    boot_s: Callable[[], float]
    no_containers: bool = False
    """Nothing runs here that anybody would miss: without an engine the placement is known, and empty."""
    check_interval_s: float = 15.0
    trial_check_interval_s: float = 2.0
    slots_interval_s: float = SLOTS_S
    inhibitors_interval_s: float = INHIBITORS_S
    first_reading_s: float = FIRST_READING_S
    unknown_s: float = UNKNOWN_S


class Senses:
    """`tell` puts an input into the runner's queue, `changed` says that what is shown may differ.

    `state` reads the machine's present state, `busy` whether work is under way. Fields to read: health,
    holds (what cannot be seen).
    """

    def __init__(
        self,
        sources: Sources,
        *,
        tell: Callable[[Input], None],
        changed: Callable[[], None],
        state: Callable[[], State],
        busy: Callable[[], bool],
    ) -> None:
        self._sources = sources
        self._tell = tell
        self._changed = changed
        self._state = state
        self._busy = busy
        self._hurry = asyncio.Event()
        self._placements: dict[int, Placement] = {}
        self._all_read = asyncio.Event()
        self._driver_hold: Hold | None = None
        self.health = Health(state=HealthState.UNKNOWN, reasons=["No round of checks has ended yet."])

    def loops(self) -> list[tuple[str, Coroutine[None, None, None]]]:
        """All loops by name; each runs until cancelled."""
        sources = self._sources
        loops: list[tuple[str, Coroutine[None, None, None]]] = [
            ("checks", self._check()),
            ("ticks", every(TICK_S, self._tick)),
            ("slots", every(sources.slots_interval_s, self._look)),
            ("inhibitors", every(sources.inhibitors_interval_s, self._note_inhibitors)),
        ]
        for number, runtime in enumerate(sources.runtimes):
            loops.append((f"runtime {number}", self._watch(number, runtime)))
            loops.append((f"reading {number}", self._reread(number, runtime)))
        return loops

    @property
    def holds(self) -> list[Hold]:
        return [self._driver_hold] if self._driver_hold is not None else []

    @property
    def has_engine(self) -> bool:
        return bool(self._sources.runtimes)

    @property
    def knows_placement(self) -> bool:
        """Whether it can be known at all what runs here."""
        return self.has_engine or self._sources.no_containers

    def placement(self) -> Placement:
        """Of all engines together."""
        if not self.has_engine:
            return NO_CONTAINERS if self._sources.no_containers else NO_RUNTIME
        return merged(self._placements, len(self._sources.runtimes))

    def hurry(self) -> None:
        """Begin the next round of checks now: the node is on trial."""
        self._hurry.set()

    def inhibitors(self) -> Inhibited | None:
        """Who inhibits now, when that differs from what the machine knows."""
        present = self._sources.inhibitors.present(self._sources.boot_s())
        names = [f"{inhibitor.why} ({inhibitor.by})" if inhibitor.by else inhibitor.why for inhibitor in present]
        return Inhibited(names=names) if names != self._state().inhibitors else None

    def placed(self) -> Placed | None:
        """What runs here, when that differs from what the machine knows."""
        now = serving(self.placement())
        return Placed(serving=now) if now != self._state().serving else None

    async def look(self) -> None:
        """Read all engines now, each within its own limits: before a step towards a reboot the newest counts."""
        runtimes = enumerate(self._sources.runtimes)
        await asyncio.gather(*(self._read_placement(number, runtime) for number, runtime in runtimes))

    async def _tick(self) -> None:
        self._tell(Ticked())

    async def _look(self) -> None:
        """What somebody else did to the slots; not while our own work changes them."""
        if self._busy():
            return
        before = self._driver_hold
        try:
            async with asyncio.timeout(SLOTS_S):
                slots = await self._sources.driver.slots()
        except (DriverError, TimeoutError) as problem:
            text = problem.text if isinstance(problem, DriverError) else "no answer in time"
            self._driver_hold = Hold(code="driver", text=f"slots cannot be read: {text}")
        else:
            self._driver_hold = None
            if not self._busy() and slots != self._state().slots:
                self._tell(SlotsSeen(slots=slots))
        if self._driver_hold != before:
            self._changed()

    async def _note_inhibitors(self) -> None:
        news = self.inhibitors()
        if news is not None:
            self._tell(news)

    async def _check(self) -> None:
        await self._wait_for_engines()
        while True:
            self.health = await self._sources.check(self.placement() if self.has_engine else None)
            self._tell(Checked(health=self.health))
            await self._pause_checks()

    async def _wait_for_engines(self) -> None:
        if not self.has_engine:
            self._tell(Placed(serving=serving(self.placement())))
            return
        try:
            async with asyncio.timeout(self._sources.first_reading_s):
                await self._all_read.wait()
        except TimeoutError:
            return  # the check of the engine says so

    async def _pause_checks(self) -> None:
        on_trial = self._state().step is Step.CONFIRMING
        sources = self._sources
        interval_s = sources.trial_check_interval_s if on_trial else sources.check_interval_s
        self._hurry.clear()
        try:
            async with asyncio.timeout(interval_s):
                await self._hurry.wait()
        except TimeoutError:
            return  # the pause is over

    async def _watch(self, number: int, runtime: Runtime) -> None:
        await self._read_placement(number, runtime)
        async for _ in runtime.changes():
            await self._read_placement(number, runtime)

    async def _reread(self, number: int, runtime: Runtime) -> None:
        """Without an event: now and then while the engine is known, soon again while it is not."""
        passed_s = 0.0
        while True:
            await asyncio.sleep(self._sources.unknown_s)
            passed_s += self._sources.unknown_s
            placement = self._placements.get(number)
            unknown = placement is not None and not placement.known  # None: the first reading is under way
            if unknown or passed_s >= PLACEMENT_S:
                await self._read_placement(number, runtime)
                passed_s = 0.0

    async def _read_placement(self, number: int, runtime: Runtime) -> None:
        self._placements[number] = await runtime.placement()
        if len(self._placements) == len(self._sources.runtimes):
            self._all_read.set()
        news = self.placed()
        if news is not None:
            self._tell(news)
        self._changed()


async def every(interval_s: float, action: Callable[[], Awaitable[None]]) -> None:
    """Do `action` after each pause, for ever."""
    while True:
        await asyncio.sleep(interval_s)
        await action()
