"""How an operation ended, by what the server saw itself (rule 1): a report of success is not success.

One literal table: what must have been seen for a node's claim to count. A claim that does not fit what was seen
ends the operation as `unknown`, with both in its reason, unless time is all that is missing: then there is no verdict
yet. Claims of having done nothing are taken as they are: they
make nothing newer or better, and whatever slot the node runs is observed on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.core.nodes import Operation
from app.core.policy import Policy
from app.core.slots import switches
from wire.messages import HealthState, OperationKind, OperationReport, Result, Slot


@dataclass(frozen=True, slots=True)
class Seen:
    """What the node's state says, as the server stored it."""

    boot_id: str
    slots: tuple[Slot, ...]
    health_state: str
    since_s: float
    """Seconds since its lease, or since the operation began where it had none, as far as the server knows."""

    @property
    def booted(self) -> Slot | None:
        return next((slot for slot in self.slots if slot.booted), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`result` None: nothing speaks against the claim but that its soak cannot be over yet, as `text` says."""

    result: Result | None
    text: str


_CLOCK_RATE, _CLOCK_S = 0.98, 1.0
"""The node soaks by its own clock, which may be so much faster than ours."""

Requirement = Callable[[Operation, Seen], str | None]
"""What was seen instead, in words that follow "but"; None: it is as claimed."""


def judge(operation: Operation, report: OperationReport, seen: Seen) -> Verdict:
    """The claim, if everything that it needs was seen; otherwise unknown; nothing yet if a success is too early."""
    if report.result is Result.SUCCEEDED and _was_there_already(operation, seen):
        return Verdict(Result.SUCCEEDED, report.reason or f"{operation.target_version} was running already")
    for requirement in NEEDED.get((operation.kind, report.result), ()):
        contrary = requirement(operation, seen)
        if contrary is not None:
            said = f" ({report.reason})" if report.reason else ""
            return Verdict(Result.UNKNOWN, f"the node claimed “{report.result.value}”{said}, but {contrary}")
    wanting = too_early(operation, seen.since_s) if report.result is Result.SUCCEEDED else None
    if wanting is not None:
        return Verdict(None, wanting)
    return Verdict(report.result, report.reason)


def too_early(operation: Operation, since_s: float) -> str | None:
    """Why a switch cannot have succeeded yet (see `Seen.since_s`), in words that follow "but"; None: it may have.

    A node cannot have been healthy on the new slot for longer than since it was allowed to go there.
    """
    soak_s = Policy(**operation.policy).soak_s
    if not switches(operation.kind) or since_s >= soak_s * _CLOCK_RATE - _CLOCK_S:
        return None
    return f"only {max(since_s, 0.0):.0f} of {soak_s:.0f} seconds of soak can have passed"


def _was_there_already(operation: Operation, seen: Seen) -> bool:
    """Nothing had to be done: it ran the target when the operation was made, and runs it now."""
    target = operation.target_digest
    if operation.kind not in (OperationKind.ACTIVATE, OperationKind.ROLLBACK, OperationKind.STAGE) or not target:
        return False
    return operation.old_digest == target and _digest(seen) == target


def _new_boot(operation: Operation, seen: Seen) -> str | None:
    if seen.boot_id and seen.boot_id != operation.old_boot_id:
        return None
    return "it was seen in the same boot as before"


def _target_booted(operation: Operation, seen: Seen) -> str | None:
    booted = seen.booted
    if booted is None:
        return "it shows no booted slot"
    if operation.target_digest:
        there = booted.digest == operation.target_digest
    else:  # a slot that was filled at the factory: it is the other one, and its version is not another one
        other_version = operation.target_version and booted.version and booted.version != operation.target_version
        there = booted.name != operation.old_slot and booted.digest is None and not other_version
    if there:
        return None
    return f"slot {booted.name} with {_named(booted)} was seen booted"


def _old_booted(operation: Operation, seen: Seen) -> str | None:
    booted = seen.booted
    if booted is None:
        return "it shows no booted slot"
    if operation.old_digest and booted.digest:
        same = booted.digest == operation.old_digest
    else:
        same = booted.name == operation.old_slot
    return None if same else f"slot {booted.name} with {_named(booted)} was seen booted"


def _staged(operation: Operation, seen: Seen) -> str | None:
    passive = next((slot for slot in seen.slots if not slot.booted), None)
    if passive is None or passive.digest != operation.target_digest:
        return f"the passive slot was seen with {_named(passive) if passive else 'nothing'}"
    return None


def _disarmed(operation: Operation, seen: Seen) -> str | None:
    armed = next((slot for slot in seen.slots if slot.next_boot and not slot.booted), None)
    return None if armed is None else f"slot {armed.name} was seen as next boot"


def _healthy(operation: Operation, seen: Seen) -> str | None:
    return "it was seen unhealthy" if seen.health_state == HealthState.UNHEALTHY else None


def _good(operation: Operation, seen: Seen) -> str | None:
    booted = seen.booted
    return None if booted is not None and booted.good else "the booted slot was not seen confirmed"


_SWITCHED: tuple[Requirement, ...] = (_new_boot, _target_booted)
_BACK: tuple[Requirement, ...] = (_new_boot, _old_booted)
_SWITCH: dict[Result, tuple[Requirement, ...]] = {
    Result.SUCCEEDED: (*_SWITCHED, _healthy),
    Result.UNHEALTHY: _SWITCHED,
    Result.FELL_BACK: _BACK,
    Result.UNREACHABLE: _BACK,
    Result.NEVER_SWITCHED: (_old_booted,),
}

NEEDED: dict[tuple[OperationKind, Result], tuple[Requirement, ...]] = {
    **{
        (kind, result): needed
        for kind in (OperationKind.ACTIVATE, OperationKind.ROLLBACK)
        for result, needed in _SWITCH.items()
    },
    (OperationKind.STAGE, Result.SUCCEEDED): (_staged, _disarmed),
    (OperationKind.REBOOT, Result.SUCCEEDED): (_new_boot, _old_booted, _healthy),
    (OperationKind.REBOOT, Result.UNHEALTHY): (_new_boot,),
    (OperationKind.DISARM, Result.SUCCEEDED): (_disarmed,),
    (OperationKind.RESCUE, Result.SUCCEEDED): (_good,),
}
"""(kind, claimed result) → what must have been seen; whatever is not here needs nothing."""


def _digest(seen: Seen) -> str:
    return (seen.booted.digest or "") if seen.booted else ""


def _named(slot: Slot) -> str:
    return slot.version or slot.digest or "nothing known"
