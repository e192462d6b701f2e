"""Firmware and init of a `files` node: picks the slot, "boots" it, keeps the agent running.

`python -m agent.drivers.files_machine ROOT [--create IMAGE] -- COMMAND…`

SIGTERM or SIGINT stop agent and machine; SIGUSR1 is a power cut: nothing gets to tidy up.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

import msgspec

from agent.drivers.files_disk import Disk
from agent.drivers.files_node import (
    CHUNK_BYTES,
    REBOOT_EXIT,
    BadHeader,
    MachineCause,
    NodeFiles,
    Running,
    digest_of,
    read_header,
)
from agent.drivers.files_record import BootRecord, EntryState, came_up, counted, failed_boot, first_record

PANIC = "panic"
"""Value of TWINROOT_BOOT in the header of an image that does not come up."""

MAX_PANICS = 16
"""Attempts of one power-on; two slots with their tries need fewer, so nothing here boots."""

BACKOFF_S = 0.5
STOP_LIMIT_S = 10.0
"""How long an agent may take to stop in order."""

QUICK_DEATH_S = 3.0
QUICK_DEATHS = 8
"""An agent that dies this often in a row, each time this soon, makes a boot on trial a failed one."""


class MachineError(Exception):
    """The node cannot be created or cannot boot; one sentence."""


class End(Enum):
    """Why a boot ended; all but STOP lead to the next one."""

    STOP = "stop"
    POWER_CUT = MachineCause.POWER_CUT
    REBOOT = MachineCause.REBOOT
    WATCHDOG = MachineCause.WATCHDOG


class FilesMachine:
    """One node below `root`. `say` gets a line for each thing that happens."""

    def __init__(
        self,
        root: Path,
        *,
        disk: Disk | None = None,
        backoff_s: float = BACKOFF_S,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.files = NodeFiles(root)
        self._disk = disk or Disk()
        self._backoff_s = backoff_s
        self._say = say

    @classmethod
    def create(cls, root: Path, image: Path, *, disk: Disk | None = None) -> FilesMachine:
        """A fresh node with `image` confirmed in slot A. MachineError when there is one, or no header."""
        machine = cls(root, disk=disk)
        files, disk = machine.files, machine._disk
        if files.record.exists():
            raise MachineError(f"{root} already holds a node")
        try:
            _, values = read_header(image)
        except (BadHeader, OSError) as problem:
            raise MachineError(f"not an image: {problem}") from problem
        for folder in (root, files.slot("A").parent, files.run):
            folder.mkdir(parents=True, exist_ok=True)
        size = _copy(disk, image, files.slot("A"))
        disk.write(files.slot("B"), 0, b"")
        disk.sync_folder(files.slot("A").parent)
        record = first_record(digest_of(files.slot("A")), values.get("VERSION_ID", ""), size)
        disk.replace(files.record, msgspec.json.encode(record))
        return machine

    def power_on(self, cause: MachineCause = MachineCause.POWER_ON) -> Running:
        """Boot; an image that does not come up costs its try and the next one is taken.

        MachineError when nothing comes up or the record cannot be read.
        """
        for _ in range(MAX_PANICS):
            before = self._read()
            record, slot = counted(before)
            self._replace(record, before)
            header = self._try_boot(record, slot)
            if header is not None:
                self._replace(came_up(record, slot), record)
                return self._booted(slot, header, cause)
            self._say(f"slot {slot}: panic")
            self._replace(failed_boot(record, slot), record)
            cause = MachineCause.PANIC
        raise MachineError(f"no slot of {self.files.root} boots")

    def _read(self) -> BootRecord:
        try:
            return self.files.read_record()
        except (OSError, msgspec.MsgspecError) as problem:
            raise MachineError(f"boot record of {self.files.root}: {problem}") from problem

    def _replace(self, record: BootRecord, before: BootRecord) -> None:
        if record != before:
            self._disk.replace(self.files.record, msgspec.json.encode(record))

    def _try_boot(self, record: BootRecord, slot: str) -> str | None:
        """The header of the image; None when it panics. The whole image is verified, as dm-verity would."""
        path = self.files.slot(slot)
        try:
            text, values = read_header(path)
            intact = digest_of(path) == record.entry(slot).digest
        except (BadHeader, OSError):
            return None
        return text if intact and values.get("TWINROOT_BOOT") != PANIC else None

    def _booted(self, slot: str, header: str, cause: MachineCause) -> Running:
        """What a fresh `run` folder (a tmpfs on a real machine) says of this boot."""
        self.files.run.mkdir(exist_ok=True)
        self.files.reboot.unlink(missing_ok=True)
        running = Running(boot_id=str(uuid.uuid4()), slot=slot, cause=cause, at=time.time())
        self._disk.replace(self.files.os_release, header.encode())
        self._disk.replace(self.files.boot, msgspec.json.encode(running))
        self._say(f"slot {slot}: booted ({cause})")
        return running

    async def run(self, command: Sequence[str]) -> None:
        """Power on, keep `command` running and reboot as told, until SIGTERM or SIGINT."""
        with _wishes() as wishes:
            cause = MachineCause.POWER_ON
            while True:
                self.power_on(cause)
                end = await self._supervise(command, wishes)
                if end is End.STOP:
                    return
                cause = MachineCause(end.value)

    async def _supervise(self, command: Sequence[str], wishes: asyncio.Queue[End]) -> End:
        """One boot: the agent is restarted when it dies, as an init system would."""
        quick_deaths = 0
        while True:
            started = time.monotonic()
            end = await self._one_life(command, wishes)
            if end is not None:
                return end
            quick_deaths = quick_deaths + 1 if time.monotonic() - started < QUICK_DEATH_S else 0
            if quick_deaths >= QUICK_DEATHS and self._on_trial():
                self._say("agent keeps dying on trial: watchdog")
                return End.WATCHDOG
            with suppress(TimeoutError):
                return await asyncio.wait_for(wishes.get(), self._backoff_s * 2 ** min(quick_deaths, 4))

    async def _one_life(self, command: Sequence[str], wishes: asyncio.Queue[End]) -> End | None:
        """Start the agent and wait; None when it just died."""
        agent = await asyncio.create_subprocess_exec(*command, start_new_session=True)
        self.files.agent_pid.write_text(str(agent.pid))
        died = asyncio.ensure_future(agent.wait())
        wish = asyncio.ensure_future(wishes.get())
        try:
            await asyncio.wait([died, wish], return_when=asyncio.FIRST_COMPLETED)
            if wish.done() and wish.result() is End.STOP:
                await _stop(agent, died)
        finally:
            _kill_group(agent.pid)
            await died
            wish.cancel()
        if wish.done():
            return wish.result()
        code = died.result()
        if code == REBOOT_EXIT and self.files.reboot.exists():
            return End.REBOOT
        self.files.reboot.unlink(missing_ok=True)
        self._say(f"agent exited with {code}: restarted in the same boot")
        return None

    def _on_trial(self) -> bool:
        record = self._read()
        return record.entry(record.last_up).state is EntryState.TRIAL


def _copy(disk: Disk, source: Path, target: Path) -> int:
    """Bytes written to `target`, synced."""
    done = 0
    with source.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            disk.write(target, done, chunk)
            done += len(chunk)
    disk.truncate(target, done)
    disk.sync(target)
    return done


async def _stop(agent: asyncio.subprocess.Process, died: asyncio.Future[int]) -> None:
    if agent.returncode is None:
        with suppress(ProcessLookupError):
            agent.terminate()
    await asyncio.wait([died], timeout=STOP_LIMIT_S)


def _kill_group(pid: int) -> None:
    """SIGKILL to the agent and everything it started; none of them is left is fine too."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@contextmanager
def _wishes() -> Iterator[asyncio.Queue[End]]:
    """What signals ask of the machine, while the block runs."""
    loop, wishes = asyncio.get_running_loop(), asyncio.Queue[End]()
    meanings = {signal.SIGTERM: End.STOP, signal.SIGINT: End.STOP, signal.SIGUSR1: End.POWER_CUT}
    for number, end in meanings.items():
        loop.add_signal_handler(number, wishes.put_nowait, end)
    try:
        yield wishes
    finally:
        for number in meanings:
            loop.remove_signal_handler(number)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="files_machine", description="Firmware and init of a files node.")
    parser.add_argument("root", type=Path)
    parser.add_argument("--create", type=Path, metavar="IMAGE", help="make the node first if there is none")
    parser.add_argument("command", nargs="+", help="what to run in each boot, after --")
    options = parser.parse_args(arguments)
    machine = FilesMachine(options.root, say=lambda line: print(line, file=sys.stderr, flush=True))
    try:
        if options.create and not machine.files.record.exists():
            FilesMachine.create(options.root, options.create)
        asyncio.run(machine.run(options.command))
    except MachineError as problem:
        print(f"files_machine: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
