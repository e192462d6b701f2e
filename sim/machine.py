"""The invented machine: two slots, a boot record, firmware that picks one. The record is that of the files driver."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from agent.drivers.files import CAUSES, EVIDENCE
from agent.drivers.files_node import MachineCause
from agent.drivers.files_record import (
    SLOTS,
    BootRecord,
    Entry,
    EntryState,
    armed,
    came_up,
    confirmed,
    counted,
    disarmed,
    emptied,
    failed_boot,
    first_record,
    next_boot,
    other,
    unbootable,
    written,
)
from agent.evidence import EvidenceTable
from wire.messages import BootCause, Image, Slot

TRIES = 3
TABLE = EvidenceTable(EVIDENCE, tries=TRIES)


class Deed(Enum):
    """What a machine does, as somebody beside it sees it."""

    WRITES = auto()
    """Begins to write a slot."""
    WROTE = auto()
    ARMED = auto()
    DISARMED = auto()
    GOES_DOWN = auto()
    """An orderly reboot that its agent asked for."""
    POWER_LOST = auto()
    BOOTED = auto()
    PANICKED = auto()
    MARKED_GOOD = auto()
    MARKED_BAD = auto()


class Refused(Exception):
    """The tool refuses; one sentence."""


class Machine:
    """Fields to read: record, booted (the slot), boots (how often it has), cause (of the last boot).

    `stubborn` firmware boots the same slot for ever.
    """

    __slots__ = ("booted", "boots", "cause", "record", "stubborn")

    def __init__(self, digest: str, version: str) -> None:
        self.record: BootRecord = came_up(first_record(digest, version, 0), SLOTS[0])
        self.booted = SLOTS[0]
        self.boots = 1
        self.cause = BootCause.WATCHDOG_OR_POWER
        self.stubborn = False

    @property
    def passive(self) -> str:
        return other(self.booted)

    @property
    def next_boot(self) -> str:
        """What a power-on now would try first."""
        return next_boot(self.record)

    @property
    def running(self) -> Entry:
        """What is booted."""
        return self.record.entry(self.booted)

    def slots(self) -> list[Slot]:
        """As the files driver shows them."""
        return [self._slot(name) for name in SLOTS]

    def _slot(self, name: str) -> Slot:
        entry = self.record.entry(name)
        return Slot(
            name=name,
            booted=name == self.booted,
            next_boot=name == self.next_boot,
            version=entry.version or None,
            digest=entry.digest,
            good=_good(entry.state),
            tries_left=None if entry.state is EntryState.GOOD else entry.tries_left,
        )

    # --- what the agent's work does -------------------------------------------------------------------------

    def begin_stage(self) -> None:
        """Refused while the booted slot is not confirmed."""
        if self.running.state is not EntryState.GOOD:
            raise Refused(f"the booted slot {self.booted} is not confirmed")
        self.record = emptied(disarmed(self.record, self.booted), self.passive)

    def end_stage(self, image: Image) -> None:
        self.record = written(self.record, self.passive, image.digest, image.version, image.size)

    def arm(self, slot: str) -> None:
        """Refused when the slot holds nothing verified."""
        entry = self.record.entry(slot)
        if slot == self.booted:
            self.record = disarmed(self.record, self.booted)
        elif entry.digest is None:
            raise Refused(f"slot {slot} holds no verified image")
        elif not (entry.state is EntryState.TRIAL and self.next_boot == slot):
            self.record = armed(self.record, self.booted, TRIES)

    def disarm(self) -> None:
        self.record = disarmed(self.record, self.booted)

    def mark_good(self) -> None:
        self.record = confirmed(self.record, self.booted)

    def mark_bad(self, slot: str) -> None:
        self.record = unbootable(self.record, slot)

    # --- firmware -------------------------------------------------------------------------------------------

    def power_on(self, cause: MachineCause, comes_up: Callable[[Entry], bool]) -> bool:
        """One attempt to boot what the record says; False when that did not come up and has paid with its try."""
        if self.stubborn:
            self.boots, self.cause = self.boots + 1, CAUSES[cause]
            return True
        self.record, slot = counted(self.record)
        if not comes_up(self.record.entry(slot)):
            self.record = failed_boot(self.record, slot)
            return False
        self.record, self.booted = came_up(self.record, slot), slot
        self.boots, self.cause = self.boots + 1, CAUSES[cause]
        return True


def _good(state: EntryState) -> bool | None:
    if state is EntryState.GOOD:
        return True
    return False if state in (EntryState.BAD, EntryState.EMPTY) else None
