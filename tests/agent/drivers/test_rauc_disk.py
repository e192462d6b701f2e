"""The real RAUC, and a state disk that does not take the driver's notes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.drivers.base import DriverCode
from agent.drivers.rauc import RaucDriver
from tests.agent.drivers.rauc_machine import RaucMachine
from tests.agent.drivers.test_rauc import NEW, confirmed, image_of, refuses, staged


def no_notes(rauc: RaucMachine) -> Path:
    """From now on no note can be written; the path to remove for making it possible again."""
    in_the_way = rauc.folder / "rauc-slots.json.new"
    in_the_way.mkdir()
    return in_the_way


def test_staged_is_never_next_boot_also_without_a_note(rauc: RaucMachine) -> None:
    async def scene() -> None:
        used: RaucDriver = await confirmed(rauc)
        bundle = rauc.bundle("2.0", NEW)
        no_notes(rauc)
        with refuses(DriverCode.TOOL):
            await used.stage(image_of(bundle), bundle, lambda share: None)
        assert rauc.next_boot() == "A"

    asyncio.run(scene())


def test_a_bad_slot_is_marked_also_without_a_note(rauc: RaucMachine) -> None:
    async def scene() -> None:
        used, _ = await staged(rauc)
        await used.arm("rootfs.1")
        no_notes(rauc)
        with refuses(DriverCode.TOOL):
            await used.mark_bad("rootfs.1")
        assert rauc.tries("B") == 0 and rauc.next_boot() == "A"

    asyncio.run(scene())


def test_disarming_needs_no_note(rauc: RaucMachine) -> None:
    async def scene() -> None:
        used, _ = await staged(rauc)
        await used.arm("rootfs.1")
        in_the_way = no_notes(rauc)
        with refuses(DriverCode.TOOL):
            await used.disarm()
        assert rauc.next_boot() == "A"
        in_the_way.rmdir()
        await used.disarm()
        assert rauc.tries("B") == 0

    asyncio.run(scene())
