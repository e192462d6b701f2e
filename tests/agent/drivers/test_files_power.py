"""The power goes before every single disk operation, and random sequences of everything."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.drivers.base import DriverCode, DriverError
from agent.drivers.files import FilesDriver
from agent.drivers.files_disk import Disk
from agent.drivers.files_machine import FilesMachine
from agent.drivers.files_node import digest_of
from agent.drivers.files_record import SLOTS, EntryState, other
from tests.agent.drivers.images import content_of, write_image
from tests.agent.drivers.power import Loss, PowerCut, PowerDisk
from wire.messages import Image, Slot

OLD = content_of("1.0", payload=b"old" * 500)
NEW = content_of("2.0", payload=b"new" * 700_000)
NEXT = content_of("3.0", payload=b"next" * 100)


class Bench:
    """A node on `disk` and the images to put on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "node"
        self.old = write_image(folder / "old", OLD, "1.0")
        self.new = write_image(folder / "new", NEW, "2.0")
        self.next = write_image(folder / "next", NEXT, "3.0")
        FilesMachine.create(self.root, folder / "old").power_on()

    def driver(self, disk: Disk | None = None) -> FilesDriver:
        return FilesDriver(self.root, disk=disk, on_reboot=lambda: None)

    def machine(self, disk: Disk | None = None) -> FilesMachine:
        return FilesMachine(self.root, disk=disk)

    async def stage(self, disk: Disk | None, image: Image) -> None:
        payload = self.folder / {"1.0": "old", "2.0": "new", "3.0": "next"}[image.version]
        await self.driver(disk).stage(image, payload, lambda share: None)


Scene = Callable[[Bench, Disk | None], None]


def stage(bench: Bench, disk: Disk | None) -> None:
    asyncio.run(bench.stage(disk, bench.new))


def stage_over_the_way_back(bench: Bench, disk: Disk | None) -> None:
    asyncio.run(bench.stage(disk, bench.next))


def arm(bench: Bench, disk: Disk | None) -> None:
    asyncio.run(bench.driver(disk).arm("B"))


def disarm(bench: Bench, disk: Disk | None) -> None:
    asyncio.run(bench.driver(disk).disarm())


def power_on(bench: Bench, disk: Disk | None) -> None:
    bench.machine(disk).power_on()


def mark_good(bench: Bench, disk: Disk | None) -> None:
    asyncio.run(bench.driver(disk).mark_good())


def mark_b_bad(bench: Bench, disk: Disk | None) -> None:
    asyncio.run(bench.driver(disk).mark_bad("B"))


UPDATED: tuple[Scene, ...] = (stage, arm, power_on, mark_good)

CASES: dict[str, tuple[tuple[Scene, ...], Scene, set[str]]] = {
    # what happened before, the step that the power cut hits, the slots that may come up after it
    "stage": ((), stage, {"A"}),
    "stage again": ((stage,), stage, {"A"}),
    "stage while armed": ((stage, arm), stage, {"A", "B"}),
    "stage over the way back": (UPDATED, stage_over_the_way_back, {"B"}),
    "arm": ((stage,), arm, {"A", "B"}),
    "disarm": ((stage, arm), disarm, {"A", "B"}),
    "first boot": ((stage, arm), power_on, {"B"}),
    "confirm": ((stage, arm, power_on), mark_good, {"B"}),
    "withdraw": ((stage,), mark_b_bad, {"A"}),
    "withdraw a trial": ((stage, arm, power_on), mark_b_bad, {"A", "B"}),
}


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("name", CASES)
def test_the_power_goes_before_each_operation(tmp_path: Path, name: str, loss: Loss) -> None:
    before, step, allowed = CASES[name]
    template = tmp_path / "template"
    template.mkdir()
    original = Bench(template)
    for scene in before:
        scene(original, None)
    cuts = 0
    for bench, disk in each_cut(original, tmp_path, step):
        cuts += 1
        disk.lose(loss)
        what_the_record_says_is_there(bench)
        running = bench.machine().power_on()
        assert running.slot in allowed, f"cut after {disk.left} operations"
        step_again(bench, step, running.slot)
    assert cuts > 3


def what_the_record_says_is_there(bench: Bench) -> None:
    files = bench.machine().files
    record = files.read_record()
    for slot in SLOTS:
        digest = record.entry(slot).digest
        assert digest is None or digest == digest_of(files.slot(slot))


def each_cut(template: Bench, folder: Path, step: Scene) -> Iterator[tuple[Bench, PowerDisk]]:
    """The same node again and again, each time with a power cut one operation later."""
    for left in range(1000):
        root = folder / "node"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(template.root, root)
        bench = Bench.__new__(Bench)
        bench.__dict__.update(template.__dict__, root=root)
        disk = PowerDisk(left)
        try:
            step(bench, disk)
        except PowerCut:
            yield bench, disk
        else:
            yield bench, disk  # all done, and the power goes right then
            return
    raise AssertionError("the step never ends")


def step_again(bench: Bench, step: Scene, booted: str) -> None:
    """The runner repeats the last step: nothing is wedged by what the power cut left."""
    if step is stage and booted == "A":
        step(bench, None)
        assert digest_of(bench.machine().files.slot("B")) == bench.new.digest
        assert bench.machine().power_on().slot == "A"
    if step is mark_good:
        step(bench, None)
        assert [bench.machine().power_on().slot for _ in range(5)] == [booted] * 5


