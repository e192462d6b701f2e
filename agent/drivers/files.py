"""Driver `files`: a double buffer on two plain files and a boot record, for demos, containers and tests.

Real bytes, real verification, real syncs; the boot loader is agent.drivers.files_machine.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from agent.drivers.base import DriverCode, DriverError, Progress
from agent.drivers.files_disk import Disk
from agent.drivers.files_node import (
    CHUNK_BYTES,
    REBOOT_EXIT,
    BadHeader,
    MachineCause,
    NodeFiles,
    read_header,
)
from agent.drivers.files_record import (
    SLOTS,
    BootRecord,
    Entry,
    EntryState,
    armed,
    confirmed,
    disarmed,
    emptied,
    next_boot,
    other,
    unbootable,
    written,
)
from agent.evidence import Contents, EvidenceTable, Row, Standing, Verdict
from agent.interruptible import Stopped, interruptible
from wire.messages import BootCause, Image, OsFacts, Slot

DEFAULT_TRIES = 3

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

EVIDENCE = (
    # The firmware takes a try away before each attempt and marks a used-up slot bad, so it always knows.
    Row(Verdict.NEVER_SWITCHED, rebooted=False),
    Row(Verdict.UNKNOWN, contents=Contents.DIFFERENT),
    Row(Verdict.UNKNOWN, contents=Contents.UNKNOWN),
    Row(Verdict.UPDATED, booted=True),
    Row(Verdict.FELL_BACK, standing=Standing.BAD),
    Row(Verdict.FELL_BACK, standing=Standing.TRIED),
    Row(Verdict.NEVER_SWITCHED, standing=Standing.UNTRIED),
    Row(Verdict.NEVER_SWITCHED, standing=Standing.PARKED),
    Row(Verdict.NEVER_SWITCHED, standing=Standing.GOOD),
    Row(Verdict.UNKNOWN),
)

CAUSES = {
    MachineCause.POWER_ON: BootCause.WATCHDOG_OR_POWER,
    MachineCause.POWER_CUT: BootCause.WATCHDOG_OR_POWER,
    MachineCause.WATCHDOG: BootCause.WATCHDOG_OR_POWER,
    MachineCause.PANIC: BootCause.PANIC,
    MachineCause.REBOOT: BootCause.UNKNOWN,  # orderly: the agent knows who asked, the firmware does not
}


def exit_for_reboot() -> None:
    """End this process so that the firmware reboots: as on a real machine nothing runs after it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(REBOOT_EXIT)


