"""Driver `rauc`: the real RAUC over D-Bus. An image is one signed bundle; its OS name is RAUC's Compatible.

RAUC makes an installed slot the next boot by default. `stage` takes that back in the same step, and parks the
slot (marked bad) until `arm` marks it active, which every boot loader backend of RAUC answers by making the
slot bootable again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent import facts
from agent.drivers.base import DriverCode, DriverError, Progress
from agent.drivers.boot_reason import boot_reason
from agent.drivers.rauc_bus import MarkState, RaucBus, RaucCallError, SlotStatus, rauc_bus
from agent.drivers.rauc_notes import (
    BOOTED,
    Note,
    Notes,
    Standing,
    as_slot,
    current,
    load_notes,
    note_for,
    save_notes,
    was_good,
)
from agent.evidence import Contents, EvidenceTable, Row, Verdict
from agent.evidence import Standing as Found
from wire.messages import BootCause, Image, OsFacts, Slot

CALL_LIMIT_S = 10.0
"""RAUC answers from memory and a boot loader's environment; 10 s is a sick machine."""

STALL_LIMIT_S = 900.0
"""RAUC says nothing between the start and the end of writing one large slot."""

REBOOT_LIMIT_S = 300.0
"""How long the system may take to go down after it accepted the reboot."""

PIPELESS = asyncio.subprocess.DEVNULL

NO_SPACE_WORDS = "No space left on device"

EVIDENCE = EvidenceTable(
    (
        # RAUC counts no tries: only a slot that the boot loader calls bad was certainly tried.
        Row(Verdict.NEVER_SWITCHED, rebooted=False),
        Row(Verdict.UNKNOWN, contents=Contents.DIFFERENT),
        Row(Verdict.UNKNOWN, contents=Contents.UNKNOWN),
        Row(Verdict.UPDATED, booted=True),
        Row(Verdict.FELL_BACK, standing=Found.BAD),
        Row(Verdict.NEVER_SWITCHED, standing=Found.PARKED),
        Row(Verdict.NEVER_SWITCHED, standing=Found.GOOD),
        Row(Verdict.NEVER_SWITCHED, next_boot=True),
        Row(Verdict.UNKNOWN),
    )
)


@dataclass(frozen=True)
class View:
    """Both slots at one moment, as RAUC and the notes say."""

    booted: str
    passive: str
    primary: str
    statuses: dict[str, SlotStatus]
    notes: Notes
    boot_id: str

    def check(self, slot: str) -> None:
        if slot not in (self.booted, self.passive):
            raise DriverError(DriverCode.REFUSED, f"there is no slot {slot!r}")

    def confirmed(self) -> bool:
        return next(found for found in self.slots() if found.booted).good is True

    def passive_is_way_back(self) -> bool:
        """The booted slot is not confirmed and the passive one was."""
        confirmed = was_good(self.statuses[self.passive], self.note(self.passive))
        return confirmed and not self.confirmed()

    def note(self, slot: str) -> Note | None:
        return current(self.notes, slot, self.statuses[slot])

    def slots(self) -> list[Slot]:
        return [
            as_slot(name, self.statuses[name], self.note(name), primary=self.primary, boot_id=self.boot_id)
            for name in sorted((self.booted, self.passive))
        ]


