"""RAUC's D-Bus interface (`de.pengutronix.rauc.Installer`), with a time limit on every call.

A connection lives as long as one task: a restarted bus or service needs no repair.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any

import msgspec
from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.errors import DBusFastError

from agent.drivers.base import DriverCode, DriverError
from wire.messages import Struct

SERVICE = "de.pengutronix.rauc"
INSTALLER = "de.pengutronix.rauc.Installer"
PROPERTIES = "org.freedesktop.DBus.Properties"
DBUS = "org.freedesktop.DBus"
BUSY_WORDS = "already processing a different method"
INSTALLING = "installing"

BROKEN = (OSError, EOFError, DBusFastError)
"""What a bus connection dies of."""


class MarkState(StrEnum):
    GOOD = "good"
    BAD = "bad"
    ACTIVE = "active"


FIELDS = {
    "slot_class": "class",
    "boot_status": "boot-status",
    "version": "bundle.version",
    "installed_at": "installed.timestamp",
    "installed_count": "installed.count",
}
"""RAUC's names for ours, where they differ."""


class SlotStatus(Struct, frozen=True, kw_only=True, rename=FIELDS.get):
    """The keys of GetSlotStatus that matter here; all but `state` may be missing."""

    state: str = ""
    slot_class: str = ""
    bootname: str = ""
    boot_status: str = ""
    version: str = ""
    status: str = ""
    """ok, failed or pending: of the last installation."""
    sha256: str = ""
    installed_at: str = ""
    installed_count: int = 0


class RaucCallError(DriverError):
    """RAUC answered with an error; `words` are its own."""

    def __init__(self, member: str, words: str) -> None:
        busy = BUSY_WORDS in words
        super().__init__(DriverCode.BUSY if busy else DriverCode.TOOL, f"RAUC {member}: {words}")
        self.words = words


class RaucBus:
    """One connection; see rauc_bus()."""

    def __init__(self, bus: MessageBus, gone: asyncio.Future[None], limit_s: float) -> None:
        self._bus = bus
        self._gone = gone
        self._limit_s = limit_s

    async def slot_status(self) -> dict[str, SlotStatus]:
        """By slot name."""
        (pairs,) = await self._call("GetSlotStatus")
        return {
            name: msgspec.convert({key: value.value for key, value in status.items()}, SlotStatus)
            for name, status in pairs
        }

    async def primary(self) -> str:
        """Name of the slot that is the next boot."""
        (name,) = await self._call("GetPrimary")
        return str(name)

    async def mark(self, state: MarkState, slot: str) -> None:
        await self._call("Mark", "ss", state, slot)

    async def info(self, bundle: str, limit_s: float) -> tuple[str, str]:
        """Compatible and version of a bundle whose signature RAUC has checked, for which it reads all of it."""
        compatible, version = await self._call("Info", "s", bundle, limit_s=limit_s)
        return str(compatible), str(version)

    async def compatible(self) -> str:
        return str(await self._property("Compatible"))

    async def installing(self) -> bool:
        return str(await self._property("Operation")) == INSTALLING

    async def last_error(self) -> str:
        return str(await self._property("LastError"))

    async def install(self, bundle: str, progress: Callable[[float], None], stall_s: float) -> int:
        """Install and return RAUC's result (0 is success); DriverError after `stall_s` without any sign."""
        async with self._signals(progress) as signs:
            await self._call("InstallBundle", "sa{sv}", bundle, {})
            return await _result(signs, stall_s)

    async def wait_idle(self, stall_s: float) -> None:
        """Return when no installation runs; DriverError after `stall_s` without any sign of one that does."""
        async with self._signals(lambda share: None) as signs:
            if await self.installing():
                await _result(signs, stall_s)

    @asynccontextmanager
    async def _signals(self, progress: Callable[[float], None]) -> AsyncIterator[asyncio.Queue[int | None]]:
        """A queue of signs of life while the block runs: None for progress, a number for the result."""
        signs = asyncio.Queue[int | None]()

        def on_message(message: Message) -> None:
            if message.message_type is not MessageType.SIGNAL:
                return
            if message.member == "Completed" and message.interface == INSTALLER:
                signs.put_nowait(int(message.body[0]))
            elif message.member == "PropertiesChanged" and message.body[0] == INSTALLER:
                signs.put_nowait(None)
                changed = message.body[1].get("Progress")
                if changed is not None:
                    progress(changed.value[0] / 100)
            elif message.member == "NameOwnerChanged" and message.body[::2] == [SERVICE, NOBODY]:
                signs.put_nowait(SERVICE_GONE)

        for rule in RULES:
            await self._call("AddMatch", "s", rule, interface=DBUS, path="/org/freedesktop/DBus")

        def on_gone(_: asyncio.Future[None]) -> None:
            signs.put_nowait(SERVICE_GONE)

        self._bus.add_message_handler(on_message)
        self._gone.add_done_callback(on_gone)
        try:
            yield signs
        finally:
            self._gone.remove_done_callback(on_gone)
            self._bus.remove_message_handler(on_message)

    async def _property(self, name: str) -> Any:
        (value,) = await self._call("Get", "ss", INSTALLER, name, interface=PROPERTIES)
        return value.value

    async def _call(
        self,
        member: str,
        signature: str = "",
        *body: object,
        interface: str = INSTALLER,
        path: str = "/",
        limit_s: float | None = None,
    ) -> list[Any]:
        message = Message(
            destination=DBUS if interface == DBUS else SERVICE,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
        )
        async with within(limit_s or self._limit_s, f"RAUC {member}"):
            reply = await self._bus.call(message)
        if reply is None:
            raise DriverError(DriverCode.TOOL, f"RAUC {member}: the bus went away")
        if reply.message_type is MessageType.ERROR:
            raise RaucCallError(member, str(reply.body[0]) if reply.body else reply.error_name or "error")
        return reply.body