class FilesDriver:
    """The two slots below `root`. `on_reboot` is called when the reboot is requested on disk."""

    name = "files"

    def __init__(
        self,
        root: Path,
        *,
        tries: int = DEFAULT_TRIES,
        disk: Disk | None = None,
        on_reboot: Callable[[], None] = exit_for_reboot,
    ) -> None:
        self.files = NodeFiles(root)
        self.tries = tries
        self.evidence = EvidenceTable(EVIDENCE, tries=tries)
        self._disk = disk or Disk()
        self._on_reboot = on_reboot
        self._lock = threading.Lock()

    async def os(self) -> OsFacts:
        return await asyncio.to_thread(self._os)

    async def boot_id(self) -> str:
        with self._words():
            return self.files.read_running().boot_id

    async def slots(self) -> list[Slot]:
        return await asyncio.to_thread(self._slots)

    async def stage(self, image: Image, payload: Path, progress: Progress) -> None:
        """See Driver. Refuses while the booted slot is not confirmed; cancelling leaves the slot empty."""
        stop = threading.Event()
        await interruptible(lambda: self._stage(image, payload, progress, stop), stop.set)

    async def arm(self, slot: str) -> None:
        """See Driver. A bad slot may be armed when its contents are verified: that is decided above."""
        await asyncio.to_thread(self._arm, slot)

    async def disarm(self) -> None:
        """See Driver. Gives a booted slot that is itself on trial no more tries than it has."""
        await asyncio.to_thread(self._change, disarmed)

    async def mark_good(self) -> None:
        await asyncio.to_thread(self._change, confirmed)

    async def mark_bad(self, slot: str) -> None:
        _check_name(slot)
        await asyncio.to_thread(self._change, lambda record, booted: unbootable(record, slot))

    async def reboot(self) -> None:
        with self._words():
            boot_id = self.files.read_running().boot_id
            self._disk.replace(self.files.reboot, boot_id.encode())
        self._on_reboot()

    async def boot_cause(self) -> BootCause:
        with self._words():
            return CAUSES[self.files.read_running().cause]

    # --- in threads -------------------------------------------------------------------------------------

    def _os(self) -> OsFacts:
        with self._words():
            _, values = read_header(self.files.slot(self.files.read_running().slot))
        return OsFacts(
            id=values.get("ID", ""),
            name=values.get("PRETTY_NAME") or values.get("NAME", ""),
            version=values.get("VERSION_ID", ""),
            kernel=os.uname().release,
            arch=values.get("ARCHITECTURE", ""),
            driver=self.name,
        )

    def _slots(self) -> list[Slot]:
        with self._words():
            record, booted = self.files.read_record(), self.files.read_running().slot
            return [self._slot(name, record, booted) for name in SLOTS]

    def _slot(self, name: str, record: BootRecord, booted: str) -> Slot:
        entry = record.entry(name)
        path = self.files.slot(name)
        whole = entry.digest is not None and path.exists() and path.stat().st_size == entry.size
        return Slot(
            name=name,
            booted=name == booted,
            next_boot=name == next_boot(record),
            version=_version(path, entry) if whole else None,
            digest=entry.digest if whole else None,
            good=_good(entry),
            tries_left=_tries_left(entry),
        )

    def _change(self, change: Callable[[BootRecord, str], BootRecord]) -> None:
        """One atomic step of the record; nothing is written when nothing changes."""
        with self._lock, self._words():
            record, booted = self.files.read_record(), self.files.read_running().slot
            changed = change(record, booted)
            if changed != record:
                self._disk.replace(self.files.record, msgspec.json.encode(changed))

    def _arm(self, slot: str) -> None:
        _check_name(slot)

        def change(record: BootRecord, booted: str) -> BootRecord:
            if slot == booted:
                return disarmed(record, booted)
            if record.entry(slot).digest is None:
                raise DriverError(DriverCode.REFUSED, f"slot {slot} holds no verified image")
            if record.entry(slot).state is EntryState.TRIAL and next_boot(record) == slot:
                return record  # again after a crash: no fresh tries
            return armed(record, booted, self.tries)

        self._change(change)

    def _stage(self, image: Image, payload: Path, progress: Progress, stop: threading.Event) -> None:
        def change(record: BootRecord, booted: str) -> BootRecord:
            if record.entry(booted).state is not EntryState.GOOD:
                raise DriverError(DriverCode.REFUSED, f"the booted slot {booted} is not confirmed")
            return emptied(disarmed(record, booted), other(booted))

        self._change(change)
        with self._words():
            passive = other(self.files.read_running().slot)
            self._write(image, payload, self.files.slot(passive), progress, stop)
            self._read_back(image, self.files.slot(passive), progress, stop)
        self._change(lambda record, _: written(record, passive, image.digest, image.version, image.size))
        progress(1.0)

    def _write(self, image: Image, payload: Path, path: Path, progress: Progress, stop: threading.Event) -> None:
        if payload.stat().st_size != image.size:
            raise DriverError(DriverCode.WRONG_DIGEST, f"{payload} is not {image.size} bytes long")
        self._disk.write(path, 0, b"")
        done = 0
        with payload.open("rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                _check(stop)
                self._disk.write(path, done, chunk)
                done += len(chunk)
                progress(0.7 * done / max(image.size, 1))
        self._disk.truncate(path, done)
        self._disk.sync(path)

    def _read_back(self, image: Image, path: Path, progress: Progress, stop: threading.Event) -> None:
        hashed, done = hashlib.sha256(), 0
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # from the medium, not memory
            while chunk := file.read(CHUNK_BYTES):
                _check(stop)
                hashed.update(chunk)
                done += len(chunk)
                progress(0.7 + 0.3 * done / max(image.size, 1))
        found = f"sha256:{hashed.hexdigest()}"
        if found != image.digest:
            text = f"{path.name} reads back as {found}, not {image.digest}"
            raise DriverError(DriverCode.WRONG_DIGEST, text)

    @contextmanager
    def _words(self) -> Iterator[None]:
        """Word what the files below say."""
        try:
            yield
        except OSError as problem:
            code = DriverCode.NO_SPACE if problem.errno in FULL else DriverCode.TOOL
            raise DriverError(code, f"{problem.filename or self.files.root}: {problem.strerror}") from problem
        except (msgspec.MsgspecError, BadHeader) as problem:
            raise DriverError(DriverCode.TOOL, f"{self.files.root} is damaged: {problem}") from problem


def _check_name(slot: str) -> None:
    if slot not in SLOTS:
        raise DriverError(DriverCode.REFUSED, f"there is no slot {slot!r}")


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


def _version(path: Path, entry: Entry) -> str | None:
    """What the file calls itself; the record's word where it has no header."""
    try:
        _, values = read_header(path)
    except BadHeader:
        return entry.version or None
    return values.get("VERSION_ID") or entry.version or None


def _good(entry: Entry) -> bool | None:
    match entry.state:
        case EntryState.GOOD:
            return True
        case EntryState.BAD | EntryState.EMPTY:
            return False
        case EntryState.STAGED | EntryState.TRIAL:
            return None


def _tries_left(entry: Entry) -> int | None:
    return None if entry.state is EntryState.GOOD else entry.tries_left