class RaucDriver:
    """RAUC on the bus at `bus_address` (the system bus when None); `notes` is a file of the agent's state."""

    name = "rauc"
    evidence = EVIDENCE

    def __init__(
        self,
        notes: Path,
        *,
        bus_address: str | None = None,
        root: Path = facts.ROOT,
        reboot_command: Sequence[str] = ("systemctl", "reboot"),
        call_limit_s: float = CALL_LIMIT_S,
        stall_limit_s: float = STALL_LIMIT_S,
        reboot_limit_s: float = REBOOT_LIMIT_S,
    ) -> None:
        self._path = notes
        self._address = bus_address
        self._root = root
        self._reboot_command = tuple(reboot_command)
        self._call_limit_s = call_limit_s
        self._stall_limit_s = stall_limit_s
        self._reboot_limit_s = reboot_limit_s
        self._lock = asyncio.Lock()
        self._last: list[Slot] | None = None
        """What slots() answers while an installation of ours runs, also one whose staging was cancelled."""

    async def os(self) -> OsFacts:
        async with self._bus() as bus:
            compatible = await bus.compatible()
        booted = next(slot for slot in await self.slots() if slot.booted)
        found = facts.os_facts(self._root, self.name)
        return msgspec.structs.replace(found, id=compatible, version=booted.version or found.version)

    async def boot_id(self) -> str:
        try:
            return facts.boot_id(self._root)
        except facts.FactsError as problem:
            raise DriverError(DriverCode.TOOL, str(problem)) from problem

    async def slots(self) -> list[Slot]:
        """See Driver. While an installation of ours runs, RAUC answers nobody: then what was true before it.

        DriverError with code BUSY when one runs that began before this process did.
        """
        try:
            async with self._bus() as bus:
                return (await self._view(bus)).slots()
        except DriverError as problem:
            if problem.code != DriverCode.BUSY or self._last is None:
                raise
            return self._last

    async def stage(self, image: Image, payload: Path, progress: Progress) -> None:
        """See Driver. RAUC checks the bundle first: one that it refuses leaves both slots as they were.

        Cancelling stops the waiting only: RAUC ends what it began, and the next call waits for that.
        """
        async with self._work() as (bus, view):
            if not view.confirmed():
                raise DriverError(DriverCode.REFUSED, f"the booted slot {view.booted} is not confirmed")
            await self._check_bundle(bus, payload)
            self._last = [slot if slot.booted else _being_written(slot) for slot in view.slots()]
            try:
                await self._install(bus, payload, progress)
            except DriverError as problem:
                self._last = None
                await self._take_back_after(bus, problem)
                raise
            self._last = None
            view = await self._view(bus)
            await self._take_back(bus, view)  # before the note, which a full disk may not take
            self._save(view, view.passive, _staged(view.statuses[view.passive], image))
            await bus.mark(MarkState.BAD, view.passive)
        progress(1.0)

    async def arm(self, slot: str) -> None:
        """See Driver. On trial, unless it is the confirmed slot that a trial goes back to."""
        async with self._work() as (bus, view):
            view.check(slot)
            if slot == view.passive and not view.passive_is_way_back():
                self._note(view, slot, Standing.ARMED)
            await bus.mark(MarkState.ACTIVE, slot)
            await _must_be_primary(bus, slot)

    async def disarm(self) -> None:
        """See Driver. A booted slot that is on trial gains no new tries by it."""
        async with self._work() as (bus, view):
            running, note = view.note(view.booted), view.note(view.passive)
            if note is None or note.standing is not Standing.ARMED:
                if running is None or running.standing not in (Standing.ARMED, Standing.BAD):
                    await self._take_back(bus, view)
                return
            await self._take_back(bus, view)
            if note.was_good:
                self._note(view, view.passive, Standing.GOOD)
            else:
                self._note(view, view.passive, Standing.PARKED)
                await bus.mark(MarkState.BAD, view.passive)

    async def mark_good(self) -> None:
        async with self._work() as (bus, view):
            await bus.mark(MarkState.GOOD, view.booted)
            # Of a slot that it did not fill itself RAUC knows no version; only now its own files say it.
            self._note(view, view.booted, Standing.GOOD, facts.os_facts(self._root).version)

    async def mark_bad(self, slot: str) -> None:
        async with self._work() as (bus, view):
            view.check(slot)
            await bus.mark(MarkState.BAD, slot)
            self._note(view, slot, Standing.BAD)

    async def reboot(self) -> None:
        """See Driver. DriverError when the command fails, or the system is still up long after it."""
        try:
            command = await asyncio.create_subprocess_exec(
                *self._reboot_command, stdin=PIPELESS, stdout=PIPELESS, stderr=asyncio.subprocess.PIPE
            )
        except OSError as problem:
            raise DriverError(DriverCode.TOOL, f"{self._reboot_command[0]}: {problem.strerror}") from problem
        try:
            async with asyncio.timeout(self._reboot_limit_s):
                _, said = await command.communicate()
                if command.returncode == 0:
                    await asyncio.get_running_loop().create_future()  # until this process is stopped
        except TimeoutError as problem:
            text = f"still up {self._reboot_limit_s:g} s after {self._reboot_command[0]}"
            raise DriverError(DriverCode.TOOL, text) from problem
        finally:
            if command.returncode is None:
                command.kill()
                await command.wait()
        words = said.decode(errors="replace").strip()
        raise DriverError(DriverCode.TOOL, f"{self._reboot_command[0]}: {words or command.returncode}")

    async def boot_cause(self) -> BootCause:
        return boot_reason(self._root)

    # --- steps ------------------------------------------------------------------------------------------

    def _bus(self) -> AbstractAsyncContextManager[RaucBus]:
        return rauc_bus(self._address, self._call_limit_s)

    @asynccontextmanager
    async def _work(self) -> AsyncIterator[tuple[RaucBus, View]]:
        """One change at a time, begun when RAUC is idle."""
        async with self._lock, self._bus() as bus:
            await bus.wait_idle(self._stall_limit_s)
            view = await self._view(bus)
            self._last = None
            yield bus, view

    async def _view(self, bus: RaucBus) -> View:
        statuses = {name: status for name, status in (await bus.slot_status()).items() if status.bootname}
        booted = [name for name, status in statuses.items() if status.state == BOOTED]
        if len(booted) != 1:
            raise DriverError(DriverCode.TOOL, "RAUC does not know which slot is booted")
        kind = statuses[booted[0]].slot_class
        passive = [name for name, status in statuses.items() if status.slot_class == kind]
        passive.remove(booted[0])
        if len(passive) != 1:
            raise DriverError(DriverCode.TOOL, f"RAUC has {len(passive) + 1} slots of class {kind}, not two")
        primary, boot_id = await bus.primary(), await self.boot_id()
        return View(booted[0], passive[0], primary, statuses, load_notes(self._path), boot_id)

    async def _check_bundle(self, bus: RaucBus, payload: Path) -> None:
        """DriverError REFUSED with RAUC's words when it is no bundle, not validly signed, or not for here."""
        try:
            compatible, _ = await bus.info(str(payload.resolve()), self._stall_limit_s)
        except RaucCallError as problem:
            if problem.code == DriverCode.BUSY:
                raise
            raise DriverError(DriverCode.REFUSED, f"RAUC refuses the bundle: {problem.words}") from problem
        wanted = await bus.compatible()
        if compatible != wanted:
            text = f"the bundle is for {compatible}, and this machine is {wanted}"
            raise DriverError(DriverCode.REFUSED, text)

    async def _install(self, bus: RaucBus, payload: Path, progress: Progress) -> None:
        if await bus.install(str(payload.resolve()), progress, self._stall_limit_s) == 0:
            return
        words = await bus.last_error()
        code = DriverCode.NO_SPACE if NO_SPACE_WORDS in words else DriverCode.TOOL
        raise DriverError(code, f"RAUC could not install: {words}")

    async def _take_back(self, bus: RaucBus, view: View) -> None:
        """The booted slot is next; nothing is touched when it already is."""
        if view.primary != view.booted:
            await bus.mark(MarkState.ACTIVE, view.booted)
            await _must_be_primary(bus, view.booted)

    async def _take_back_after(self, bus: RaucBus, problem: DriverError) -> None:
        try:
            await self._take_back(bus, await self._view(bus))
        except DriverError as second:
            raise DriverError(problem.code, f"{problem.text}; and after that: {second.text}") from second

    def _note(self, view: View, slot: str, standing: Standing, version: str = "") -> None:
        self._save(view, slot, note_for(view.statuses[slot], standing, view.note(slot), view.boot_id, version))

    def _save(self, view: View, slot: str, note: Note) -> None:
        save_notes(self._path, {**view.notes, slot: note})


async def _must_be_primary(bus: RaucBus, slot: str) -> None:
    primary = await bus.primary()
    if primary != slot:
        raise DriverError(DriverCode.TOOL, f"RAUC marked {slot} active and still says {primary} is next")


def _being_written(slot: Slot) -> Slot:
    return Slot(name=slot.name, booted=False, next_boot=False, good=False)


def _staged(status: SlotStatus, image: Image) -> Note:
    return Note(
        installed_at=status.installed_at,
        installed_count=status.installed_count,
        standing=Standing.PARKED,
        digest=image.digest,
        version=image.version,
    )