NOBODY = ""
"""The new owner of a name that nobody owns any more."""

SERVICE_GONE = -1
"""Stands for a result when the service left the bus in the middle."""

RULES = (
    f"type='signal',interface='{INSTALLER}'",
    f"type='signal',interface='{PROPERTIES}',arg0='{INSTALLER}'",
    f"type='signal',interface='{DBUS}',member='NameOwnerChanged',arg0='{SERVICE}'",
)


async def _result(signs: asyncio.Queue[int | None], stall_s: float) -> int:
    while True:
        async with within(stall_s, "RAUC's installation"):
            sign = await signs.get()
        if sign == SERVICE_GONE:
            raise DriverError(DriverCode.TOOL, "the RAUC service ended in the middle of an installation")
        if sign is not None:
            return sign


@asynccontextmanager
async def within(limit_s: float, what: str) -> AsyncIterator[None]:
    """Word what a bus can do wrong, in limited time."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as problem:
        raise DriverError(DriverCode.TOOL, f"{what}: no answer within {limit_s:g} s") from problem
    except BROKEN as problem:
        raise DriverError(DriverCode.TOOL, f"{what}: the bus is away: {problem}") from problem


async def _disconnected(bus: MessageBus) -> None:
    await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def rauc_bus(address: str | None, limit_s: float) -> AsyncIterator[RaucBus]:
    """A connection to the bus at `address`, or to the system bus; DriverError when there is none."""
    bus = MessageBus(bus_address=address, bus_type=BusType.SYSTEM)
    async with within(limit_s, "D-Bus"):
        await bus.connect()
    gone = asyncio.ensure_future(_disconnected(bus))
    try:
        yield RaucBus(bus, gone, limit_s)
    finally:
        bus.disconnect()
        await asyncio.wait([gone])
        gone.exception()  # looked at: whoever used the bus has been told
