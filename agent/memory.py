"""The machine's state on disk, and the commands that wait until the state they follow from is there.

A disk that takes nothing stops every beginning. It does not stop what leads back: a slot on trial is left and an
arming is taken back all the same, for both may be repeated, and what the next boot shows is evidence enough.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from agent.interruptible import interruptible
from agent.phases.inputs import Abandon, Command, Do, Send
from agent.phases.model import State, Step, WorkKind, durable
from agent.state import StateFolder
from wire.messages import Hold, LeaseRequest, NodeEvent, OperationReport, Result

SENDS_KEPT = 16
"""Messages that wait for the disk: the phase machine says them again when they were lost."""

log = logging.getLogger("twinroot.agent")


class Memory:
    """`clock` is in seconds. Fields to read: hold (why the disk takes nothing), outbox (what is on disk of it)."""

    def __init__(self, folder: StateFolder, state: State, *, retry_s: float, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._retry_s = retry_s
        self._clock = clock
        self._retry_at = 0.0
        self._on_disk: State | None = None
        self._do: Do | None = None
        self._abandon: Abandon | None = None
        self._sends: deque[Send] = deque(maxlen=SENDS_KEPT)
        self.hold: Hold | None = None
        self.outbox: list[NodeEvent | OperationReport] = state.outbox

    async def keep(self, state: State, commands: list[Command]) -> list[Command]:
        """Write `state` if what lasts of it changed; the commands that may be executed now, in order."""
        for command in commands:
            self._add(command)
        if await self._write(state) or leads_back(state):
            return self._take()
        self._forget_requests()
        return []

    def _add(self, command: Command) -> None:
        match command:
            case Do():
                self._do = command
            case Abandon(work_id=work_id) if self._do is not None and self._do.work.id == work_id:
                self._do = None  # it never began
            case Abandon():
                self._abandon = command
            case Send():
                self._sends.append(command)

    def _take(self) -> list[Command]:
        taken: list[Command] = [self._abandon] if self._abandon is not None else []
        taken += self._sends
        taken += [self._do] if self._do is not None else []
        self._do, self._abandon = None, None
        self._sends.clear()
        return taken

    def _forget_requests(self) -> None:
        """A lease counts from its request: one that waited for the disk is asked for anew."""
        kept = [send for send in self._sends if not isinstance(send.message, LeaseRequest)]
        self._sends = deque(kept, maxlen=SENDS_KEPT)

    async def _write(self, state: State) -> bool:
        lasting = durable(state)
        if lasting == self._on_disk:
            return True
        if self.hold is not None and self._clock() < self._retry_at:
            return False
        try:
            await interruptible(lambda: self._folder.write_state(state), lambda: None)
        except OSError as problem:
            text = f"{self._folder.state_file} cannot be written: {problem.strerror or problem}"
            if self.hold is None:
                log.error("%s", text)
            self.hold = Hold(code="state-disk", text=text)
            self._retry_at = self._clock() + self._retry_s
            return False
        self._on_disk, self.hold, self.outbox = lasting, None, state.outbox
        return True


def leads_back(state: State) -> bool:
    """Whether what is to be done now makes the confirmed slot the next boot, or lets services come back.

    Going back unreached is not among them: without a note of it the version would be called bad.
    """
    if state.step is Step.ROLLING_BACK:
        return state.retreat is not None and state.retreat.result is not Result.UNREACHABLE
    return bool(state.work) and state.work[0].kind in (WorkKind.DISARM, WorkKind.UNDRAIN)
