"""One simulated node without I/O: the agent's own phase machine above an invented machine, on a clock from outside.

`receive` gives it what the gateway said, `advance` lets time pass, `outbox` holds what it says. What is on its disk
(its boot record, its agent's state) survives the death of the agent and of the machine; all else does not.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress

import msgspec

from agent.drivers.files_node import MachineCause
from agent.evidence import Observed, Verdict, judge
from agent.phases.inputs import (
    Abandon,
    Checked,
    Command,
    Do,
    Input,
    Instructed,
    Limits,
    LinkLost,
    Moment,
    Placed,
    Started,
    Stopping,
    Ticked,
    Welcomed,
    WorkDone,
    WorkFailed,
)
from agent.phases.leases import LEASE_ENDED
from agent.phases.model import State, Step, Work, WorkKind, durable
from agent.phases.table import step
from sim.body import Body, NodeSpec
from sim.due import due_s
from sim.labour import Labour, carry_out
from sim.machine import TABLE, Deed, Machine, Refused
from sim.replicas import Replica, Replicas
from sim.senses import GOOD, found, pictured
from sim.voice import Voice
from sim.watch import Cause, Watch
from wire.messages import Ack, Ask, Desired, FromNode, FromServer, Health, LeaseGrant, LeaseWait, Welcome

LIMITS = Limits()
TICK_S = 1.0
"""A deadline that a tick did not settle is looked at again after this, as the agent's own tick would."""
LEAST_S = 0.001
"""Less than this is lost beside the seconds of a wall clock, and the same moment would come again for ever."""
FIRST_CHECK_S = 0.5


