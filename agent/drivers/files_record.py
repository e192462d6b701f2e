"""The boot record of the `files` driver: what agent and firmware agree on. Pure decisions, no I/O.

A record is only ever replaced as a whole, so each function here is one atomic step of the machine.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from wire.messages import Struct

SLOTS = ("A", "B")


class EntryState(StrEnum):
    EMPTY = "empty"
    """Never written, or in the middle of being written: never booted."""
    STAGED = "staged"
    """Written and verified; not bootable until it is armed."""
    TRIAL = "trial"
    """Bootable while tries are left."""
    GOOD = "good"
    BAD = "bad"


class Entry(Struct, frozen=True, kw_only=True):
    """One slot: the bootable one with the highest priority boots."""

    state: EntryState = EntryState.EMPTY
    priority: int = 0
    tries_left: int = 0
    was_good: bool = False
    """Was confirmed before it was armed again: withdrawing the arming restores that."""
    digest: str | None = None
    version: str = ""
    size: int = 0

    @property
    def bootable(self) -> bool:
        trial = self.state is EntryState.TRIAL and self.tries_left > 0
        return self.priority > 0 and (self.state is EntryState.GOOD or trial)


class BootRecord(Struct, frozen=True, kw_only=True, rename={"a": "A", "b": "B"}):
    a: Entry
    b: Entry
    last_up: str
    """The slot that last came up: the last resort when none is bootable."""

    def entry(self, slot: str) -> Entry:
        return self.a if slot == "A" else self.b

    def with_entry(self, slot: str, entry: Entry) -> BootRecord:
        return msgspec.structs.replace(self, a=entry) if slot == "A" else msgspec.structs.replace(self, b=entry)


def other(slot: str) -> str:
    return "B" if slot == "A" else "A"


def first_record(digest: str, version: str, size: int) -> BootRecord:
    """A machine fresh from the factory: slot A confirmed, slot B empty."""
    image = Entry(state=EntryState.GOOD, priority=1, digest=digest, version=version, size=size)
    return BootRecord(a=image, b=Entry(), last_up="A")


def next_boot(record: BootRecord) -> str:
    """What a power-on now would try first."""
    bootable = [slot for slot in SLOTS if record.entry(slot).bootable]
    if not bootable:
        return record.last_up
    return max(bootable, key=lambda slot: (record.entry(slot).priority, slot == record.last_up))


def emptied(record: BootRecord, passive: str) -> BootRecord:
    """Before the first byte of `passive` is written."""
    return record.with_entry(passive, Entry())


def written(record: BootRecord, passive: str, digest: str, version: str, size: int) -> BootRecord:
    """After the last byte was read back."""
    entry = Entry(state=EntryState.STAGED, digest=digest, version=version, size=size)
    return record.with_entry(passive, entry)


def armed(record: BootRecord, booted: str, tries: int) -> BootRecord:
    """The passive slot is next: on trial, or as the confirmed slot that a trial goes back to."""
    passive = other(booted)
    entry = record.entry(passive)
    was_good = entry.state is EntryState.GOOD or entry.was_good
    way_back = was_good and record.entry(booted).state is not EntryState.GOOD
    state = EntryState.GOOD if way_back else EntryState.TRIAL
    changed = msgspec.structs.replace(
        entry,
        state=state,
        was_good=was_good and not way_back,
        tries_left=0 if way_back else tries,
        priority=record.entry(booted).priority + 1,
    )
    return record.with_entry(passive, changed)


def disarmed(record: BootRecord, booted: str) -> BootRecord:
    """Withdraw an arming of the passive slot; a booted slot on trial gains nothing by it."""
    passive = other(booted)
    entry = record.entry(passive)
    if entry.state is EntryState.TRIAL:
        state = EntryState.GOOD if entry.was_good else EntryState.STAGED
        entry = msgspec.structs.replace(entry, state=state, tries_left=0, was_good=False)
    entry = msgspec.structs.replace(entry, priority=1 if entry.state is EntryState.GOOD else 0)
    running = record.entry(booted)
    if running.state is EntryState.GOOD or running.bootable:
        running = msgspec.structs.replace(running, priority=2)
    return record.with_entry(passive, entry).with_entry(booted, running)


def confirmed(record: BootRecord, booted: str) -> BootRecord:
    entry = msgspec.structs.replace(
        record.entry(booted), state=EntryState.GOOD, priority=2, tries_left=0, was_good=False
    )
    return record.with_entry(booted, entry)


def unbootable(record: BootRecord, slot: str) -> BootRecord:
    """`slot` is bad; what it holds stays known. A slot that holds nothing stays empty."""
    entry = record.entry(slot)
    state = EntryState.EMPTY if entry.state is EntryState.EMPTY else EntryState.BAD
    entry = msgspec.structs.replace(entry, state=state, priority=0, tries_left=0, was_good=False)
    return record.with_entry(slot, entry)


def counted(record: BootRecord) -> tuple[BootRecord, str]:
    """What the firmware writes before it boots, and the slot: a try less, used-up slots bad."""
    for slot in SLOTS:
        entry = record.entry(slot)
        if entry.state is EntryState.TRIAL and entry.tries_left == 0:
            record = unbootable(record, slot)
    chosen = next_boot(record)
    entry = record.entry(chosen)
    if entry.state is EntryState.TRIAL:
        entry = msgspec.structs.replace(entry, tries_left=entry.tries_left - 1)
    return record.with_entry(chosen, entry), chosen


def failed_boot(record: BootRecord, slot: str) -> BootRecord:
    """`slot` did not come up: a confirmed one turns bad, one on trial has paid with its try."""
    if record.entry(slot).state is EntryState.GOOD:
        return unbootable(record, slot)
    return record


def came_up(record: BootRecord, slot: str) -> BootRecord:
    return msgspec.structs.replace(record, last_up=slot)
