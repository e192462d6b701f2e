"""A whole invented machine around the phase machine: slots, boot loader, disk, gateway, and all invariants.

Every command is checked before it is carried out; a violated rule is an AssertionError.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from agent.drivers.files import EVIDENCE
from agent.evidence import EvidenceTable, Observed, Verdict, judge
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
    Send,
    Started,
    Stopping,
    Ticked,
    Welcomed,
    WorkDone,
    WorkFailed,
)
from agent.phases.leases import LEASE_ENDED
from agent.phases.model import Serving, State, Step, Work, WorkKind, durable
from agent.phases.table import step
from tests.agent import rules
from tests.agent.wanted import digest, health
from wire.messages import (
    Ack,
    BootCause,
    Desired,
    HealthState,
    LeaseGrant,
    LeaseRequest,
    LeaseReturn,
    NodeEvent,
    Operation,
    OperationReport,
    Order,
    Slot,
)

TRIES = 3
TABLE = EvidenceTable(EVIDENCE, tries=TRIES)
LEASE_S = 120.0


@dataclass
class Disk:
    """One slot as the boot loader sees it."""

    digest: str | None = None
    version: str | None = None
    good: bool | None = False
    tries: int | None = None
    writing: bool = False


@dataclass
class World:
    """Fields that tests set: standing (witnesses), failures (work kind -> answers to give), broken, and so on."""

    limits: Limits = field(default_factory=lambda: Limits(unasked_confirm_s=30.0))
    boot_s: float = 10.0
    asleep_s: float = 0.0
    wall: float = 1_700_000_000.0
    boots: int = 1
    slots: dict[str, Disk] = field(default_factory=lambda: {"a": Disk(digest("1"), "1", True, None), "b": Disk()})
    booted: str = "a"
    next_boot: str = "a"
    broken: set[str] = field(default_factory=set)
    """Versions that do not come up."""
    stubborn: bool = False
    """The firmware boots the same slot for ever."""
    standing: bool = True
    failures: dict[WorkKind, list[WorkFailed]] = field(default_factory=dict)
    state: State = field(default_factory=State)
    disk_state: State = field(default_factory=State)
    todo: deque[Command] = field(default_factory=deque)
    sent: list[LeaseRequest | LeaseReturn] = field(default_factory=list)
    done: list[WorkKind] = field(default_factory=list)
    items: dict[int, NodeEvent | OperationReport] = field(default_factory=dict)
    grants: dict[str, float] = field(default_factory=dict)
    """Lease id -> boot clock until which the world considers it live (this boot only)."""
    nonce: int = 0
    rebooting: bool = False
    cause: BootCause = BootCause.UNKNOWN
    linked: bool = False
    serving: Serving = field(default_factory=lambda: Serving(known=True))
    """What runs here, as the engine would say it."""
    asked_with: dict[str, Serving] = field(default_factory=dict)
    """Nonce of a request -> what the server had been told before it."""
    granted_for: Serving | None = None
    """What the server knew when it granted the newest lease."""
    drained_by: str = ""
    """The executable whose draining was begun and not undone."""
    answer_lost: bool = False
    """The next work is done and the agent is killed before it hears of it."""

    # --- inputs -----------------------------------------------------------------------------------------

    def moment(self) -> Moment:
        self.nonce += 1
        nonce = f"n{self.nonce}"
        return Moment(boot_s=self.boot_s, wall=self.wall, asleep_s=self.asleep_s, nonce=nonce, chance=0.5)

    def give(self, given: Input) -> None:
        """One input: step, persist, then remember the commands."""
        before = self.state
        after, commands = step(before, given, self.moment(), self.limits)
        rules.check_state(before, after)
        self.state = after
        self.disk_state = msgspec.json.decode(msgspec.json.encode(durable(after)), type=State)
        for item in after.outbox:
            known = self.items.setdefault(item.seq, item)
            assert known == item, "an item of the outbox changed"
        for command in commands:
            rules.check_command(self, command)
        self.todo.extend(commands)

    def start(self) -> None:
        """The agent starts from what is on disk."""
        self.todo.clear()
        self.linked = False
        self.state = self.disk_state
        verdict = Verdict.UNKNOWN
        if self.state.expected is not None:
            verdict = judge(TABLE, self.state.expected, Observed(boot_id=self.boot_id, slots=self.shown()))
        self.give(
            Started(
                boot_id=self.boot_id,
                slots=self.shown(),
                os="demo",
                arch="amd64",
                cause=self.cause,
                verdict=verdict,
            )
        )
        self.place()

    def desire(self, generation: int, wanted: Operation | None, *, epoch: int = 1, **more: object) -> None:
        self.give(
            Instructed(desired=Desired(order=Order(epoch, generation), operation=wanted, **more)),
        )

    def welcome(self) -> None:
        self.linked = True
        self.give(Welcomed())

    def lose_link(self) -> None:
        self.linked = False
        self.give(LinkLost())

    def check(self, state: HealthState = HealthState.HEALTHY) -> None:
        self.give(Checked(health=health(state)))

    def wait(self, seconds: float) -> None:
        self.boot_s += seconds
        self.wall += seconds
        self.give(Ticked())

    def place(self, serving: Serving | None = None, **replicas: int) -> None:
        """The agent reads what runs here: `serving`, or so many replicas of each service; without any, as it was."""
        if serving is not None or replicas:
            self.serving = serving or Serving(known=True, replicas=replicas)
        if self.serving != self.state.serving:
            self.give(Placed(serving=self.serving))

    def sleep(self, seconds: float) -> None:
        """The machine is suspended and wakes up."""
        self.asleep_s += seconds
        self.wait(seconds)

    def acknowledge(self) -> None:
        if self.state.outbox:
            self.give(Ack(seq=self.state.outbox[-1].seq))

    def grant(self, duration_s: float = LEASE_S, *, late: bool = False) -> None:
        """Answer the request that is out; `late`: the oldest that had no answer."""
        asking = self.state.asking
        assert asking is not None, f"no request is out in {self.state.step}: {self.state.hold}"
        assert self.state.operation is not None
        sent = {**asking.earlier, asking.nonce: asking.sent_s}
        nonce = next(iter(sent)) if late else asking.nonce
        lease_id = f"lease-{nonce}"
        self.grants[lease_id] = sent[nonce] + duration_s
        self.granted_for = self.asked_with.get(nonce)
        self.give(
            LeaseGrant(
                lease_id=lease_id,
                operation_id=self.state.operation.id,
                nonce=nonce,
                duration_s=duration_s,
            )
        )

    # --- commands ---------------------------------------------------------------------------------------

    def run(self, most: int = 100) -> None:
        """Carry out commands until there are none, reboots included."""
        for _ in range(most):
            if not self.todo:
                return
            self.one()
        raise AssertionError(f"no end of commands: {self.todo}")

    def one(self) -> None:
        """Carry out one command."""
        match self.todo.popleft():
            case Do(work=work):
                # The runner begins work at once and stops what is abandoned: here it never begins.
                if Abandon(work_id=work.id) not in self.todo:
                    self._do(work)
            case Abandon():
                pass
            case Send(message=message):
                assert self.linked, "said without a connection"
                if isinstance(message, LeaseReturn):
                    self.grants.pop(message.lease_id, None)
                self.sent.append(message)

    def _do(self, work: Work) -> None:
        if work.not_after_s is not None and self.boot_s >= work.not_after_s:
            return self.give(WorkFailed(id=work.id, code=LEASE_ENDED, text="the lease has run out"))
        if work.kind is WorkKind.DRAIN:
            rules.check_drain(self, work)
            self.drained_by = work.script  # also one that fails, or is stopped, may have moved something away
        if self.failures.get(work.kind):
            self.give(msgspec.structs.replace(self.failures[work.kind].pop(0), id=work.id))
            return None
        self.done.append(work.kind)
        match work.kind:
            case WorkKind.STAGE:
                self._stage(work)
            case WorkKind.ARM:
                self._arm(work.slot)
            case WorkKind.DISARM:
                self.next_boot = self.booted
                self._park(self.other)
            case WorkKind.MARK_GOOD:
                self.slots[self.booted].good, self.slots[self.booted].tries = True, None
            case WorkKind.MARK_BAD:
                self.slots[work.slot].good, self.slots[work.slot].tries = False, 0
                if self.next_boot == work.slot and work.slot != self.booted:
                    self.next_boot = self.booted
            case WorkKind.REBOOT:
                rules.check_reboot(self)
                self.rebooting = True
                return self.reboot()
            case WorkKind.PROBE:
                self.place()
            case WorkKind.DRAIN:
                pass
            case WorkKind.UNDRAIN:
                assert self.drained_by in ("", work.script), "undrained by another executable"
                self.drained_by = ""
        if self.answer_lost:
            self.answer_lost = False
            return self.crash()
        witnesses = {"route": self.standing}
        self.give(WorkDone(id=work.id, slots=self.shown(), witnesses=witnesses, standing=self.standing))
        return None

    def _park(self, name: str) -> None:
        if self.slots[name].good is None:
            self.slots[name].tries = 0

    def _stage(self, work: Work) -> None:
        facts = self.state.booted
        assert facts is not None and facts.confirmed, "staged while the booted slot is not confirmed"
        assert not self.state.distrust, "staged an image that is not trusted"
        kept = self.state.way_back
        if kept is not None and kept.slot == self.other:
            assert kept.left is not None and kept.left.at(self.boot_s) <= 0, "wrote the way back"
        assert work.image is not None
        self.slots[self.other] = Disk(work.image.digest, work.image.version, None, 0)
        self.next_boot = self.booted

    def _arm(self, name: str) -> None:
        if self.state.step is not Step.ROLLING_BACK:
            assert any(until > self.boot_s for until in self.grants.values()), "armed without a live lease"
            assert self.disk_state.expected is not None, "armed before the expectation was on disk"
        if name != self.booted:
            filled = self.slots[name].digest is not None or self.slots[name].good is True
            assert filled, "armed an empty slot"
            self.slots[name].good, self.slots[name].tries = None, TRIES
        self.next_boot = name

    # --- the machine ------------------------------------------------------------------------------------

    @property
    def other(self) -> str:
        return "b" if self.booted == "a" else "a"

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boots}"

    def shown(self) -> list[Slot]:
        return [
            Slot(
                name=name,
                booted=name == self.booted,
                next_boot=name == self.next_boot,
                version=disk.version,
                digest=disk.digest,
                good=disk.good,
                tries_left=disk.tries,
            )
            for name, disk in self.slots.items()
        ]

    def reboot(self, cause: BootCause = BootCause.UNKNOWN) -> None:
        """The machine goes down and comes up, as its boot loader decides; the agent starts."""
        self.boots += 1
        self.boot_s, self.asleep_s = 5.0, 0.0
        self.wall += 30.0
        self.grants.clear()
        self.asked_with.clear()
        self.rebooting = False
        self.cause = cause
        if not self.stubborn:
            self.booted = self._choose()
        self.start()

    def _choose(self) -> str:
        chosen = self.next_boot
        disk = self.slots[chosen]
        if disk.good is None and disk.tries is not None:
            if disk.version in self.broken or disk.tries == 0:
                disk.good, disk.tries = False, 0
                chosen = "b" if chosen == "a" else "a"
            else:
                disk.tries -= 1
        elif disk.good is False or disk.version in self.broken:
            chosen = "b" if chosen == "a" else "a"
        self.next_boot = chosen
        return chosen

    def crash(self) -> None:
        """kill -9 of the agent: the same boot, what is not on disk is lost."""
        self.start()

    def power_cut(self) -> None:
        self.reboot(BootCause.WATCHDOG_OR_POWER)

    def shut_down(self) -> None:
        """Somebody reboots the machine in order."""
        self.give(Stopping(orderly=True))
        self.reboot()

    # --- what was said ----------------------------------------------------------------------------------

    @property
    def reports(self) -> list[OperationReport]:
        return [item for item in self.items.values() if isinstance(item, OperationReport)]

    @property
    def events(self) -> list[NodeEvent]:
        return [item for item in self.items.values() if isinstance(item, NodeEvent)]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def result(self, operation_id: str) -> OperationReport:
        """The one report of an operation; repetitions must say the same."""
        found = [report for report in self.reports if report.operation_id == operation_id]
        assert found, f"{operation_id} has not ended: {self.state.step} {self.state.hold}"
        assert len({report.result for report in found}) == 1, "an operation ended twice"
        return found[0]

    def check_quiet(self) -> None:
        rules.check_quiet(self)


def joined() -> World:
    """A node that has started for the first time and was welcomed."""
    world = World()
    world.start()
    world.welcome()
    world.check()
    world.run()
    return world
