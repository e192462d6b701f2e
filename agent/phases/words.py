"""How texts for people name things: events of the history say who and what, and no ids where there is a name."""

from __future__ import annotations

from agent.phases.model import Booted, State
from agent.phases.turn import target
from wire.messages import BootCause, OperationKind, Slot

_ASKED = {
    OperationKind.STAGE: "staging",
    OperationKind.ACTIVATE: "update",
    OperationKind.ROLLBACK: "roll back",
    OperationKind.REBOOT: "reboot",
    OperationKind.DISARM: "disarming",
    OperationKind.RESCUE: "rescue",
}
_WITHOUT_VERSION = frozenset({OperationKind.REBOOT, OperationKind.DISARM, OperationKind.RESCUE})

MACHINE_SAYS = {
    BootCause.PANIC: "its kernel had panicked",
    BootCause.WATCHDOG_OR_POWER: "reset by its watchdog, or its power was cut",
}
"""What the machine itself knows of its last end."""


def worded(slot: Slot | Booted) -> str:
    """“slot A (1.0.0)”."""
    name = slot.name if isinstance(slot, Slot) else slot.slot
    return f"slot {name} ({slot.version or 'version unknown'})"


def version_in(version: str, slot: str) -> str:
    """“1.2.0 in slot B”."""
    return f"{version or 'the version'} in slot {slot}"


def asked(state: State) -> str:
    """The current operation: “update to 1.1.0”, “reboot”."""
    assert state.operation is not None, "only where there is one"
    version, kind = target(state), state.operation.kind
    return _ASKED[kind] if kind in _WITHOUT_VERSION or not version else f"{_ASKED[kind]} to {version}"
