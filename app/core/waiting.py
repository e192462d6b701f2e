"""Why a node waits, as a chain: each condition on the way, whether it holds, and which one stops the node (rule 10)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.core.nodes import Admission, Connection, Node, Operation
from wire.messages import OperationKind, Phase


class Step(StrEnum):
    PASSED = "passed"
    STOPS = "stops"
    UNDER_WAY = "under-way"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class Link:
    step: Step
    text: str
    at: float | None = None
    """Since when, where that is known."""


_AFTER_REBOOT = (Phase.CONFIRMING, Phase.SOAKING, Phase.ROLLING_BACK)
_HAS_IMAGE = (Phase.STAGED, Phase.DRAINING, Phase.REBOOTING, *_AFTER_REBOOT)


def chain(node: Node) -> list[Link]:
    """In the order in which the conditions are met; empty where nothing is asked of the node."""
    operation = node.operation
    if operation is None:
        return []
    links = [_admission(node), _identity(node), _pin(node, operation), _connection(node)]
    if operation.cancel_asked_at is not None:
        links.append(Link(Step.UNDER_WAY, "Asked to stop; the node answers when it has", operation.cancel_asked_at))
    if operation.kind in (OperationKind.STAGE, OperationKind.ACTIVATE):
        links.append(_staging(node, operation))
    said = operation.hold["text"] if operation.hold is not None else ""  # the node repeats what we told it
    links += [Link(Step.STOPS, _sentence(hold.text)) for hold in node.activity.holds if hold.text != said]
    links += [Link(Step.STOPS, f"Held on the node itself: {text}") for text in node.activity.inhibitors]
    if operation.kind in (OperationKind.ACTIVATE, OperationKind.ROLLBACK, OperationKind.REBOOT):
        links += [_lease(operation), _reboot(operation), *_trial(node, operation)]
    return _only_what_counts([link for link in links if link is not None])


def _admission(node: Node) -> Link | None:
    return Link(Step.STOPS, "Waits for approval") if node.admission is Admission.PENDING else None


def _identity(node: Node) -> Link | None:
    if node.conflict is None:
        return None
    return Link(Step.STOPS, "Two machines claim to be this node; neither is commanded until that is settled")


def _pin(node: Node, operation: Operation) -> Link:
    if operation.kind is OperationKind.ROLLBACK:
        return Link(Step.PASSED, "Roll back: pins and gates do not stop it")
    if node.pin is not None:
        return Link(Step.PASSED, f"Pinned to {node.pin.to} by {node.pin.actor}")
    return Link(Step.PASSED, f"Not pinned; follows {node.channel_name}" if node.channel_name else "Not pinned")


def _connection(node: Node) -> Link:
    if node.connection is Connection.ONLINE:
        return Link(Step.PASSED, "Connected", node.connected_at)
    if node.operation is not None and node.operation.phase is Phase.REBOOTING:
        return Link(Step.UNDER_WAY, "Away while it reboots", node.last_seen_at)
    return Link(Step.STOPS, "Not connected; it goes on by itself when it is back", node.last_seen_at)


def _staging(node: Node, operation: Operation) -> Link:
    target = operation.target_version
    if operation.phase in _HAS_IMAGE:
        return Link(Step.PASSED, f"{target} is written to the passive slot and verified")
    if operation.phase is Phase.STAGING:
        done = node.activity.progress
        return Link(Step.UNDER_WAY, f"Staging {target}" + (f", {done * 100:.0f} %" if done is not None else ""))
    return Link(Step.LATER, f"Stage {target} into the passive slot")


def _lease(operation: Operation) -> Link:
    if operation.phase in (Phase.DRAINING, Phase.REBOOTING, *_AFTER_REBOOT):
        return Link(Step.PASSED, "Had the lease: one node of the fleet at a time")
    if operation.holds_lease:
        return Link(Step.PASSED, "Has the lease; may arm and reboot")
    if operation.hold is not None:
        return Link(Step.STOPS, _sentence(operation.hold["text"]), operation.lease_asked_at)
    if operation.lease_asked_at is not None:
        return Link(Step.UNDER_WAY, "Asked for the lease", operation.lease_asked_at)
    return Link(Step.LATER, "Lease: one node of the fleet reboots at a time")


def _reboot(operation: Operation) -> Link:
    if operation.phase in _AFTER_REBOOT:
        return Link(Step.PASSED, "Rebooted")
    if operation.phase in (Phase.REBOOTING, Phase.DRAINING):
        return Link(Step.UNDER_WAY, "Rebooting", operation.phase_at)
    return Link(Step.LATER, "Reboot")


def _trial(node: Node, operation: Operation) -> list[Link]:
    said = node.activity.trial.text if node.activity.trial is not None else ""
    if operation.phase is Phase.ROLLING_BACK:
        return [Link(Step.UNDER_WAY, "Going back by itself: the new slot did not prove itself", operation.phase_at)]
    if operation.phase is Phase.CONFIRMING:
        return [
            Link(Step.UNDER_WAY, _sentence(said) or "On trial: checks must pass", operation.phase_at),
            Link(Step.LATER, "Soak"),
        ]
    if operation.phase is Phase.SOAKING:
        return [Link(Step.PASSED, "Confirmed"), Link(Step.UNDER_WAY, _sentence(said) or "Soaking", operation.phase_at)]
    return [Link(Step.LATER, "Confirm by its checks, then soak")]


def _sentence(text: str) -> str:
    """Texts of holds are clauses, for lists; a link of the chain stands alone."""
    return text[:1].upper() + text[1:]


def _only_what_counts(links: list[Link]) -> list[Link]:
    """Nothing is under way behind a condition that stops; what comes after it is for later."""
    first = next((place for place, link in enumerate(links) if link.step is Step.STOPS), None)
    if first is None:
        return links
    return links[: first + 1] + [
        Link(Step.LATER, link.text, link.at) if link.step is Step.UNDER_WAY else link for link in links[first + 1 :]
    ]
