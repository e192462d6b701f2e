"""A copy that is withdrawn is really unbootable, with either driver: also for a boot loader that counts tries."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.drivers.files_machine import MachineError
from agent.drivers.files_record import EntryState
from tests.agent.drivers.rauc_machine import RaucMachine
from tests.agent.drivers.test_files import Node
from tests.agent.drivers.test_rauc import by_name, staged


@pytest.mark.parametrize("armed", [False, True])
def test_files_never_boots_it_even_when_the_confirmed_slot_breaks(tmp_path: Path, armed: bool) -> None:
    node = Node(tmp_path)
    node.stage()
    if armed:
        node.arm()
    node.mark_bad("B")
    entry = node.machine.files.read_record().entry("B")
    assert entry.state is EntryState.BAD and not entry.bootable and entry.tries_left == 0
    assert node.boot() == "A"
    node.file("A").write_bytes(b"broken")
    with pytest.raises(MachineError, match="no slot of"):
        node.machine.power_on()


def test_files_boots_it_again_only_when_it_was_written_anew(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.stage()
    node.mark_bad("B")
    node.disarm()
    assert node.slots()["B"].good is False, "disarming does not bring it back"
    node.stage()
    assert node.slots()["B"].good is None
    node.arm()
    assert node.boot() == "B"


def test_rauc_leaves_it_no_try(rauc: RaucMachine) -> None:
    async def scene() -> None:
        used, image = await staged(rauc)
        await used.arm("rootfs.1")
        await used.disarm()
        await used.mark_bad("rootfs.1")
        assert rauc.tries("B") == 0 and rauc.next_boot() == "A"
        slot = (await by_name(used))["rootfs.1"]
        assert (slot.good, slot.digest) == (False, image.digest), "known, and known to be bad"
        assert rauc.reboot() == "A"

    asyncio.run(scene())


def test_what_was_withdrawn_stays_so_whatever_the_boot_loader_says_later(rauc: RaucMachine) -> None:
    async def scene() -> None:
        used, _ = await staged(rauc)
        await used.mark_bad("rootfs.1")
        rauc._set("B", 3)  # somebody gave it its tries back
        assert (await by_name(used))["rootfs.1"].good is False
        again, _ = await staged(rauc)
        assert (await by_name(again))["rootfs.1"].good is None, "written anew"

    asyncio.run(scene())
