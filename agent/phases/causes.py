"""Why a boot happened, in the history: every new boot id is an event with its cause (rule 1)."""

from __future__ import annotations

from agent.phases.inputs import Started
from agent.phases.model import State, Stop, booted
from agent.phases.turn import Turn, target
from agent.phases.words import MACHINE_SAYS, asked, version_in, worded
from wire.messages import Boot, BootCause


def unasked_boot(turn: Turn, given: Started, before: State) -> None:
    slot, was = booted(turn.state), before.booted
    switched = slot is not None and was is not None and (slot.name, slot.digest) != (was.slot, was.digest)
    cause, text = _explain(given.cause, before.stop, switched)
    note_boot(turn, given, cause, text, None)


def _explain(cause: BootCause, stop: Stop, switched: bool) -> tuple[BootCause, str]:
    """A crash may have changed slots by itself; after an orderly shutdown somebody had armed the other one."""
    if stop is Stop.ORDERLY and switched:
        return BootCause.OTHER_COORDINATOR, "an orderly reboot into a slot that something else than Twinroot had armed"
    if stop is Stop.ORDERLY:
        return BootCause.LOCAL_COMMAND, "an orderly shutdown that no operation asked for"
    if cause is not BootCause.UNKNOWN:
        return cause, MACHINE_SAYS.get(cause, f"the machine names the cause: {cause.value}")
    if stop is Stop.RUNNING:
        return BootCause.WATCHDOG_OR_POWER, "the agent was cut off: no orderly shutdown was seen"
    return BootCause.UNKNOWN, "the agent was not running when the machine went down"


def why(turn: Turn, cause: BootCause) -> str:
    if cause is BootCause.FALLBACK:
        expected = turn.state.expected
        slot = expected.slot if expected is not None else ""
        return f"back from {version_in(target(turn.state), slot)} ({whose(turn)})"
    return whose(turn)


def whose(turn: Turn) -> str:
    """What led to a boot, and who wanted that."""
    author = f", asked for by {turn.operation.author}" if turn.operation.author else ""
    return f"{asked(turn.state)}{author}"


def note_boot(turn: Turn, given: Started, cause: BootCause, text: str, operation_id: str | None) -> None:
    slot = booted(turn.state)
    text = f"Booted {worded(slot) if slot else 'no known slot'}: {text}"
    at = given.boot_at or turn.moment.wall
    turn.set(boot=Boot(id=turn.state.boot_id, at=at, cause=cause, operation_id=operation_id, text=text))
    kind = "boot-unknown" if cause is BootCause.UNKNOWN else "boot"
    turn.event(kind, text, operation_id=operation_id, cause=cause)
