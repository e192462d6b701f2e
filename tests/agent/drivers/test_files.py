from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

import msgspec
import pytest

from agent.drivers.base import DriverCode, DriverError
from agent.drivers.files import FilesDriver
from agent.drivers.files_machine import FilesMachine, MachineError
from agent.drivers.files_node import MachineCause
from agent.evidence import Expected, Observed, Verdict, judge
from tests.agent.drivers.images import content_of, write_image
from wire.messages import BootCause, OperationKind, Slot

OLD = content_of("1.0", payload=b"old" * 1000)
NEW = content_of("2.0", payload=b"new" * 2000)


class Node:
    """A node below a folder, with one image to stage."""

    def __init__(self, folder: Path, content: bytes = NEW, version: str = "2.0") -> None:
        folder.mkdir(exist_ok=True)
        self.root = folder / "node"
        self.payload = folder / "payload"
        self.image = write_image(self.payload, content, version)
        write_image(folder / "first", OLD, "1.0")
        self.machine = FilesMachine.create(self.root, folder / "first")
        self.machine.power_on()
        self.rebooted: list[bool] = []
        self.driver = FilesDriver(self.root, on_reboot=lambda: self.rebooted.append(True))

    def slots(self) -> dict[str, Slot]:
        return {slot.name: slot for slot in asyncio.run(self.driver.slots())}

    def stage(self) -> list[float]:
        shares: list[float] = []
        asyncio.run(self.driver.stage(self.image, self.payload, shares.append))
        return shares

    def arm(self, slot: str = "B") -> None:
        asyncio.run(self.driver.arm(slot))

    def disarm(self) -> None:
        asyncio.run(self.driver.disarm())

    def mark_good(self) -> None:
        asyncio.run(self.driver.mark_good())

    def mark_bad(self, slot: str) -> None:
        asyncio.run(self.driver.mark_bad(slot))

    def boot(self) -> str:
        """Power on, whatever ran before: the slot that came up."""
        return self.machine.power_on().slot

    def file(self, slot: str) -> Path:
        return self.machine.files.slot(slot)

    def expected(self) -> Expected:
        return Expected(
            slot="B",
            digest=self.image.digest,
            version=self.image.version,
            old_boot_id=asyncio.run(self.driver.boot_id()),
            operation_id="op",
            kind=OperationKind.ACTIVATE,
        )

    def verdict(self, expected: Expected) -> Verdict:
        observed = Observed(boot_id=asyncio.run(self.driver.boot_id()), slots=list(self.slots().values()))
        return judge(self.driver.evidence, expected, observed)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def code_of(step) -> str:
    with pytest.raises(DriverError) as failure:
        step()
    assert failure.value.text
    return failure.value.code


def test_a_fresh_node(node: Node) -> None:
    slots = node.slots()
    assert slots["A"] == Slot(
        name="A",
        booted=True,
        next_boot=True,
        version="1.0",
        digest=write_image(node.payload, OLD, "1.0").digest,
        good=True,
    )
    assert slots["B"] == Slot(name="B", booted=False, next_boot=False, good=False, tries_left=0)
    facts = asyncio.run(node.driver.os())
    assert (facts.id, facts.version, facts.arch, facts.name) == ("demo-os", "1.0", "amd64", "Demo OS 1.0")
    assert facts.driver == "files"


def test_staging(node: Node) -> None:
    shares = node.stage()
    assert node.file("B").read_bytes() == NEW
    assert node.file("A").read_bytes() == OLD
    slot = node.slots()["B"]
    assert (slot.version, slot.digest, slot.good, slot.tries_left) == ("2.0", node.image.digest, None, 0)
    assert node.slots()["A"].next_boot
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert node.boot() == "A"


def test_update_confirm_and_roll_back(node: Node) -> None:
    node.stage()
    expected = node.expected()
    assert node.verdict(expected) is Verdict.NEVER_SWITCHED
    node.arm()
    assert (node.slots()["B"].next_boot, node.slots()["B"].tries_left) == (True, 3)
    assert node.boot() == "B"
    assert node.verdict(expected) is Verdict.UPDATED
    assert (node.slots()["B"].good, node.slots()["B"].tries_left) == (None, 2)
    node.mark_good()
    assert node.slots()["B"].good is True
    assert node.slots()["A"].good is True
    node.arm("A")
    assert node.boot() == "A"
    node.mark_good()
    assert node.boot() == "A"


