"""What every driver of an OS update tool offers, in the words of the design."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from wire.messages import BootCause, Image, OsFacts, Slot

Progress = Callable[[float], None]
"""Called with the share done, 0 to 1; may be called from another thread."""


class DriverCode(StrEnum):
    """Why a driver failed; downloads have more codes of their own."""

    NO_SPACE = "no-space"
    WRONG_DIGEST = "wrong-digest"
    REFUSED = "refused"
    """The tool, or the driver's own rules, refused: trying again will not help."""
    BUSY = "busy"
    """The tool works for somebody else; later it will answer."""
    TOOL = "tool"
    """The tool is away, hangs, or failed."""


class DriverError(Exception):
    """The tool refused or failed.

    Fields: code (a DriverCode, or a code of agent.fetch for downloads), text (one sentence).
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Driver(Protocol):
    """One OS update tool on this node.

    All methods may block on I/O and are coroutines; errors are DriverError. `stage`, `arm` and the marks are
    idempotent, for the runner repeats the last step after a crash.
    """

    name: str

    async def os(self) -> OsFacts:
        """The running OS, as images are matched against it."""
        ...

    async def boot_id(self) -> str:
        """Identity of this boot: another value after every boot."""
        ...

    async def slots(self) -> list[Slot]:
        """Both slots in name order, as observed now; exactly one is booted and one is next boot."""
        ...

    async def stage(self, image: Image, payload: Path, progress: Progress) -> None:
        """Write the verified `payload` to the passive slot, sync, read back; the booted slot stays next boot.

        Never writes the booted slot. After a failure the passive slot is unbootable.
        """
        ...

    async def arm(self, slot: str) -> None:
        """Make `slot` the next boot, on trial where the tool can count tries."""
        ...

    async def disarm(self) -> None:
        """Make the booted slot the next boot again."""
        ...

    async def mark_good(self) -> None:
        """Confirm the booted slot."""
        ...

    async def mark_bad(self, slot: str) -> None:
        """Make `slot` unbootable: its version failed, or its copy is withdrawn."""
        ...

    async def reboot(self) -> None:
        """Reboot the machine; does not return on success."""
        ...

    async def boot_cause(self) -> BootCause:
        """What the machine itself knows of why this boot happened (panic, watchdog), else UNKNOWN."""
        ...
