"""What an operator may do with a node now, and the sentence that says why not. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from app.core.errors import NotPossible
from app.core.image_match import Platform, mismatch
from app.core.nodes import Admission, Connection, Node, Operation, Target
from app.core.slots import ARMED, SWITCHING, way_back_of
from wire.messages import OperationKind, Phase


class Action(StrEnum):
    UPDATE = "update"
    REBOOT = "reboot"
    ROLL_BACK = "rollback"
    CANCEL = "cancel"
    RESCUE = "rescue"
    PIN = "pin"
    UNPIN = "unpin"
    FOLLOW = "follow"
    APPROVE = "approve"
    RETIRE = "retire"
    RELABEL = "relabel"
    RENAME = "rename"
    SETTLE_CONFLICT = "settle-conflict"
    CLEAR_FAILED_VERSION = "clear-failed-version"
    DECLARE = "declare"
    LOST = "lost"


Gate = Callable[[Node], NotPossible | None]


def refusal(action: Action, node: Node) -> NotPossible | None:
    """Why `action` is not possible on the node as it is now; None when it is. The first gate that is shut speaks."""
    return next((found for gate in GATES[action] if (found := gate(node)) is not None), None)


def refusal_to_update(
    node: Node, image: Target, *, override_failed: bool, pinned_image_id: str | None
) -> NotPossible | None:
    """Why the node cannot be updated to this image now. `pinned_image_id`: what its pin leads to, if it has one."""
    return (
        refusal(Action.UPDATE, node)
        or refusal_of_image(node, image)
        or _pinned_elsewhere(node, image, pinned_image_id)
        or _failed_here(node, image.version, image.digest, override_failed)
        or _runs_or_underway(node, image)
    )


def refusal_of_image(node: Node, image: Target) -> NotPossible | None:
    """Why this image can never be right for the node: another OS or architecture, or withdrawn."""
    sentence = mismatch(image.version, Platform(image.os, image.arch), node.name, Platform(node.os_id, node.arch))
    if sentence is not None:
        return NotPossible("wrong-image", sentence)
    if image.withdrawn:
        return NotPossible("withdrawn", f"{image.version} was withdrawn; choose another version.")
    return None


def refusal_to_roll_back(node: Node) -> NotPossible | None:
    """Gates and pins never stop rolling back (rule 7); physics and memory do."""
    found = refusal(Action.ROLL_BACK, node)
    choice = way_back_of(node)
    if found is not None or choice is None:
        return found
    late = any(one.digest == choice.digest and one.only_late for one in node.failed)
    return _failed_here(node, choice.version, choice.digest or "", override=late and choice.confirmed)


def ends_at_once(node: Node, operation: Operation) -> bool:
    """Whether cancelling (or superseding) needs no word from the node, for it has ended there and its report is kept,
    or the node cannot have heard of the operation.

    That only when it was not connected at any moment since the operation was made. Even if that should be wrong (a
    connection that is not in the database yet), nothing is lost: a newer order takes the operation from it, and
    without a lease, which an ended operation never gets, the node arms nothing.
    """
    if operation.claim is not None:
        return True
    if operation.phase is not Phase.IDLE or operation.holds_lease or node.connection is Connection.ONLINE:
        return False
    return all(at is None or at < operation.created_at for at in (node.connected_at, node.last_seen_at))


# --- gates --------------------------------------------------------------------------------------------------


def _not_retired(node: Node) -> NotPossible | None:
    if node.admission is Admission.RETIRED:
        return NotPossible("retired", f"{node.name} is retired; join it again to use it.")
    return None


def _admitted(node: Node) -> NotPossible | None:
    if node.admission is Admission.PENDING:
        return NotPossible("not-admitted", f"{node.name} waits for approval; approve it first.")
    return None


def _pending(node: Node) -> NotPossible | None:
    if node.admission is Admission.ADMITTED:
        return NotPossible("admitted-already", f"{node.name} is admitted already.")
    return None


def _no_conflict(node: Node) -> NotPossible | None:
    if node.conflict is not None:
        return NotPossible(
            "identity-conflict",
            f"Two machines claim to be {node.name}, so neither is commanded; settle the conflict first.",
        )
    return None


def _in_conflict(node: Node) -> NotPossible | None:
    if node.conflict is None:
        return NotPossible("no-conflict", f"{node.name} has no identity conflict.")
    return None


def _commandable(node: Node) -> NotPossible | None:
    if not node.commandable:
        return NotPossible(
            "protocol-only",
            f"{node.name} only speaks its own update protocol: Twinroot sees it and cannot command it.",
        )
    return None


def _not_armed(node: Node) -> NotPossible | None:
    operation = node.operation
    if operation is None:
        return None
    if operation.phase in ARMED:
        return NotPossible("busy", f"{_doing(node, operation)}; wait until that has ended.")
    if operation.holds_lease and operation.phase is not Phase.SOAKING:
        return NotPossible("busy", f"{node.name} has the lease and may reboot at any moment; cancel that first.")
    return None


def _not_armed_or_on_trial(node: Node) -> NotPossible | None:
    """On trial is when a person may know better than the checks: the node takes a rescue at once."""
    operation = node.operation
    return None if operation is not None and operation.phase is Phase.CONFIRMING else _not_armed(node)


def _not_switching(node: Node) -> NotPossible | None:
    operation = node.operation
    if operation is not None and operation.phase in SWITCHING:
        return NotPossible("busy", f"{_doing(node, operation)}; roll back when it is up again.")
    return None


def _has_way_back(node: Node) -> NotPossible | None:
    if way_back_of(node) is None:
        return NotPossible(
            "no-way-back",
            f"{node.name} has no way back: its passive slot holds nothing that ran here, and no image of an "
            "earlier version is known.",
        )
    return None


def _not_rolling_back(node: Node) -> NotPossible | None:
    operation = node.operation
    if operation is not None and operation.kind is OperationKind.ROLLBACK and operation.cancel_asked_at is None:
        return NotPossible("already-underway", f"{node.name} is going back to {operation.target_version} already.")
    return None


def _has_operation(node: Node) -> NotPossible | None:
    if node.operation is None:
        return NotPossible("nothing-to-cancel", f"Nothing is under way on {node.name}.")
    if node.operation.cancel_asked_at is not None:
        return NotPossible("cancel-asked", f"{node.name} has been asked to stop already.")
    return None


def _not_too_late(node: Node) -> NotPossible | None:
    operation = node.operation
    if operation is None or (operation.phase not in ARMED and operation.phase is not Phase.SOAKING):
        return None
    if operation.phase is Phase.SOAKING:
        text = f"{node.name} runs {operation.target_version or node.version} and soaks; roll back to leave it."
    else:
        text = f"{_doing(node, operation)}, which cannot be stopped half-way; roll back when it is up again."
    return NotPossible("too-late", text)


def _has_pin(node: Node) -> NotPossible | None:
    if node.pin is None:
        return NotPossible("not-pinned", f"{node.name} is not pinned.")
    return None


_COMMAND: tuple[Gate, ...] = (_not_retired, _admitted, _no_conflict, _commandable)

GATES: dict[Action, tuple[Gate, ...]] = {
    Action.UPDATE: (*_COMMAND, _not_armed),
    Action.REBOOT: (*_COMMAND, _not_armed),
    Action.ROLL_BACK: (*_COMMAND, _not_switching, _not_rolling_back, _has_way_back),
    Action.CANCEL: (_not_retired, _has_operation, _not_too_late),
    Action.RESCUE: (*_COMMAND, _not_armed_or_on_trial),
    Action.PIN: (_not_retired,),
    Action.UNPIN: (_not_retired, _has_pin),
    Action.FOLLOW: (_not_retired,),
    Action.APPROVE: (_not_retired, _pending),
    Action.RETIRE: (_not_retired,),
    Action.RELABEL: (_not_retired,),
    Action.RENAME: (_not_retired,),
    Action.SETTLE_CONFLICT: (_not_retired, _in_conflict),
    Action.CLEAR_FAILED_VERSION: (_not_retired,),
    Action.DECLARE: (_not_retired,),
    Action.LOST: (_not_retired, _admitted),
}
"""Action → gates, asked in this order."""


# --- gates that look at the image ---------------------------------------------------------------------------


def _pinned_elsewhere(node: Node, image: Target, pinned_image_id: str | None) -> NotPossible | None:
    pin = node.pin
    if pin is None or image.id == pinned_image_id:
        return None
    why = f" (“{pin.reason}”)" if pin.reason else ""
    return NotPossible(
        "pinned", f"{pin.actor} pinned {node.name} to {pin.to}{why}; unpin it or pin it to {image.version} first."
    )


def _failed_here(node: Node, version: str, digest: str, override: bool) -> NotPossible | None:
    failed = next((failed for failed in node.failed if failed.digest == digest and failed.cleared_at is None), None)
    if failed is None or override:
        return None
    return NotPossible(
        "failed-here", f"{version} failed on {node.name} before: {failed.reason}. Clear it there to try it again."
    )


def _runs_or_underway(node: Node, image: Target) -> NotPossible | None:
    operation = node.operation
    if operation is not None and operation.target_digest == image.digest and operation.cancel_asked_at is None:
        return NotPossible("already-underway", f"{node.name} is being brought to {image.version} already.")
    if node.booted_digest == image.digest and (operation is None or operation.target_digest in ("", image.digest)):
        return NotPossible("already-running", f"{node.name} runs {image.version} already.")
    return None


_DOING = {
    Phase.DRAINING: "is being drained",
    Phase.REBOOTING: "is rebooting",
    Phase.CONFIRMING: "is on trial",
    Phase.ROLLING_BACK: "is going back by itself",
}


def _doing(node: Node, operation: Operation) -> str:
    into = (
        f" into {operation.target_version}" if operation.target_version and operation.phase is Phase.REBOOTING else ""
    )
    return f"{node.name} {_DOING[operation.phase]}{into}"
