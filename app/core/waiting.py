"""Why a node waits, as a chain: each condition on the way, whether it holds, and which one stops the node (rule 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.core.conditions import Around, Place, place_of
from app.core.holds import Hold
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
    hold: Hold | None = None
    """What stops it, where admission or a freeze does."""
    until: float | None = None
    """When it ends by itself, where that is known."""


_WATCHED_ON = "Soaking: the node says that it has, earlier than can be by the server's clock, so it is watched on"
_AFTER_REBOOT = (Phase.CONFIRMING, Phase.SOAKING, Phase.ROLLING_BACK)
_ADMITTED = (Phase.DRAINING, Phase.REBOOTING, *_AFTER_REBOOT)
_HAS_IMAGE = (Phase.STAGED, *_ADMITTED)
_STAGES = (OperationKind.STAGE, OperationKind.ACTIVATE)
_REBOOTS = (OperationKind.ACTIVATE, OperationKind.ROLLBACK, OperationKind.REBOOT)
_NOTHING = Around()


def chain(node: Node, around: Around = _NOTHING) -> list[Link]:
    """In the order in which the conditions are met; empty where nothing is asked of the node and no rollout has it."""
    operation = node.operation
    if operation is None and around.turn is None:
        return []
    links = [_admission(node), _identity(node), *_before_staging(node, operation, around)]
    if operation is None:
        links += [_not_ordered(around), *_conditions(around, None)]
        return _only_what_counts([link for link in links if link is not None])
    if operation.cancel_asked_at is not None:
        links.append(Link(Step.UNDER_WAY, "Asked to stop; the node answers when it has", operation.cancel_asked_at))
    if operation.kind in _STAGES:
        links.append(_staging(node, operation))
    links += _on_the_node(node, operation)
    if operation.kind in _REBOOTS:
        links += [*_way_to_the_lease(operation, around), _reboot(operation), *_trial(node, operation)]
    links.append(_deadline(around))
    return _only_what_counts([link for link in links if link is not None])


# --- what the node meets whatever the others do -------------------------------------------------------------


def _admission(node: Node) -> Link | None:
    return Link(Step.STOPS, "Waits for approval") if node.admission is Admission.PENDING else None


def _identity(node: Node) -> Link | None:
    if node.conflict is None:
        return None
    return Link(Step.STOPS, "Two machines claim to be this node; neither is commanded until that is settled")


def _before_staging(node: Node, operation: Operation | None, around: Around) -> list[Link | None]:
    return [
        _stopped(around, Place.PIN) or _pin(node, operation, around),
        _stopped(around, Place.EDGE) or _edge(node, operation, around),
        _connection(node, around),
        _stopped(around, Place.ROLLOUT),
    ]


def _leads_back(operation: Operation | None, around: Around) -> bool:
    turn_leads_back = around.turn is not None and around.turn.leads_back
    return turn_leads_back or (operation is not None and operation.kind is OperationKind.ROLLBACK)


def _pin(node: Node, operation: Operation | None, around: Around) -> Link:
    if _leads_back(operation, around):
        return Link(Step.PASSED, "Roll back: pins, windows and health gates do not stop it")
    if node.pin is not None:
        return Link(Step.PASSED, f"Pinned to {node.pin.to} by {node.pin.actor}")
    return Link(Step.PASSED, f"Not pinned; follows {node.channel_name}" if node.channel_name else "Not pinned")


def _edge(node: Node, operation: Operation | None, around: Around) -> Link | None:
    """Only updates ask which version may follow which."""
    if _leads_back(operation, around) or not node.version:
        return None
    if operation is not None:
        target = operation.target_version if operation.kind in _STAGES and operation.phase not in _ADMITTED else ""
    else:
        target = around.turn.target if around.turn is not None and around.turn.moves else ""
    if not target or target == node.version:
        return None
    if around.edge:
        return Link(Step.STOPS, _sentence(around.edge))
    return Link(Step.PASSED, f"{target} may follow {node.version}")


def _connection(node: Node, around: Around) -> Link:
    if node.connection is Connection.ONLINE:
        return _stopped(around, Place.CONNECTION) or Link(Step.PASSED, "Connected", node.connected_at)
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


def _on_the_node(node: Node, operation: Operation) -> list[Link]:
    said = operation.hold["text"] if operation.hold is not None else ""  # the node repeats what we told it
    links = [Link(Step.STOPS, _sentence(hold.text)) for hold in node.activity.holds if hold.text != said]
    return links + [Link(Step.STOPS, f"Held on the node itself: {text}") for text in node.activity.inhibitors]


def _not_ordered(around: Around) -> Link:
    """A rollout has the node, and has given it no order yet."""
    target = f" to stage {around.turn.target}" if around.turn is not None and around.turn.moves else ""
    return Link(Step.UNDER_WAY, f"Has not been ordered{target} yet")


# --- what depends on the others -----------------------------------------------------------------------------


def _way_to_the_lease(operation: Operation, around: Around) -> list[Link]:
    if operation.phase in _ADMITTED:
        return [Link(Step.PASSED, "Had the lease: freezes, windows, budgets, floors and health gates let it go")]
    if operation.holds_lease:
        return [Link(Step.PASSED, "Has the lease: freezes, windows, budgets, floors and health gates let it go")]
    return [*_conditions(around, operation), _lease(operation, around)]


def _conditions(around: Around, operation: Operation | None) -> list[Link]:
    """Freeze or window, group budget, service floor, health gate: those before what stops it hold, the others count
    later."""
    conditions, place = around.conditions, place_of(around.hold)
    asked = operation is not None and operation.lease_asked_at is not None
    since = operation.lease_asked_at if operation is not None else None
    back = _leads_back(operation, around)
    glass = around.turn is not None and around.turn.break_glass
    links = [_timed(around, since, bound=not back and not glass)]
    texts = [
        (Place.BUDGET, conditions.budget),
        (Place.FLOOR, conditions.floor),
        (Place.HEALTH, "Health gates do not stop a way back" if back else conditions.health),
    ]
    for each, text in texts:
        found = _stopped(around, each, since)
        if found is None:
            step = Step.PASSED if asked and place is not None and each < place else Step.LATER
            found = Link(step, text)
        links.append(found)
    return links


def _timed(around: Around, since: float | None, *, bound: bool) -> Link:
    """Known now, whatever the newest tick said."""
    found = _stopped(around, Place.TIMED, since)
    if found is not None:
        return found
    timed = around.conditions.timed
    if timed is not None and bound:
        return Link(Step.STOPS, _sentence(timed.text), hold=timed, until=timed.until)
    if timed is not None:
        return Link(Step.PASSED, "Freezes and windows do not stop it")
    return Link(Step.PASSED, around.conditions.timed_text)


def _lease(operation: Operation, around: Around) -> Link:
    if operation.hold is not None and around.hold is None:
        return Link(Step.STOPS, _sentence(operation.hold["text"]), operation.lease_asked_at)
    if operation.lease_asked_at is not None:
        return Link(Step.UNDER_WAY, "Asked for the lease", operation.lease_asked_at)
    return Link(Step.LATER, "Ask for the lease")


def _reboot(operation: Operation) -> Link:
    if operation.phase in _AFTER_REBOOT:
        return Link(Step.PASSED, "Rebooted")
    if operation.phase is Phase.DRAINING:
        return Link(Step.UNDER_WAY, "Draining before the reboot", operation.phase_at)
    if operation.phase is Phase.REBOOTING:
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
        soak = _sentence(said) or (_WATCHED_ON if operation.claim is not None else "Soaking")
        return [Link(Step.PASSED, "Confirmed"), Link(Step.UNDER_WAY, soak, operation.phase_at)]
    return [Link(Step.LATER, "Confirm by its checks, then soak")]


def _deadline(around: Around) -> Link | None:
    clock = around.clock
    if clock is None:
        return None
    left = f"{span(clock.left_s)} left" if clock.left_s > 0 else "over"
    if clock.stands:
        return Link(Step.LATER, f"Deadline of this phase: {left}; the clock stands, because {clock.stands}")
    return Link(Step.LATER, f"Deadline of this phase: {left}; the clock runs while the node could be heard")


# --- shared -------------------------------------------------------------------------------------------------


def _stopped(around: Around, place: Place, since: float | None = None) -> Link | None:
    hold = around.hold
    if hold is None or place_of(hold) is not place:
        return None
    return Link(Step.STOPS, _sentence(hold.text), since, hold, hold.until)


def span(seconds: float) -> str:
    """In the largest unit that tells enough."""
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _sentence(text: str) -> str:
    """Texts of holds are clauses, for lists; a link of the chain stands alone. A name keeps its letters."""
    first = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if first.isalpha() else text


def _only_what_counts(links: Sequence[Link]) -> list[Link]:
    """Nothing is under way behind a condition that stops; what comes after it is for later."""
    first = next((place for place, link in enumerate(links) if link.step is Step.STOPS), None)
    if first is None:
        return list(links)
    return [
        *links[: first + 1],
        *(_later(link) if link.step is Step.UNDER_WAY else link for link in links[first + 1 :]),
    ]


def _later(link: Link) -> Link:
    return Link(Step.LATER, link.text, link.at)
