"""One simulated node without I/O: the agent's own phase machine above an invented machine, on a clock from outside.

`receive` gives it what the gateway said, `advance` lets time pass, `outbox` holds what it says. What is on its disk
(its boot record, its agent's state) survives the death of the agent and of the machine; all else does not.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from agent.drivers.files_node import MachineCause
from agent.drivers.files_record import Entry
from agent.evidence import Observed, Verdict, judge
from agent.phases.inputs import (
    Abandon,
    Checked,
    Do,
    Input,
    Instructed,
    Limits,
    LinkLost,
    Moment,
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
from sim.dice import Dice
from sim.due import due_s
from sim.labour import SHORT_S, Labour, carry_out
from sim.machine import TABLE, Deed, Machine, Refused
from sim.replicas import Replica, Replicas
from sim.scenario import MIB, DurationsPart, Span
from sim.senses import GOOD, found, pictured
from sim.troubles import Troubles
from sim.voice import Voice
from sim.watch import Cause, Watch
from wire.messages import Ack, Ask, Desired, FromNode, FromServer, LeaseGrant, LeaseWait, Welcome

LIMITS = Limits()
TICK_S = 1.0
"""A deadline that a tick did not settle is looked at again after this, as the agent's own tick would."""
BOOT_CLOCK_S = 5.0
"""What the boot clock shows when the agent starts."""
FIRST_CHECK_S = 0.5


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What a node is; `number` counts from 1."""

    number: int
    name: str
    zone: str
    labels: dict[str, str]
    os: str
    arch: str
    version: str
    digest: str
    seed: int
    durations: DurationsPart
    troubles: Troubles


class SimNode:
    """Fields to read: spec, machine, engine (its containers), state (of the phase machine), linked (it believes to be
    connected), next_at (when something happens by itself). `fuse`: after so many inputs the agent is killed between
    the write of its state and what follows from it."""

    __slots__ = (
        "_agent_at",
        "_boot_cause",
        "_check_at",
        "_dice",
        "_network_at",
        "_nonce",
        "_now",
        "_start",
        "_tick_at",
        "_ticked_s",
        "_up_at",
        "_up_since",
        "_voice",
        "_watch",
        "alive",
        "engine",
        "fuse",
        "health",
        "labour",
        "linked",
        "machine",
        "next_at",
        "spec",
        "state",
        "up",
    )

    def __init__(self, spec: NodeSpec, replicas: list[Replica], watch: Watch, start: float) -> None:
        """It has been up for long at `start` (seconds); its agent starts within a second."""
        self.spec = spec
        self.machine = Machine(spec.digest, spec.version)
        self.machine.stubborn = spec.troubles.claim is not None
        self.engine = Replicas(replicas)
        self.labour = Labour()
        self.state = State()
        self.health = GOOD
        self.linked = self.alive = False
        self.up = True
        self.fuse: int | None = None
        self._dice = Dice(spec.seed, "node", spec.number)
        self._voice = Voice(spec.troubles.claim)
        self._watch = watch
        self._start = self._now = start
        self._up_since = start
        self._boot_cause = MachineCause.POWER_ON
        self._nonce, self._ticked_s = 0, 0.0
        self._up_at = self._check_at = self._tick_at = math.inf
        self._agent_at = start + self._dice.chance()
        self._network_at = self._next_network_change()
        self.engine.start(lambda: start)
        self._turn_replicas()
        self._plan()

    # --- from outside ---------------------------------------------------------------------------------------

    @property
    def outbox(self) -> deque[FromNode]:
        """What it says on the present connection, in order; whoever sends it takes it out."""
        return self._voice.out

    @property
    def boot_id(self) -> str:
        return f"{self.spec.name}.{self.machine.boots}"

    @property
    def can_connect(self) -> bool:
        """Whether its agent runs and has a network."""
        return self.alive and self._network_up()

    def advance(self, now: float) -> None:
        """Everything that happens by itself up to `now`, each thing at its own time."""
        while self.next_at <= now:
            self._now = max(self._now, self.next_at)
            self._due()
            self._plan()
        self._now = max(self._now, now)

    def receive(self, message: FromServer, now: float) -> None:
        """What the gateway says on the present connection; a Welcome begins one. A dead agent hears nothing."""
        self.advance(now)
        if not self.alive:
            return
        match message:
            case Welcome(conflict=conflict):
                if not self.linked:
                    self._voice.begin()
                self.linked = True
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
        self._plan()

    def disconnect(self, now: float) -> None:
        """The connection has ended."""
        self.advance(now)
        self._lose_link()
        self._plan()

    def cut_power(self, now: float, for_s: float = 0.0) -> None:
        """At once, whatever it does; it comes back after `for_s` and a boot."""
        self.advance(now)
        self._watch.deed(self, Deed.POWER_LOST, "", self._now)
        self._end_agent()
        self._go_down(MachineCause.POWER_CUT, for_s, Cause.MACHINE)
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
        ready_s = self._within(self.spec.durations.containers_s)
        self.engine.add(replica, self._now + ready_s if self.up else math.inf)
        self._show()
        self._plan()

    def drop(self, replica: Replica, now: float) -> None:
        """Its orchestrator removes a replica."""
        self.advance(now)
        self._tell_replicas(self.engine.remove(replica), -1, Cause.MOVED)
        self._show()
        self._plan()

    # --- time -----------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        self.next_at = min(
            self._up_at,
            self._agent_at,
            self._network_at,
            self.labour.done_at,
            self._check_at,
            self._tick_at,
            self.engine.next_at,
        )

    def _due(self) -> None:
        """What is due at this moment, the machine before its engine, the engine before the agent."""
        now = self._now
        if now >= self._network_at:
            self._network_turns()
        if now >= self._up_at:
            self._try_boot()
        if now >= self.engine.next_at:
            self._turn_replicas()
            self._show()
        if now >= self._agent_at:
            self._start_agent()
        if now >= self.labour.done_at:
            self._finish_work()
        if now >= self._check_at:
            self._check()
        if now >= self._tick_at:
            self._ticked_s = self.boot_s
            self._give(Ticked())

    @property
    def _uptime_s(self) -> float:
        return self._now - self._up_since

    @property
    def boot_s(self) -> float:
        """The node's boot clock."""
        return self._uptime_s + BOOT_CLOCK_S

    def _within(self, span: Span) -> float:
        return self._dice.between(span[0], span[1]) if isinstance(span, tuple) else span

    # --- the machine ----------------------------------------------------------------------------------------

    def _go_down(self, boot_cause: MachineCause, down_s: float, cause: Cause) -> None:
        self._tell_replicas(self.engine.stop(), -1, cause)
        self.up = False
        self._boot_cause = boot_cause
        self._up_at = self._now + down_s + self._within(self.spec.durations.boot_s)

    def _try_boot(self) -> None:
        slot = self.machine.next_boot
        if not self.machine.power_on(self._boot_cause, self._comes_up):
            self._watch.deed(self, Deed.PANICKED, slot, self._now)
            self._boot_cause = MachineCause.PANIC
            self._up_at = self._now + self._within(self.spec.durations.boot_s)
            return
        self.up, self._up_at, self._up_since = True, math.inf, self._now
        self._agent_at = self._now
        self.engine.start(lambda: self._now + self._within(self.spec.durations.containers_s))
        self._watch.deed(self, Deed.BOOTED, self.machine.booted, self._now)

    def _comes_up(self, entry: Entry) -> bool:
        return entry.version not in self.spec.troubles.no_boot

    def _turn_replicas(self) -> None:
        fault = self.spec.troubles.failing(self.machine.running.version, self._uptime_s)
        came, went = self.engine.turn(self._now, broken=fault is not None and fault.breaks_services)
        self._tell_replicas(came, 1, Cause.STARTED)
        self._tell_replicas(went, -1, Cause.UNHEALTHY)

    def _tell_replicas(self, services: list[int], change: int, cause: Cause) -> None:
        if services:
            self._watch.replicas(self, services, change, cause, self._now)

    # --- the network ----------------------------------------------------------------------------------------

    def _network_up(self) -> bool:
        return self.spec.troubles.network_up(self._now - self._start)

    def _next_network_change(self) -> float:
        return self._start + self.spec.troubles.next_network_change(self._now - self._start)

    def _network_turns(self) -> None:
        self._network_at = self._next_network_change()
        if not self._network_up():
            self._lose_link()

    def _lose_link(self) -> None:
        if self.linked:
            self.linked = False
            self._voice.end()
            self._give(LinkLost())

    # --- the agent ------------------------------------------------------------------------------------------

    def _start_agent(self) -> None:
        self._agent_at = math.inf
        self.alive, self._ticked_s = True, 0.0
        slots, expected = self.machine.slots(), self.state.expected
        verdict = Verdict.UNKNOWN
        if expected is not None:
            verdict = judge(TABLE, expected, Observed(boot_id=self.boot_id, slots=slots))
        self._check_at = self._now + FIRST_CHECK_S
        self._give(
            Started(
                boot_id=self.boot_id,
                slots=slots,
                boot_at=self._up_since,
                os=self.spec.os,
                arch=self.spec.arch,
                cause=self.machine.cause,
                verdict=verdict,
            )
        )

    def _kill(self) -> None:
        """A command that was given to a tool may have been carried out, and nobody heard of it."""
        if self.labour.work is not None and self._dice.chance() < 0.5:
            with suppress(Refused):
                carry_out(self.machine, self.labour.work, self._tell)
        self._end_agent()
        self._agent_at = self._now + self.spec.durations.restart_s

    def _end_agent(self) -> None:
        """What is on disk stays."""
        self.alive = self.linked = False
        self.state = durable(self.state)
        self.labour.stop()
        self._voice.end()
        self._agent_at = self._check_at = self._tick_at = math.inf

    def _give(self, given: Input, *, show: bool = False) -> None:
        """One input: step, keep, carry out, say what is new."""
        before = self.state
        self.state, commands = step(before, given, self._moment(), LIMITS)
        if self._fuse_blows():
            return
        for command in commands:
            match command:
                case Do(work=work):
                    self._begin(work)
                case Abandon():
                    self.labour.stop()
                case _:
                    self._voice.urgent(command.message)
        if self.state.step is Step.CONFIRMING and before.step is not Step.CONFIRMING:
            self._check_at = min(self._check_at, self._now + FIRST_CHECK_S)
        self._next_tick()
        if show or commands or msgspec.structs.replace(self.state, rounds=before.rounds) != before:
            self._show()

    def _moment(self) -> Moment:
        self._nonce += 1
        nonce = f"{self.spec.name}.{self._nonce}"
        return Moment(boot_s=self.boot_s, wall=self._now, nonce=nonce, chance=self._dice.chance())

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
        boot_s, at_s = self.boot_s, due_s(self.state, LIMITS)
        if at_s <= boot_s:
            at_s = max(boot_s, self._ticked_s + TICK_S)
        self._tick_at = self._now + (at_s - boot_s)

    # --- its work -------------------------------------------------------------------------------------------

    def _begin(self, work: Work) -> None:
        seconds = self._within(SHORT_S)
        if work.kind is WorkKind.STAGE and work.image is not None:
            with suppress(Refused):  # then it is refused at the end, too
                self.machine.begin_stage()
                self._tell(Deed.WRITES, self.machine.passive)
            rate = self._within(self.spec.durations.download_mib_s) / self.spec.troubles.download_factor
            seconds += work.image.size / (rate * MIB)
        self.labour.begin(work, self._now + seconds)

    def _finish_work(self) -> None:
        work = self.labour.stop()
        assert work is not None, "work was due"
        late = work.not_after_s is not None and self.boot_s >= work.not_after_s
        if late:
            self._give(WorkFailed(id=work.id, code=LEASE_ENDED, text="the lease has run out"))
        elif work.kind is WorkKind.REBOOT:
            self._reboot()
        elif work.kind is WorkKind.STAGE and self._download_dead():
            self._give(WorkFailed(id=work.id, code="network", text="the server does not answer", transient=True))
        else:
            self._give(self._answer(work))

    def _answer(self, work: Work) -> WorkDone | WorkFailed:
        try:
            carry_out(self.machine, work, self._tell)
        except Refused as problem:
            return WorkFailed(id=work.id, code="refused", text=str(problem))
        stands = self._network_up()
        return WorkDone(id=work.id, slots=self.machine.slots(), witnesses={"route": stands}, standing=stands)

    def _download_dead(self) -> bool:
        return not self._network_up() or self.spec.troubles.download_is_dead(self._now - self._start)

    def _reboot(self) -> None:
        cause = Cause.RETREAT if self.state.step is Step.ROLLING_BACK else Cause.OPERATION
        self._tell(Deed.GOES_DOWN, "")
        self.state, _ = step(self.state, Stopping(orderly=True), self._moment(), LIMITS)
        said = list(self.outbox)
        self._end_agent()
        self.outbox.extend(said)  # it was handed to the network before
        self._go_down(MachineCause.REBOOT, self._within(self.spec.durations.shutdown_s), cause)

    def _tell(self, deed: Deed, slot: str) -> None:
        self._watch.deed(self, deed, slot, self._now)

    # --- its senses -----------------------------------------------------------------------------------------

    def _check(self) -> None:
        """A round of checks; the next one is at the next moment at which one may matter."""
        version = self.machine.running.version
        fault = self.spec.troubles.failing(version, self._uptime_s)
        self.health = found(fault)
        self._turn_replicas()
        self._check_at = self._up_since + self.spec.troubles.next_health_change(version, self._uptime_s)
        self._give(Checked(health=self.health))
        if not self.alive:
            return
        durations = self.spec.durations
        if self.state.step is Step.CONFIRMING:
            self._check_at = min(self._check_at, self._now + durations.trial_checks_s)
        elif self.state.step is Step.SOAKING:
            self._check_at = min(self._check_at, self._now + durations.checks_s)

    def _show(self) -> None:
        if self.linked:
            self._voice.speak(pictured(self), self.state)
