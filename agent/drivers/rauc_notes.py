"""What RAUC does not know and the driver has to remember, and how both make a Slot. Pure but for the file.

RAUC knows the digest of a slot's contents, not of the bundle they came from; and it has two boot states where
there are four: confirmed, on trial, staged and not to be booted, bad. A note says so for one installation,
which is recognised by RAUC's own count and time: whatever somebody else installs later has no note.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

import msgspec

from agent.drivers.base import DriverCode, DriverError
from agent.drivers.rauc_bus import SlotStatus
from wire.messages import Slot, Struct

BOOTED = "booted"

HALF_WRITTEN = frozenset({"failed", "pending"})
"""Status of a slot whose last installation did not end well: what it holds is nothing in particular."""


class Standing(StrEnum):
    PARKED = "parked"
    """Staged, or disarmed again: we made it unbootable, which says nothing against it."""
    ARMED = "armed"
    """We made it the next boot; on trial once booted."""
    GOOD = "good"
    BAD = "bad"


class Note(Struct, frozen=True, kw_only=True):
    """About one installation in one slot."""

    installed_at: str
    installed_count: int
    standing: Standing
    digest: str | None = None
    """Of the bundle that was staged; None for a slot that somebody else filled."""
    version: str = ""
    was_good: bool = False
    """Was confirmed before it was armed again."""
    boot_id: str = ""
    """The boot in which it was marked good."""


Notes = dict[str, Note]


def note_for(
    status: SlotStatus, standing: Standing, old: Note | None = None, boot_id: str = "", version: str = ""
) -> Note:
    """A note on what is installed now, keeping what `old` says of the same installation."""
    return Note(
        installed_at=status.installed_at,
        installed_count=status.installed_count,
        standing=standing,
        digest=old.digest if old else None,
        version=(old.version if old else "") or version,
        was_good=was_good(status, old),
        boot_id=boot_id if standing is Standing.GOOD else "",
    )


def was_good(status: SlotStatus, note: Note | None) -> bool:
    """Whether the slot was confirmed, as far as the note or, without one, RAUC says."""
    if note is None:
        return status.boot_status == "good"
    return note.standing is Standing.GOOD or (note.standing is Standing.ARMED and note.was_good)


def current(notes: Notes, name: str, status: SlotStatus) -> Note | None:
    """The note on the slot, unless another installation took the place of the one it was about."""
    note = notes.get(name)
    if note and (note.installed_at, note.installed_count) == (status.installed_at, status.installed_count):
        return note
    return None


def as_slot(name: str, status: SlotStatus, note: Note | None, *, primary: str, boot_id: str) -> Slot:
    booted, next_boot = status.state == BOOTED, name == primary
    if status.status in HALF_WRITTEN and not booted:
        return Slot(name=name, booted=False, next_boot=next_boot, good=False)
    digest = note.digest if note else None
    return Slot(
        name=name,
        booted=booted,
        next_boot=next_boot,
        version=status.version or (note.version if note else "") or None,
        digest=digest or (f"sha256:{status.sha256}" if status.sha256 else None),
        good=_booted_good(status, note, boot_id) if booted else _passive_good(status, note, next_boot),
        tries_left=0 if note and note.standing is Standing.PARKED and not next_boot else None,
    )


def _booted_good(status: SlotStatus, note: Note | None, boot_id: str) -> bool | None:
    """Boot loaders that RAUC drives count every boot until it is marked good, so each boot is confirmed anew."""
    if note and note.standing is Standing.BAD:
        return False
    if note and note.standing is Standing.GOOD and note.boot_id == boot_id:
        return status.boot_status == "good"
    return None


def _passive_good(status: SlotStatus, note: Note | None, next_boot: bool) -> bool | None:
    """Some boot loaders call an armed slot bad until it has booted and was marked good.

    What we called bad stays bad until it is written anew, whatever the boot loader says of it since.
    """
    standing = note.standing if note else None
    if standing is Standing.BAD:
        return False
    match status.boot_status:
        case "good":
            return None if standing in (Standing.PARKED, Standing.ARMED) else True
        case "bad":
            untried = standing is Standing.PARKED or (standing is Standing.ARMED and next_boot)
            return None if untried else False
        case _:
            return None


def load_notes(path: Path) -> Notes:
    """Empty when there is no file; DriverError names a damaged one."""
    if not path.exists():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=Notes)
    except (OSError, msgspec.MsgspecError) as problem:
        raise DriverError(
            DriverCode.TOOL,
            f"{path} cannot be read ({problem}); without it slots are known by RAUC's word only: remove it",
        ) from problem


def save_notes(path: Path, notes: Notes) -> None:
    """Replace the file; DriverError when the disk does not take it."""
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            file.write(msgspec.json.encode(notes))
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as problem:
        raise DriverError(DriverCode.TOOL, f"{path}: {problem.strerror}") from problem