def test_a_trial_that_nobody_confirms_falls_back_when_its_tries_are_used_up(node: Node) -> None:
    node.stage()
    expected = node.expected()
    node.arm()
    assert [node.boot() for _ in range(4)] == ["B", "B", "B", "A"]
    assert node.verdict(expected) is Verdict.FELL_BACK
    assert node.slots()["B"].good is False
    assert node.slots()["B"].digest == node.image.digest


def test_the_number_of_tries_can_be_set(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.driver = FilesDriver(node.root, tries=1)
    node.stage()
    node.arm()
    assert [node.boot() for _ in range(2)] == ["B", "A"]


def test_an_image_that_does_not_boot_falls_back_by_itself(tmp_path: Path) -> None:
    node = Node(tmp_path, content_of("2.0", boot="panic"))
    node.stage()
    expected = node.expected()
    node.arm()
    running = node.machine.power_on(MachineCause.REBOOT)
    assert (running.slot, running.cause) == ("A", MachineCause.PANIC)
    assert asyncio.run(node.driver.boot_cause()) is BootCause.PANIC
    assert node.verdict(expected) is Verdict.FELL_BACK


@pytest.mark.parametrize("damage", ["no header", "cut", "changed", "gone"])
def test_a_damaged_image_falls_back(tmp_path: Path, damage: str) -> None:
    node = Node(tmp_path, b"no header at all" if damage == "no header" else NEW)
    node.stage()
    node.arm()
    path = node.file("B")
    match damage:
        case "cut":
            os.truncate(path, 100)
            assert node.slots()["B"].digest is None, "the size alone tells"
        case "changed":
            path.write_bytes(NEW[:-1] + b"!")
        case "gone":
            path.unlink()
            assert node.slots()["B"].digest is None
    assert node.boot() == "A"
    assert node.slots()["B"].good is False


def test_a_confirmed_slot_that_breaks_falls_back(node: Node) -> None:
    node.stage()
    node.arm()
    node.boot()
    node.mark_good()
    os.truncate(node.file("B"), 50)
    assert node.boot() == "A"
    assert node.slots()["B"].good is False


def test_when_nothing_is_bootable_the_last_that_came_up_is_tried(tmp_path: Path) -> None:
    node = Node(tmp_path, content_of("2.0", boot="panic"))
    node.stage()
    node.arm()
    node.mark_bad("A")
    assert node.boot() == "A"
    node.file("A").unlink()
    with pytest.raises(MachineError):
        node.boot()


def test_going_back_from_a_trial_is_going_to_the_confirmed_slot(node: Node) -> None:
    node.stage()
    node.arm()
    node.boot()
    node.mark_bad("B")
    node.arm("A")
    node.disarm()
    assert [node.boot() for _ in range(5)] == ["A"] * 5
    assert node.slots()["A"].good is True
    assert node.slots()["B"].good is False


def test_disarming_takes_the_arming_back(node: Node) -> None:
    node.stage()
    node.arm()
    node.disarm()
    slots = node.slots()
    assert (slots["A"].next_boot, slots["B"].good, slots["B"].tries_left) == (True, None, 0)
    assert node.boot() == "A"
    node.arm()
    assert node.boot() == "B"


def test_disarming_a_rollback_leaves_the_way_back(node: Node) -> None:
    node.stage()
    node.arm()
    node.boot()
    node.mark_good()
    node.arm("A")
    assert node.slots()["A"].good is None
    node.disarm()
    assert node.slots()["A"].good is True
    assert node.slots()["B"].next_boot
    assert node.boot() == "B"


def test_disarming_gives_a_trial_no_more_tries(node: Node) -> None:
    node.stage()
    node.arm()
    for _ in range(3):
        assert node.boot() == "B"
        node.disarm()
    assert node.boot() == "A"


def test_arming_again_gives_no_fresh_tries(node: Node) -> None:
    node.stage()
    node.arm()
    before = node.machine.files.record.read_bytes()
    node.arm()
    assert node.machine.files.record.read_bytes() == before
    node.arm("A")
    assert node.boot() == "A", "arming the booted slot is disarming"


def test_a_bad_slot_does_not_boot_and_stays_known(node: Node) -> None:
    node.stage()
    node.arm()
    node.mark_bad("B")
    assert node.boot() == "A"
    assert (node.slots()["B"].good, node.slots()["B"].version) == (False, "2.0")


@pytest.mark.parametrize("slot", ["c", "", "../a"])
def test_unknown_slots_are_refused(node: Node, slot: str) -> None:
    assert code_of(lambda: node.arm(slot)) == DriverCode.REFUSED
    assert code_of(lambda: node.mark_bad(slot)) == DriverCode.REFUSED


def test_an_empty_slot_is_not_armed(node: Node) -> None:
    assert code_of(node.arm) == DriverCode.REFUSED


def test_nothing_is_staged_on_trial(node: Node) -> None:
    node.stage()
    node.arm()
    node.boot()
    assert code_of(node.stage) == DriverCode.REFUSED
    assert node.file("A").read_bytes() == OLD


def test_a_full_disk(node: Node) -> None:
    node.stage()
    node.arm()
    node.boot()
    node.mark_good()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        assert code_of(node.stage) == DriverCode.NO_SPACE
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert node.file("B").read_bytes() == NEW
    slots = node.slots()
    assert (slots["A"].good, slots["A"].digest, slots["B"].next_boot) == (False, None, True)
    assert node.boot() == "B"
    node.stage()
    assert node.slots()["A"].digest == node.image.digest


@pytest.mark.parametrize("change", [{"digest": "sha256:" + "0" * 64}, {"size": 5}])
def test_a_payload_that_is_not_the_image(node: Node, change: dict[str, object]) -> None:
    node.image = msgspec.structs.replace(node.image, **change)
    assert code_of(node.stage) == DriverCode.WRONG_DIGEST
    assert node.slots()["B"].digest is None
    assert code_of(node.arm) == DriverCode.REFUSED
    assert node.boot() == "A"


def test_a_payload_that_is_not_there(node: Node) -> None:
    node.payload.unlink()
    assert code_of(node.stage) == DriverCode.TOOL


def test_a_shorter_image_leaves_nothing_of_the_longer_one(node: Node) -> None:
    node.stage()
    short = content_of("3.0", payload=b"")
    node.image = write_image(node.payload, short, "3.0")
    node.stage()
    assert node.file("B").read_bytes() == short


def test_cancelled_staging_leaves_the_slot_unbootable(node: Node) -> None:
    big = content_of("2.0", payload=bytes(8 * 1024 * 1024))
    node.image = write_image(node.payload, big, "2.0")

    async def scene() -> None:
        loop, began = asyncio.get_running_loop(), asyncio.Event()
        work = asyncio.ensure_future(
            node.driver.stage(node.image, node.payload, lambda share: loop.call_soon_threadsafe(began.set))
        )
        await began.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(scene())
    assert node.slots()["B"].digest is None
    assert node.boot() == "A"


def test_a_damaged_record_is_named(node: Node) -> None:
    node.machine.files.record.write_text("{")
    assert code_of(node.slots) == DriverCode.TOOL
    with pytest.raises(MachineError, match=r"boot record"):
        node.boot()


def test_a_node_that_is_off(node: Node) -> None:
    node.machine.files.boot.unlink()
    assert code_of(node.slots) == DriverCode.TOOL


def test_reboot_is_a_request_on_disk_and_then_the_end_of_the_process(node: Node) -> None:
    asyncio.run(node.driver.reboot())
    assert node.rebooted == [True]
    assert node.machine.files.reboot.read_text() == asyncio.run(node.driver.boot_id())
    before = asyncio.run(node.driver.boot_id())
    node.boot()
    assert not node.machine.files.reboot.exists()
    assert asyncio.run(node.driver.boot_id()) != before


@pytest.mark.parametrize("image", [b"", b"ID=x\n", b"ID\n--\n", b'ID="x\n--\n', b"\xff\n--\n"])
def test_no_node_from_something_else_than_an_image(tmp_path: Path, image: bytes) -> None:
    (tmp_path / "image").write_bytes(image)
    with pytest.raises(MachineError, match="not an image"):
        FilesMachine.create(tmp_path / "node", tmp_path / "image")
    assert not (tmp_path / "node").exists()


def test_a_node_is_created_once(node: Node) -> None:
    with pytest.raises(MachineError, match="already"):
        FilesMachine.create(node.root, node.payload)


def test_the_header_becomes_the_os_release_of_the_boot(node: Node) -> None:
    assert "VERSION_ID=1.0" in node.machine.files.os_release.read_text()
