"""One loop around the phase machine: inputs in, the state to disk, then commands out.

1. An input is taken from the queue (link, work, checks, slots, inhibitors, time).
2. The phase machine answers with the next state and commands.
3. The state goes to disk, if what lasts of it changed. A disk that does not take it is tried again with later
   inputs and shown; no command is executed before, but those that lead back (agent.memory).
4. Commands are executed: work is begun or stopped, requests are said.
5. The link is nudged and `status.json` is written.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace

import msgspec

from agent.evidence import EvidenceTable, Observed, Verdict, judge
from agent.link import Link, Standing
from agent.memory import Memory
from agent.phases.inputs import (
    Abandon,
    Do,
    Input,
    Instructed,
    Limits,
    Moment,
    Send,
    Started,
    Stopping,
    WorkDone,
)
from agent.phases.model import State, Step
from agent.phases.show import activity
from agent.phases.table import step
from agent.picture import Picture
from agent.pinning import ServerKeyNamed, take_key
from agent.senses import Senses, Sources, every
from agent.state import Identity, StateFolder
from agent.status import Shown, shown
from agent.trust import TrustError
from agent.work import Means, Worker
from wire.identity import new_nonce
from wire.messages import (
    AgentFacts,
    Boot,
    BootCause,
    Desired,
    EvidenceClass,
    Facts,
    Hold,
    LeaseGrant,
    NodeEvent,
    OperationKind,
    OperationReport,
    OsFacts,
)

STATUS_S = 0.5
STATUS_AGE_S = 30.0
"""status.json is written at least this often, so that its age tells a living agent from a dead one."""
DISK_RETRY_S = 2.0
ROOM = 64
"""Messages of the gateway that may wait for the loop; more wait in the network."""
FILLED = frozenset({OperationKind.STAGE, OperationKind.ACTIVATE})
"""Kinds whose image must be trusted; the others boot what the slot holds."""


log = logging.getLogger("twinroot.agent")


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What else the runner knows of its machine; tests bring their own."""

    evidence: EvidenceTable
    wall: Callable[[], float]
    boot_at: Callable[[], float]
    """When this boot began, Unix seconds."""
    shutting_down: Callable[[], bool]
    hostname: str
    agent_version: str


