"""A node as far as rollouts go: follows its desired state step by step, in one of several moods."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import msgspec

from app.services.intake import Report, Sections
from wire.messages import (
    Activity,
    AgentFacts,
    Boot,
    Desired,
    Evidence,
    EvidenceClass,
    Facts,
    Health,
    HealthState,
    Hold,
    LeaseGrant,
    LeaseRequest,
    LeaseReturn,
    Operation,
    OperationKind,
    OperationReport,
    Order,
    OsFacts,
    Phase,
    Result,
    Slot,
    Trial,
    WayBack,
)


class Mood(Enum):
    """What becomes of a node on the new version."""

    WELL = auto()
    FALLS_BACK = auto()
    SICK = auto()
    """Confirms, and turns unhealthy while it soaks."""
    SILENT = auto()
    """Is never heard of again after its reboot."""
    REFUSES = auto()
    UNREACHABLE = auto()
    """Goes back because it can reach nobody."""


@dataclass
class FakeNode:
    id: str
    name: str
    slots: list[Slot]
    mood: Mood = Mood.WELL
    boots: int = 1
    phase: Phase = Phase.IDLE
    operation: Operation | None = None
    asked: int = 0
    lease_id: str | None = None
    soak_until: float = 0.0
    seq: int = 0
    silent: bool = False
    healthy: bool = True
    ended: set[str] = field(default_factory=set)
    said: list[Any] = field(default_factory=list)
    """What is to be reported with the newest state."""
    now: float = 0.0
    way_back: WayBack | None = None
    own_hold: Hold | None = None
    """Why it does not begin an update, as it says itself."""

    @property
    def boot_id(self) -> str:
        return f"boot-{self.name}-{self.boots}"

    @property
    def booted(self) -> Slot:
        return next(slot for slot in self.slots if slot.booted)

    @property
    def passive(self) -> Slot:
        return next(slot for slot in self.slots if not slot.booted)

    @property
    def version(self) -> str:
        return self.booted.version or ""

    def act(self, desired: Desired, answer: Any, now: float) -> None:
        """One step: what is desired, and what the newest lease request was answered with."""
        self.now = now
        self._follow(desired)
        if self.operation is not None:
            self._step(self.operation, answer)

    def report(self) -> Report:
        """Everything that it has to say now."""
        on_trial = self.phase is Phase.CONFIRMING
        activity = Activity(
            phase=self.phase,
            operation_id=self.operation.id if self.operation is not None else None,
            trial=Trial(confirmed=not on_trial, left_s=10.0) if on_trial or self.phase is Phase.SOAKING else None,
            way_back=self.way_back,
            holds=[self.own_hold] if self.own_hold is not None and self.phase is Phase.IDLE else [],
        )
        facts = Facts(
            agent=AgentFacts(version="0.1.0"),
            os=OsFacts(id="demo", arch="amd64"),
            boot=Boot(id=self.boot_id, at=self.now),
            evidence=EvidenceClass.AGENT_WITH_PLACEMENT,
        )
        health = Health(state=HealthState.HEALTHY if self.healthy else HealthState.UNHEALTHY)
        sections = Sections(facts=facts, slots=list(self.slots), health=health, activity=activity)
        said, self.said = self.said, []
        return Report(self.id, f"connection-{self.name}", self.now, sections, said)

    def _follow(self, desired: Desired) -> None:
        wanted, current = desired.operation, self.operation
        if current is not None and (wanted is None or wanted.id != current.id):
            unarmed = self.phase in (Phase.IDLE, Phase.STAGING, Phase.STAGED)
            at_once = wanted is not None and wanted.kind is OperationKind.ROLLBACK and self.phase is Phase.SOAKING
            if not unarmed and not at_once:
                return
            if self.lease_id is not None and unarmed:
                self.said.append(LeaseReturn(lease_id=self.lease_id, operation_id=current.id, reason="cancelled"))
            self._end(Result.CANCELLED)
        if self.operation is None and wanted is not None and wanted.id not in self.ended:
            self.operation, self.phase, self.lease_id = wanted, Phase.IDLE, None

    def _step(self, operation: Operation, answer: Any) -> None:
        image = operation.image
        match self.phase:
            case Phase.IDLE if operation.kind is OperationKind.DISARM:
                self.write(self.passive.name, good=False)
                self._end(Result.SUCCEEDED)
            case Phase.IDLE if self.mood is Mood.REFUSES:
                self._end(Result.REFUSED, "untrusted-image")
            case Phase.IDLE if operation.kind is OperationKind.ACTIVATE and self.own_hold is not None:
                pass
            case Phase.IDLE if operation.kind is OperationKind.ACTIVATE:
                self.phase = Phase.STAGING
            case Phase.IDLE:
                self._ask(operation)
            case Phase.STAGING:
                assert image is not None
                self.write(self.passive.name, version=image.version, digest=image.digest, good=None)
                self.way_back = None
                self._ask(operation)
            case Phase.STAGED:
                if isinstance(answer, LeaseGrant):
                    self.lease_id, self.phase = answer.lease_id, Phase.REBOOTING
                else:
                    self._ask(operation)
            case Phase.REBOOTING:
                self._reboot(operation)
            case Phase.CONFIRMING:
                self._judge(operation)
            case Phase.SOAKING:
                self._soak(operation)

    def _ask(self, operation: Operation) -> None:
        self.phase = Phase.STAGED
        self.asked += 1
        self.said.append(LeaseRequest(operation_id=operation.id, nonce=f"nonce-{self.name}-{self.asked}"))

    def _reboot(self, operation: Operation) -> None:
        self.boots += 1
        self.phase = Phase.CONFIRMING
        if operation.kind is not OperationKind.REBOOT:
            self._switch()
        self.silent = self.mood is Mood.SILENT and operation.kind is OperationKind.ACTIVATE

    def _judge(self, operation: Operation) -> None:
        bad = operation.kind is OperationKind.ACTIVATE and self.mood in (Mood.FALLS_BACK, Mood.UNREACHABLE)
        if bad:
            self._switch()
            self.boots += 1
            result = Result.FELL_BACK if self.mood is Mood.FALLS_BACK else Result.UNREACHABLE
            self._end(result, "it did not come up")
            return
        self.write(self.booted.name, good=True)
        old = self.passive
        self.way_back = WayBack(slot=old.name, version=old.version, digest=old.digest)
        self.phase, self.soak_until = Phase.SOAKING, self.now + operation.soak_s + 1
        self.healthy = self.mood is not Mood.SICK or operation.kind is not OperationKind.ACTIVATE

    def _soak(self, operation: Operation) -> None:
        if self.now >= self.soak_until:
            well = Result.SUCCEEDED if self.healthy else Result.UNHEALTHY
            self._end(well, "" if self.healthy else "its check failed during the soak")

    def give_way(self) -> None:
        """Its operation ends for another order, and it stays on what it runs."""
        self._end(Result.CANCELLED)

    def _end(self, result: Result, reason: str = "") -> None:
        operation = self.operation
        assert operation is not None
        self.seq += 1
        self.said.append(
            OperationReport(
                seq=self.seq,
                operation_id=operation.id,
                order=Order(epoch=1, generation=1),
                result=result,
                at=self.now,
                reason=reason,
                evidence=Evidence(boot_id=self.boot_id),
            )
        )
        self.ended.add(operation.id)
        self.operation, self.phase, self.lease_id = None, Phase.IDLE, None

    def _switch(self) -> None:
        self.slots = [
            msgspec.structs.replace(slot, booted=not slot.booted, next_boot=not slot.booted) for slot in self.slots
        ]

    def write(self, name: str, **values: Any) -> None:
        """Change what a slot holds."""
        self.slots = [msgspec.structs.replace(slot, **values) if slot.name == name else slot for slot in self.slots]
