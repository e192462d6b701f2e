"""The driver against the real RAUC; see rauc_machine for the machine around it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from agent.drivers.base import DriverCode, DriverError
from agent.drivers.rauc import RaucDriver
from agent.evidence import Expected, Observed, Verdict, judge
from tests.agent.drivers.rauc_machine import RaucMachine, missing, new_key
from wire.messages import Image, OperationKind, Slot

NEW = b"new root file system ".ljust(96 * 1024, b"n")


def driver(rauc: RaucMachine, **more: object) -> RaucDriver:
    return RaucDriver(
        rauc.folder / "rauc-slots.json",
        **{"bus_address": rauc.bus_address, "root": rauc.root, "call_limit_s": 10, **more},  # type: ignore[arg-type]
    )


def image_of(bundle: Path, version: str = "2.0") -> Image:
    content = bundle.read_bytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Image(os="testbox", arch="amd64", version=version, digest=digest, size=len(content))


async def confirmed(rauc: RaucMachine) -> RaucDriver:
    used = driver(rauc)
    await used.mark_good()
    return used


async def staged(rauc: RaucMachine, version: str = "2.0", content: bytes = NEW) -> tuple[RaucDriver, Image]:
    used = await confirmed(rauc)
    bundle = rauc.bundle(version, content)
    image = image_of(bundle, version)
    await used.stage(image, bundle, lambda share: None)
    return used, image


async def by_name(used: RaucDriver) -> dict[str, Slot]:
    return {slot.name: slot for slot in await used.slots()}


def refuses(code: DriverCode) -> pytest.RaisesExc[DriverError]:
    return pytest.RaisesExc(DriverError, check=lambda error: error.code == code)


def test_status_of_a_fresh_machine(rauc: RaucMachine) -> None:
    async def scene() -> None:
        used = driver(rauc)
        facts = await used.os()
        assert (facts.id, facts.name, facts.version) == ("testbox", "Test box", "1.0")
        slots = await used.slots()
        assert [slot.name for slot in slots] == ["rootfs.0", "rootfs.1"]
        assert [slot.booted for slot in slots] == [True, False]
        assert [slot.next_boot for slot in slots] == [True, False]
        assert slots[0].good is None, "nobody has confirmed this boot yet"
        await used.mark_good()
        found = (await by_name(used))["rootfs.0"]
        assert (found.good, found.version, found.digest) == (True, "1.0", None), "its own files say the version"

    asyncio.run(scene())


def test_staging_writes_the_passive_slot_and_leaves_it_parked(rauc: RaucMachine) -> None:
    async def scene() -> None:
        before = rauc.slot("A").read_bytes()
        shares: list[float] = []
        used = await confirmed(rauc)
        bundle = rauc.bundle("2.0", NEW)
        await used.stage(image_of(bundle), bundle, shares.append)
        slots = await by_name(used)
        assert slots["rootfs.1"] == Slot(
            name="rootfs.1",
            booted=False,
            next_boot=False,
            version="2.0",
            digest=image_of(bundle).digest,
            good=None,
            tries_left=0,
        )
        assert slots["rootfs.0"].next_boot
        assert rauc.next_boot() == "A"
        assert rauc.tries("B") == 0
        assert rauc.slot("A").read_bytes() == before
        assert rauc.slot("B").read_bytes().startswith(NEW)
        assert shares == sorted(shares)
        assert shares[-1] == 1.0

    asyncio.run(scene())


def test_update_confirm_and_roll_back(rauc: RaucMachine) -> None:
    async def scene() -> None:
        used, image = await staged(rauc)
        expected = Expected(
            slot="rootfs.1",
            digest=image.digest,
            version="2.0",
            old_boot_id=await used.boot_id(),
            operation_id="op-1",
            kind=OperationKind.ACTIVATE,
        )
        assert await verdict(used, expected) is Verdict.NEVER_SWITCHED
        await used.arm("rootfs.1")
        assert await verdict(used, expected) is Verdict.NEVER_SWITCHED
        assert rauc.reboot() == "B"
        assert await verdict(used, expected) is Verdict.UPDATED
        assert (await by_name(used))["rootfs.1"].good is None, "on trial"
        await used.mark_good()
        slots = await by_name(used)
        assert slots["rootfs.1"].good is True
        assert slots["rootfs.0"].good is True
        assert slots["rootfs.0"].version == "1.0", "as it said when it was confirmed"
        assert (await used.os()).version == "2.0"

        await used.arm("rootfs.0")
        assert (await by_name(used))["rootfs.0"].good is None
        assert rauc.reboot() == "A"
        await used.mark_good()
        slots = await by_name(used)
        assert slots["rootfs.0"].booted
        assert slots["rootfs.0"].good is True
        assert slots["rootfs.1"].good is True, "the way back of the way back"
        assert slots["rootfs.1"].digest == image.digest

    asyncio.run(scene())


async def verdict(used: RaucDriver, expected: Expected) -> Verdict:
    observed = Observed(boot_id=await used.boot_id(), slots=await used.slots())
    return judge(used.evidence, expected, observed)


def test_an_image_that_does_not_come_up_fell_back(rauc: RaucMachine) -> None:
    async def scene() -> None:
        used, image = await staged(rauc)
        expected = Expected(
            slot="rootfs.1",
            digest=image.digest,
            version="2.0",
            old_boot_id=await used.boot_id(),
            operation_id="op-1",
            kind=OperationKind.ACTIVATE,
        )
        await used.arm("rootfs.1")
        for _ in range(3):
            rauc.fail_boot()
        assert rauc.power_on() == "A"
        assert await verdict(used, expected) is Verdict.FELL_BACK
        slots = await by_name(used)
        assert slots["rootfs.1"].good is False
        assert slots["rootfs.1"].digest == image.digest

    asyncio.run(scene())


def test_the_trial_goes_back_to_the_confirmed_slot(rauc: RaucMachine) -> None:
    async def scene() -> None:
        used, _ = await staged(rauc)
        await used.arm("rootfs.1")
        assert rauc.reboot() == "B"
        await used.mark_bad("rootfs.1")
        await used.arm("rootfs.0")
        await used.disarm()  # at an agent start in between: the way back stays open
        assert rauc.reboot() == "A"
        await used.mark_good()
        slots = await by_name(used)
        assert (slots["rootfs.0"].good, slots["rootfs.1"].good) == (True, False)

    asyncio.run(scene())


@pytest.mark.parametrize("moment", ["staged", "disarmed", "installed"])
def test_a_power_cut_without_a_lease_boots_the_confirmed_slot(rauc: RaucMachine, moment: str) -> None:
    async def scene() -> None:
        used, _ = await staged(rauc)
        if moment == "disarmed":
            await used.arm("rootfs.1")
            await used.disarm()
            assert (await by_name(used))["rootfs.1"].tries_left == 0
        if moment == "installed":
            # As after a crash between RAUC's installation and our step that takes it back.
            await used.arm("rootfs.1")
            (rauc.folder / "rauc-slots.json").unlink()
            await used.mark_good()
            await used.disarm()
        assert rauc.reboot() == "A"

    asyncio.run(scene())


def test_disarming_takes_a_rollback_back(rauc: RaucMachine) -> None:
    async def scene() -> None:
        used, _ = await staged(rauc)
        await used.arm("rootfs.1")
        rauc.reboot()
        await used.mark_good()
        await used.arm("rootfs.0")
        await used.disarm()
        slots = await by_name(used)
        assert slots["rootfs.1"].next_boot
        assert slots["rootfs.0"].good is True, "still the way back"
        assert rauc.reboot() == "B"

    asyncio.run(scene())


@pytest.mark.parametrize("wrong", ["key", "garbage", "compatible", "cut", "missing"])
def test_a_wrong_bundle_is_refused_and_leaves_both_slots_as_they_were(rauc: RaucMachine, wrong: str) -> None:
    async def scene() -> None:
        used, _ = await staged(rauc)
        await used.arm("rootfs.1")
        rauc.reboot()
        await used.mark_good()  # now the passive slot is the way back, good and all
        bundle = _wrong_bundle(rauc, wrong)
        image = image_of(bundle, "3.0") if bundle.exists() else image_of(rauc.slot("A"))
        before, slots = rauc.slot_bytes(), await used.slots()
        with refuses(DriverCode.REFUSED) as refusal:
            await used.stage(image, bundle, lambda share: None)
        assert len(refusal.value.text) > len("RAUC refuses the bundle: ")
        assert rauc.slot_bytes() == before
        assert await used.slots() == slots

    asyncio.run(scene())


def _wrong_bundle(rauc: RaucMachine, wrong: str) -> Path:
    if wrong == "key":
        new_key(rauc.folder / "foreign.pem", rauc.folder / "foreign.crt")
        return rauc.bundle("3.0", NEW, key=rauc.folder / "foreign.pem")
    if wrong == "compatible":
        return rauc.bundle("3.0", NEW, compatible="otherbox")
    bundle = rauc.bundle("3.0", NEW)
    if wrong == "garbage":
        bundle.write_bytes(os.urandom(20_000))
    if wrong == "cut":
        os.truncate(bundle, bundle.stat().st_size - 100)
    if wrong == "missing":
        bundle.unlink()
    return bundle


def test_an_installation_by_somebody_else_is_known_by_rauc_s_word(rauc: RaucMachine) -> None:
    async def scene() -> None:
        used, image = await staged(rauc)
        other, _ = await staged_by(rauc, "other.json", "9.9", b"foreign".ljust(64 * 1024, b"f"))
        slot = (await by_name(used))["rootfs.1"]
        assert slot.version == "9.9"
        assert slot.digest != image.digest
        assert other is not used

    asyncio.run(scene())


async def staged_by(rauc: RaucMachine, notes: str, version: str, content: bytes) -> tuple[RaucDriver, Image]:
    other = RaucDriver(rauc.folder / notes, bus_address=rauc.bus_address, root=rauc.root)
    await other.mark_good()
    bundle = rauc.bundle(version, content)
    image = image_of(bundle, version)
    await other.stage(image, bundle, lambda share: None)
    return other, image


@pytest.mark.root
def test_rauc_that_does_not_activate_what_it_installed(tmp_path: Path) -> None:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)

    async def scene(rauc: RaucMachine) -> None:
        used, image = await staged(rauc)
        assert rauc.next_boot() == "A"
        await used.arm("rootfs.1")
        assert rauc.reboot() == "B"
        assert (await by_name(used))["rootfs.1"].digest == image.digest

    with RaucMachine(tmp_path / "machine", more="activate-installed=false") as rauc:
        rauc.power_on()
        asyncio.run(scene(rauc))