IMAGES = {
    "1.0": (content_of("1.0"), True),
    "2.0": (content_of("2.0"), True),
    "3.0": (content_of("3.0", boot="panic"), False),
    "4.0": (b"not an image", False),
}


class RandomNode(RuleBasedStateMachine):
    """Anything in any order, with power cuts: the rules of the way back hold throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.root = self.folder / "node"
        self.images = {
            version: write_image(self.folder / version, content, version) for version, (content, _) in IMAGES.items()
        }
        self.booted = ""
        self.armed = False
        """Something may have been armed since the last boot, so the passive slot may be next."""

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize()
    def create(self) -> None:
        FilesMachine.create(self.root, self.folder / "1.0")
        self.boot()

    @rule()
    def boot(self) -> None:
        expected = self.booted if self.booted and self.is_confirmed() and not self.armed else None
        self.booted = FilesMachine(self.root).power_on().slot
        self.armed = False
        self.booted_bytes = self.file(self.booted).read_bytes()
        assert IMAGES[self.version(self.booted)][1], "an image that cannot boot is running"
        assert expected is None or self.booted == expected, "without an arming the confirmed slot boots"

    @rule(version=st.sampled_from(sorted(IMAGES)), left=st.none() | st.integers(0, 14), loss=st.sampled_from(Loss))
    def stage(self, version: str, left: int | None, loss: Loss) -> None:
        confirmed = self.is_confirmed()

        async def step(driver: FilesDriver) -> None:
            await driver.stage(self.images[version], self.folder / version, lambda share: None)

        refused = self.step(step, left, loss)
        if left is None:
            assert refused is not confirmed
            self.armed = self.armed and refused

    @rule(left=st.none() | st.integers(0, 5), loss=st.sampled_from(Loss))
    def arm(self, left: int | None, loss: Loss) -> None:
        self.armed = True
        self.step(lambda driver: driver.arm(other(self.booted)), left, loss)

    @rule(left=st.none() | st.integers(0, 5), loss=st.sampled_from(Loss))
    def disarm(self, left: int | None, loss: Loss) -> None:
        self.step(lambda driver: driver.disarm(), left, loss)
        if left is None and self.is_confirmed():
            self.armed = False
            assert self.slot(self.booted).next_boot

    @precondition(lambda self: not self.armed)
    @rule(left=st.none() | st.integers(0, 5), loss=st.sampled_from(Loss))
    def mark_good(self, left: int | None, loss: Loss) -> None:
        self.step(lambda driver: driver.mark_good(), left, loss)

    @rule(left=st.none() | st.integers(0, 5), loss=st.sampled_from(Loss))
    def mark_passive_bad(self, left: int | None, loss: Loss) -> None:
        self.step(lambda driver: driver.mark_bad(other(self.booted)), left, loss)

    @precondition(lambda self: not self.is_confirmed())
    @rule(left=st.none() | st.integers(0, 5), loss=st.sampled_from(Loss))
    def go_back(self, left: int | None, loss: Loss) -> None:
        self.armed = True
        self.step(lambda driver: driver.mark_bad(self.booted), left, loss)

    @invariant()
    def the_booted_slot_is_never_written(self) -> None:
        if self.booted:
            assert self.file(self.booted).read_bytes() == self.booted_bytes

    @invariant()
    def one_slot_is_booted_and_one_is_next(self) -> None:
        if self.booted:
            slots = self.slots()
            assert [slot.booted for slot in slots].count(True) == 1
            assert [slot.next_boot for slot in slots].count(True) == 1
            following = next(slot for slot in slots if slot.next_boot)
            assert following.booted or following.good is True or (following.tries_left or 0) > 0

    @invariant()
    def staged_is_never_next_boot(self) -> None:
        if self.booted:
            record = FilesMachine(self.root).files.read_record()
            for name in ("A", "B"):
                if record.entry(name).state in (EntryState.STAGED, EntryState.EMPTY):
                    assert name == self.booted or not self.slot(name).next_boot

    def step(self, step: Callable[[FilesDriver], object], left: int | None, loss: Loss) -> bool:
        """Whether the driver refused; a power cut on the way is followed by the next boot."""
        disk = PowerDisk(left)
        try:
            asyncio.run(step(FilesDriver(self.root, disk=disk)))  # type: ignore[arg-type]
        except DriverError as problem:
            assert problem.code == DriverCode.REFUSED
            return True
        except PowerCut:
            disk.lose(loss)
            self.boot()
        return False

    def slots(self) -> list[Slot]:
        return asyncio.run(FilesDriver(self.root).slots())

    def slot(self, name: str) -> Slot:
        return next(slot for slot in self.slots() if slot.name == name)

    def is_confirmed(self) -> bool:
        return self.slot(self.booted).good is True

    def file(self, name: str) -> Path:
        return FilesMachine(self.root).files.slot(name)

    def version(self, name: str) -> str:
        content = self.file(name).read_bytes()
        return next(version for version, (image, _) in IMAGES.items() if image == content)


RandomNode.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestRandomNode = RandomNode.TestCase
