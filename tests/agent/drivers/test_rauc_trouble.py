"""The real RAUC when something is wrong: disks, services, buses, names, reboots that do not happen."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from agent.drivers.base import DriverCode
from agent.drivers.rauc import RaucDriver
from tests.agent.drivers.rauc_machine import RaucMachine, wait_until
from tests.agent.drivers.test_rauc import NEW, by_name, confirmed, driver, image_of, refuses


def test_nothing_is_staged_while_the_boot_is_not_confirmed(rauc: RaucMachine) -> None:
    async def scene() -> None:
        bundle = rauc.bundle("2.0", NEW)
        before = rauc.slot_bytes()
        with refuses(DriverCode.REFUSED):
            await driver(rauc).stage(image_of(bundle), bundle, lambda share: None)
        assert rauc.slot_bytes() == before

    asyncio.run(scene())


def test_a_slot_that_cannot_be_written_is_unbootable(rauc: RaucMachine) -> None:
    async def scene() -> None:
        used = await confirmed(rauc)
        bundle = rauc.bundle("2.0", NEW)
        before = rauc.slot("A").read_bytes()
        # Writing to slot B fails: its device is a folder now.
        rauc.slot("B").unlink()
        rauc.slot("B").mkdir()
        with refuses(DriverCode.TOOL):
            await used.stage(image_of(bundle), bundle, lambda share: None)
        slots = await by_name(used)
        assert slots["rootfs.0"].next_boot
        assert slots["rootfs.1"].good is False
        assert rauc.slot("A").read_bytes() == before
        assert rauc.reboot() == "A"

    asyncio.run(scene())


def test_the_service_killed_in_mid_installation(rauc: RaucMachine) -> None:
    async def scene() -> None:
        used = await confirmed(rauc)
        before = rauc.slot("A").read_bytes()
        bundle = rauc.bundle("2.0", os.urandom(200 * 1024))
        killed = asyncio.Event()

        def kill(share: float) -> None:
            if not killed.is_set():
                killed.set()
                rauc.kill_service()

        with refuses(DriverCode.TOOL):
            await used.stage(image_of(bundle), bundle, kill)
        assert killed.is_set()
        assert rauc.reboot() == "A"
        assert rauc.slot("A").read_bytes() == before
        slots = await by_name(used)
        assert slots["rootfs.1"].digest != image_of(bundle).digest
        await used.mark_good()
        await used.stage(image_of(bundle), bundle, lambda share: None)
        assert (await by_name(used))["rootfs.1"].digest == image_of(bundle).digest

    asyncio.run(scene())


def test_cancelled_staging_is_taken_back_by_the_next_step(rauc: RaucMachine) -> None:
    async def scene() -> None:
        used = await confirmed(rauc)
        bundle = rauc.bundle("2.0", NEW)
        began = asyncio.Event()
        work = asyncio.ensure_future(used.stage(image_of(bundle), bundle, lambda share: began.set()))
        await began.wait()
        assert [slot.digest for slot in await used.slots()] == [None, None], "being written"
        work.cancel()
        await asyncio.wait([work])
        await used.disarm()
        assert rauc.next_boot() == "A"
        assert (await by_name(used))["rootfs.0"].next_boot

    asyncio.run(scene())


def test_a_hanging_service_is_an_error_in_limited_time(rauc: RaucMachine) -> None:
    async def scene() -> None:
        rauc.stop_service_answering()
        with refuses(DriverCode.TOOL) as refusal:
            await driver(rauc, call_limit_s=0.2).slots()
        assert "no answer within 0.2 s" in refusal.value.text

    asyncio.run(scene())


def test_no_service_and_no_bus_are_errors(rauc: RaucMachine) -> None:
    async def scene() -> None:
        rauc.kill_service()
        with refuses(DriverCode.TOOL):
            await driver(rauc).slots()
        rauc.kill_bus()
        with refuses(DriverCode.TOOL) as refusal:
            await driver(rauc).slots()
        assert "bus is away" in refusal.value.text

    asyncio.run(scene())


def test_damaged_notes_are_named(rauc: RaucMachine) -> None:
    async def scene() -> None:
        (rauc.folder / "rauc-slots.json").write_text("{")
        with refuses(DriverCode.TOOL) as refusal:
            await driver(rauc).slots()
        assert "rauc-slots.json" in refusal.value.text

    asyncio.run(scene())


@pytest.mark.parametrize("slot", ["rootfs.7", "booted", ""])
def test_unknown_slots_are_refused(rauc: RaucMachine, slot: str) -> None:
    async def scene() -> None:
        for step in (driver(rauc).arm, driver(rauc).mark_bad):
            with refuses(DriverCode.REFUSED):
                await step(slot)

    asyncio.run(scene())


def reboot_driver(tmp_path: Path, *command: str, limit_s: float = 30) -> RaucDriver:
    return RaucDriver(tmp_path / "notes", reboot_command=command, reboot_limit_s=limit_s)


def test_reboot_runs_the_command_and_does_not_return(tmp_path: Path) -> None:
    async def scene() -> None:
        mark = tmp_path / "asked"
        used = reboot_driver(tmp_path, sys.executable, "-c", f"open({str(mark)!r}, 'w').close()")
        work = asyncio.ensure_future(used.reboot())
        await asyncio.to_thread(wait_until, mark.exists, "the command ran")
        assert not work.done()
        work.cancel()
        await asyncio.wait([work])

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("sh", "-c", "echo not allowed >&2; exit 1"), "not allowed"),
        (("sh", "-c", "exec cat /dev/zero >/dev/null"), "still up"),
        (("true",), "still up"),
        (("there-is-no-such-command",), "No such file"),
    ],
)
def test_a_reboot_that_does_not_happen_is_an_error(tmp_path: Path, command: tuple[str, ...], words: str) -> None:
    with refuses(DriverCode.TOOL) as refusal:
        asyncio.run(reboot_driver(tmp_path, *command, limit_s=0.5).reboot())
    assert words in refusal.value.text