class SimNode:
    """Fields to read: body, state (of the phase machine), health, alive (its agent), linked (it believes to be
    connected), cut_off (its last connection ended without a word), next_at (when something happens by itself).
    `fuse`: after so many inputs the agent is killed between the write of its state and what follows from it."""

    __slots__ = (
        "_agent_at",
        "_check_at",
        "_labour",
        "_nonce",
        "_tick_at",
        "_ticked_s",
        "_voice",
        "alive",
        "body",
        "cut_off",
        "fuse",
        "health",
        "linked",
        "next_at",
        "state",
    )

    def __init__(self, spec: NodeSpec, replicas: list[Replica], watch: Watch, start: float) -> None:
        """It has been up for long at `start` (seconds); its agent starts within a second."""
        self.body = Body(self, spec, replicas, watch, start)
        self.state = State()
        self.health: Health = GOOD
        self.alive = self.linked = self.cut_off = False
        self.fuse: int | None = None
        self._labour = Labour()
        self._voice = Voice(spec.troubles.claim)
        self._nonce, self._ticked_s = 0, 0.0
        self._check_at = self._tick_at = math.inf
        self._agent_at = start + self.body.dice.chance()
        self.body.engine.start(lambda: start)
        self.body.turn_replicas()
        self._plan()

    # --- what it is -----------------------------------------------------------------------------------------

    @property
    def spec(self) -> NodeSpec:
        return self.body.spec

    @property
    def machine(self) -> Machine:
        return self.body.machine

    @property
    def engine(self) -> Replicas:
        """Its containers."""
        return self.body.engine

    @property
    def up(self) -> bool:
        return self.body.up

    @property
    def outbox(self) -> deque[FromNode]:
        """What it says on the present connection, in order; whoever sends it takes it out."""
        return self._voice.out

    @property
    def can_connect(self) -> bool:
        """Whether its agent runs and has a network."""
        return self.alive and self.body.network_up()

    # --- from outside ---------------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Everything that happens by itself up to `now`, each thing at its own time."""
        body = self.body
        while self.next_at <= now:
            body.now = max(body.now, self.next_at)
            self._due()
            self._plan()
        body.now = max(body.now, now)

    def receive(self, message: FromServer, now: float) -> None:
        """What the gateway says on the present connection; a Welcome begins one. A dead agent hears nothing."""
        self.advance(now)
        if self.alive:
            self._hear(message)
            self._plan()

    def _hear(self, message: FromServer) -> None:
        match message:
            case Welcome(conflict=conflict):
                if not self.linked:
                    self._voice.begin()
                self.linked, self.cut_off = True, False
                self._give(Welcomed(conflict=conflict), show=True)
            case Desired():
                self._give(Instructed(desired=message))
            case LeaseGrant() | LeaseWait() | Ack():
                self._give(message)
            case Ask():
                self._voice.say_whole()
                self._show()
            case _:
                pass

    def disconnect(self, now: float) -> None:
        """The connection has ended."""
        self.advance(now)
        self._lose_link()
        self._plan()

    def cut_power(self, now: float, for_s: float = 0.0) -> None:
        """At once, whatever it does; it comes back after `for_s` and a boot."""
        self.advance(now)
        self.body.tell(Deed.POWER_LOST, "")
        self.cut_off = True
        self._end_agent()
        self.body.go_down(MachineCause.POWER_CUT, for_s, Cause.MACHINE)
        self._plan()

    def kill_agent(self, now: float) -> None:
        """kill -9; its init system starts it again."""
        self.advance(now)
        if self.alive:
            self._kill()
        self._plan()

    def take(self, replica: Replica, now: float) -> None:
        """Its orchestrator starts a replica here."""
        self.advance(now)
        self.body.take(replica)
        self._placed()
        self._plan()

    def drop(self, replica: Replica, now: float) -> None:
        """Its orchestrator removes a replica."""
        self.advance(now)
        self.body.drop(replica)
        self._placed()
        self._plan()

    # --- time -----------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        self.next_at = min(
            self.body.up_at,
            self.body.network_at,
            self.body.engine.next_at,
            self._agent_at,
            self._labour.done_at,
            self._check_at,
            self._tick_at,
        )

    def _due(self) -> None:
        """What is due at this moment, the machine before its containers, these before the agent."""
        body = self.body
        if body.now >= body.network_at and not body.turn_network():
            self._lose_link()
        if body.now >= body.up_at and body.try_boot():
            self._agent_at = body.now
        if body.now >= body.engine.next_at:
            body.turn_replicas()
            self._placed()
        if body.now >= self._agent_at:
            self._start_agent()
        if body.now >= self._labour.done_at:
            self._finish_work()
        if body.now >= self._check_at:
            self._check()
        if body.now >= self._tick_at:
            self._ticked_s = body.boot_s
            self._give(Ticked())

    def _lose_link(self) -> None:
        if self.linked:
            self.linked, self.cut_off = False, True
            self._voice.end()
            self._give(LinkLost())

    # --- the agent ------------------------------------------------------------------------------------------

    def _start_agent(self) -> None:
        body = self.body
        self.alive, self._ticked_s, self._agent_at = True, 0.0, math.inf
        self._check_at = body.now + FIRST_CHECK_S
        slots, expected = body.machine.slots(), self.state.expected
        verdict = Verdict.UNKNOWN
        if expected is not None:
            verdict = judge(TABLE, expected, Observed(boot_id=body.boot_id, slots=slots))
        self._give(
            Started(
                boot_id=body.boot_id,
                slots=slots,
                boot_at=body.up_since,
                os=body.spec.os,
                arch=body.spec.arch,
                cause=body.machine.cause,
                verdict=verdict,
            )
        )
        self._placed()

    def _kill(self) -> None:
        """A command that was given to a tool may have been carried out, and nobody heard of it."""
        if self._labour.work is not None and self.body.dice.chance() < 0.5:
            with suppress(Refused):
                carry_out(self.machine, self._labour.work, self.body.tell)
        self._end_agent()
        self._agent_at = self.body.now + self.spec.durations.restart_s

    def _end_agent(self) -> None:
        """What is on disk stays."""
        self.alive = self.linked = False
        self.state = durable(self.state)
        self._labour.stop()
        self._voice.end()
        self._agent_at = self._check_at = self._tick_at = math.inf

    def _give(self, given: Input, *, show: bool = False) -> None:
        """One input: step, keep, carry out, say what is new."""
        before = self.state
        self.state, commands = step(before, given, self._moment(), LIMITS)
        if self._fuse_blows():
            return
        for command in commands:
            self._execute(command)
        if self.state.step is Step.CONFIRMING and before.step is not Step.CONFIRMING:
            self._check_at = min(self._check_at, self.body.now + FIRST_CHECK_S)
        self._next_tick()
        if show or commands or msgspec.structs.replace(self.state, rounds=before.rounds) != before:
            self._show()

    def _moment(self) -> Moment:
        self._nonce += 1
        body = self.body
        nonce = f"{body.spec.name}.{self._nonce}"
        return Moment(boot_s=body.boot_s, wall=body.now, nonce=nonce, chance=body.dice.chance())

    def _execute(self, command: Command) -> None:
        match command:
            case Do(work=work):
                self._begin(work)
            case Abandon():
                self._labour.stop()
            case _:
                self._voice.urgent(command.message)

    def _fuse_blows(self) -> bool:
        if self.fuse is None:
            return False
        self.fuse -= 1
        if self.fuse > 0:
            return False
        self.fuse = None
        self._kill()
        return True

    def _next_tick(self) -> None:
        boot_s, at_s = self.body.boot_s, due_s(self.state, LIMITS)
        if at_s <= boot_s:
            at_s = max(boot_s, self._ticked_s + TICK_S)
        self._tick_at = self.body.now + max(at_s - boot_s, LEAST_S)

    # --- its work -------------------------------------------------------------------------------------------

    def _begin(self, work: Work) -> None:
        if work.kind is WorkKind.STAGE:
            with suppress(Refused):  # then it is refused at the end, too
                self.machine.begin_stage()
                self.body.tell(Deed.WRITES, self.machine.passive)
        self._labour.begin(work, self.body.now + self.body.work_s(work))

    def _finish_work(self) -> None:
        work = self._labour.stop()
        assert work is not None, "work was due"
        if work.not_after_s is not None and self.body.boot_s >= work.not_after_s:
            self._give(WorkFailed(id=work.id, code=LEASE_ENDED, text="the lease has run out"))
        elif work.kind is WorkKind.REBOOT:
            self._reboot()
        elif work.kind is WorkKind.STAGE and self.body.download_is_dead():
            self._give(WorkFailed(id=work.id, code="network", text="the server does not answer", transient=True))
        else:
            self._give(self._answer(work))

    def _answer(self, work: Work) -> WorkDone | WorkFailed:
        try:
            carry_out(self.machine, work, self.body.tell)
        except Refused as problem:
            return WorkFailed(id=work.id, code="refused", text=str(problem))
        stands = self.body.network_up()
        return WorkDone(id=work.id, slots=self.machine.slots(), witnesses={"route": stands}, standing=stands)

    def _reboot(self) -> None:
        cause = Cause.RETREAT if self.state.step is Step.ROLLING_BACK else Cause.OPERATION
        self.body.tell(Deed.GOES_DOWN, "")
        self.state, _ = step(self.state, Stopping(orderly=True), self._moment(), LIMITS)
        said = list(self.outbox)
        self._end_agent()
        self.outbox.extend(said)  # it was handed to the network before
        self.body.go_down(MachineCause.REBOOT, self.body.within(self.spec.durations.shutdown_s), cause)

    # --- its senses -----------------------------------------------------------------------------------------

    def _check(self) -> None:
        """A round of checks; the next one is at the next moment at which one may matter."""
        body, durations = self.body, self.spec.durations
        self.health = found(body.failing())
        if body.turn_replicas():
            self._placed()
        self._check_at = body.next_health_change()
        self._give(Checked(health=self.health))
        if self.alive and self.state.step is Step.CONFIRMING:
            self._check_at = min(self._check_at, body.now + durations.trial_checks_s)
        elif self.alive and self.state.step is Step.SOAKING:
            self._check_at = min(self._check_at, body.now + durations.checks_s)

    def _placed(self) -> None:
        """Its engine told the agent of a change."""
        if self.alive:
            self._give(Placed(serving=self.engine.serving()), show=True)

    def _show(self) -> None:
        if self.linked:
            self._voice.speak(pictured(self), self.state)
