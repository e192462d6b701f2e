"""From what was expected before a reboot and what is observed after it to one verdict (rule 1).

Each driver owns one `EvidenceTable`: literal rows, read from the top, of which the first that fits decides.
Pure: no I/O and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from wire.messages import OperationKind, Slot, Struct


class Verdict(StrEnum):
    UPDATED = "updated"
    """Booted into exactly what was expected, with a new boot id."""
    FELL_BACK = "fell-back"
    """The machine tried the expected slot and came back."""
    NEVER_SWITCHED = "never-switched"
    """The expected slot was not tried."""
    UNKNOWN = "unknown"


class Expected(Struct, frozen=True, kw_only=True):
    """What the next boot must show; on the node's own disk before anything is armed."""

    slot: str
    digest: str | None
    """None where nobody knows it, as for a slot that was filled at the factory."""
    version: str
    old_boot_id: str
    operation_id: str
    kind: OperationKind


class Observed(Struct, frozen=True, kw_only=True):
    """What the driver shows now."""

    boot_id: str
    slots: list[Slot]


class Contents(StrEnum):
    """What the expected slot holds, compared by digest."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNKNOWN = "unknown"
    NOT_EXPECTED = "not expected"
    """No digest was expected: nothing to compare."""


class Standing(StrEnum):
    """What boot record or boot loader say of the expected slot."""

    GOOD = "good"
    BAD = "bad"
    UNTRIED = "untried"
    """Armed, all tries left."""
    TRIED = "tried"
    """Armed, at least one try used, at least one left."""
    PARKED = "parked"
    """No tries, and neither good nor bad: staged and not armed."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Found:
    """The facts a verdict rests on."""

    rebooted: bool
    booted: bool
    """The expected slot is the booted one."""
    contents: Contents
    standing: Standing
    next_boot: bool
    """The expected slot is the next boot."""


@dataclass(frozen=True)
class Row:
    """Fits when every fact that is not None is so."""

    verdict: Verdict
    rebooted: bool | None = None
    booted: bool | None = None
    contents: Contents | None = None
    standing: Standing | None = None
    next_boot: bool | None = None

    def fits(self, found: Found) -> bool:
        return all(
            wanted is None or wanted == fact
            for wanted, fact in (
                (self.rebooted, found.rebooted),
                (self.booted, found.booted),
                (self.contents, found.contents),
                (self.standing, found.standing),
                (self.next_boot, found.next_boot),
            )
        )


@dataclass(frozen=True)
class EvidenceTable:
    """Rows of one driver; `tries` is how many tries its arming gives, None where the tool does not say."""

    rows: tuple[Row, ...]
    tries: int | None = None


def judge(table: EvidenceTable, expected: Expected, observed: Observed) -> Verdict:
    """The verdict of the first row that fits; a slot that is not there any more is UNKNOWN."""
    found = find(table, expected, observed)
    if found is None:
        return Verdict.UNKNOWN
    return look_up(table, found)


def look_up(table: EvidenceTable, found: Found) -> Verdict:
    """The first row that fits. LookupError for a table with a gap; a test shows that none has one."""
    for row in table.rows:
        if row.fits(found):
            return row.verdict
    raise LookupError(f"no row of the evidence table fits {found}")


def find(table: EvidenceTable, expected: Expected, observed: Observed) -> Found | None:
    """The facts, or None when the expected slot is not there."""
    slot = next((slot for slot in observed.slots if slot.name == expected.slot), None)
    if slot is None:
        return None
    return Found(
        rebooted=observed.boot_id != expected.old_boot_id,
        booted=slot.booted,
        contents=_contents(expected.digest, slot.digest),
        standing=_standing(slot, table.tries),
        next_boot=slot.next_boot,
    )


def _contents(expected: str | None, observed: str | None) -> Contents:
    if expected is None:
        return Contents.NOT_EXPECTED
    if observed is None:
        return Contents.UNKNOWN
    return Contents.EQUAL if expected == observed else Contents.DIFFERENT


def _standing(slot: Slot, tries: int | None) -> Standing:
    if slot.good is not None:
        return Standing.GOOD if slot.good else Standing.BAD
    if slot.tries_left is None:
        return Standing.UNKNOWN
    if slot.tries_left == 0:
        return Standing.PARKED
    return Standing.TRIED if tries is not None and slot.tries_left < tries else Standing.UNTRIED