class Runner:
    """The agent of one node. `run` ends when `stop` was called, or by an exception that nobody foresaw."""

    def __init__(
        self,
        folder: StateFolder,
        identity: Identity,
        state: State,
        means: Means,
        sources: Sources,
        surroundings: Surroundings,
        *,
        limits: Limits,
        status: Callable[[Shown], None],
        link: Callable[..., Link] = Link,
        chance: Callable[[], float] = random.random,
        disk_retry_s: float = DISK_RETRY_S,
    ) -> None:
        self.state = state
        self._folder = folder
        self._identity = identity
        self._means = means
        self._surroundings = surroundings
        self._limits = limits
        self._write_status = status
        self._make_link = link
        self._chance = chance
        self._memory = Memory(folder, state, retry_s=disk_retry_s, clock=time.monotonic)
        self._queue: asyncio.Queue[Input | Desired | ServerKeyNamed] = asyncio.Queue()
        self._worker = self._make_worker()
        self._tasks: asyncio.TaskGroup | None = None
        self._link: Link | None = None
        self._stop = asyncio.Event()
        self._room = asyncio.Event()
        self._progress: float | None = None
        self._untold, self._told_at = True, 0.0
        self._told_standing: Standing | None = None
        self._os = OsFacts(id="")
        self._agent_facts = AgentFacts(version=surroundings.agent_version)
        self._senses = Senses(
            sources,
            tell=self._queue.put_nowait,
            changed=self._show,
            state=lambda: self.state,
            busy=lambda: self._worker.busy,
        )

    def _make_worker(self) -> Worker:
        return Worker(
            self._means,
            spawn=self._spawn,
            answer=self._queue.put_nowait,
            progress=self._progressed,
            flush=self._flush,
            look=lambda: self._senses.look(),
            noted=lambda: self.state.trial.witnesses if self.state.trial else {},
            last_slots=lambda: self.state.slots,
        )

    # --- life -----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask for an orderly end."""
        self._stop.set()

    async def run(self) -> None:
        """DriverError when the machine does not even say which slot is booted."""
        started = await self._observe()
        self._link = self._make_link(
            self._identity,
            agent_version=self._surroundings.agent_version,
            boot_id=started.boot_id,
            picture=self._picture,
            heard=self._queue.put_nowait,
            room=self._wait_for_room,
        )
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await self._take(started)
                await self._take_newest()
                running = [self._spawn(work, name) for name, work in self._duties(self._link)]
                await self._stop.wait()
                for task in running:
                    task.cancel()
                await self._worker.stop()
        finally:
            self._tasks = None
        await self._end()

    def _duties(self, link: Link) -> list[tuple[str, Coroutine[None, None, None]]]:
        status = every(STATUS_S, self._tell_status)
        return [("link", link.run()), ("loop", self._loop()), ("status", status), *self._senses.loops()]

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        assert self._tasks is not None, "work is only begun while the agent runs"
        return self._tasks.create_task(work, name=name)

    async def _observe(self) -> Started:
        driver = self._means.driver
        self._os = await driver.os()
        boot_id, slots = await driver.boot_id(), await driver.slots()
        expected = self.state.expected
        verdict = Verdict.UNKNOWN
        if expected is not None:
            verdict = judge(self._surroundings.evidence, expected, Observed(boot_id=boot_id, slots=slots))
        return Started(
            boot_id=boot_id,
            slots=slots,
            boot_at=self._surroundings.boot_at(),
            os=self._os.id,
            arch=self._os.arch,
            cause=await driver.boot_cause(),
            verdict=verdict,
        )

    async def _end(self) -> None:
        """The mark of an orderly end; a disk that does not take it makes the end look like a cut."""
        orderly = await asyncio.to_thread(self._surroundings.shutting_down)
        after, _ = step(self.state, Stopping(orderly=orderly), self._moment(), self._limits)
        try:
            self._folder.write_state(after)
        except OSError as problem:
            log.error("%s cannot be written: %s", self._folder.state_file, problem.strerror)

    # --- the loop -------------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        while True:
            given = await self._queue.get()
            if self._queue.qsize() < ROOM:
                self._room.set()
            if isinstance(given, LeaseGrant | WorkDone):
                await self._take_newest()
            if isinstance(given, Desired):
                given = Instructed(desired=given, distrust=self._distrust(given))
            if isinstance(given, ServerKeyNamed):
                await self._take_key(given)
            else:
                await self._take(given)

    async def _take_key(self, named: ServerKeyNamed) -> None:
        self._identity, news = await take_key(self._folder, self._identity, named)
        if self._link is not None:
            self._link.use(self._identity)
        if news is not None:
            await self._take(news)

    async def _take(self, given: Input) -> None:
        before, disk_hold = self.state, self._memory.hold
        after, commands = step(before, given, self._moment(), self._limits)
        due = await self._memory.keep(after, commands)
        self.state = after
        if after.step is Step.CONFIRMING and before.step is not Step.CONFIRMING:
            self._senses.hurry()
        _log(before, after)
        for command in due:
            await self._execute(command)
        if after != before or self._memory.hold is not disk_hold:
            self._show()

    def _moment(self) -> Moment:
        return Moment(
            boot_s=self._means.boot_s(),
            asleep_s=self._means.asleep_s(),
            wall=self._surroundings.wall(),
            nonce=new_nonce(),
            chance=self._chance(),
        )

    async def _take_newest(self) -> None:
        """Before a step towards a reboot: inhibitors and containers of this moment count, not those of a second ago."""
        for sense in (self._senses.inhibitors, self._senses.placed):
            news = sense()
            if news is not None:
                await self._take(news)

    async def _execute(self, command: Do | Abandon | Send) -> None:
        match command:
            case Do(work=work):
                self._worker.begin(work)
            case Abandon(work_id=work_id):
                await self._worker.abandon(work_id)
            case Send(message=message):
                if self._link is not None:
                    self._link.say(message)

    def _distrust(self, desired: Desired) -> str:
        operation = desired.operation
        if operation is None or operation.image is None or operation.kind not in FILLED:
            return ""
        try:
            self._means.trust(operation.image)
        except TrustError as error:
            return error.text
        return ""

    async def _wait_for_room(self) -> None:
        if self._queue.qsize() >= ROOM:
            self._room.clear()
            await self._room.wait()

    # --- what is shown --------------------------------------------------------------------------------------

    def _progressed(self, share: float | None) -> None:
        self._progress = None if share is None else round(share, 2)
        self._show()

    async def _flush(self, limit_s: float) -> None:
        if self._link is not None:
            await self._link.flush(limit_s)

    def _picture(self) -> Picture:
        return Picture(
            facts=self._facts(),
            slots=self.state.slots,
            activity=activity(self.state, self._means.boot_s(), self._progress, self._own_holds()),
            health=self._senses.health,
            placement=self._senses.placement(),
            outbox=self._memory.outbox,
        )

    def _own_holds(self) -> list[Hold]:
        return [*([self._memory.hold] if self._memory.hold else []), *self._senses.holds]

    def _facts(self) -> Facts:
        boot = self.state.boot or Boot(id=self.state.boot_id, at=0.0, cause=BootCause.UNKNOWN)
        known = self._senses.knows_placement
        return Facts(
            agent=self._agent_facts,
            os=self._os,
            boot=boot,
            evidence=EvidenceClass.AGENT_WITH_PLACEMENT if known else EvidenceClass.AGENT_WITHOUT_PLACEMENT,
            hostname=self._surroundings.hostname,
        )

    def _show(self) -> None:
        self._untold = True
        if self._link is not None:
            self._link.nudge()

    async def _tell_status(self) -> None:
        link, wall = self._link, self._surroundings.wall()
        if link is None:
            return
        news = self._untold or link.standing != self._told_standing
        if not news and abs(wall - self._told_at) <= STATUS_AGE_S:
            return
        self._untold, self._told_at, self._told_standing = False, wall, replace(link.standing)
        self._write_status(shown(self._identity, self._picture(), link.standing, wall))


def _log(before: State, after: State) -> None:
    """What the history keeps is also in the journal of the node."""
    if before.step is not after.step:
        operation = after.operation or before.operation
        log.info("%s -> %s%s", before.step, after.step, f" ({operation.id})" if operation else "")
    for item in after.outbox:
        if item.seq >= before.next_seq:
            match item:
                case NodeEvent(kind=kind, text=text):
                    log.info("%s: %s", kind, text)
                case OperationReport(operation_id=name, result=result, reason=reason):
                    log.info("operation %s %s%s", name, result, f": {reason}" if reason else "")
