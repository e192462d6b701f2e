"""What must hold before an operation may start anything: refusals, holds, and what is done already."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from agent.phases.model import Booted, KeptWayBack, Remaining, State, Step, WorkKind, booted, passive
from agent.phases.spans import span
from agent.phases.turn import Turn
from agent.phases.words import worded
from wire.messages import FailedVersion, Hold, Image, OperationKind, Result, Slot


class Refusal(msgspec.Struct, frozen=True):
    """The operation ends: it can never be right on this node as it is."""

    code: str
    text: str


class Already(msgspec.Struct, frozen=True):
    """The operation has reached its goal without doing anything."""

    text: str


Finding = Refusal | Hold | Already | None
Gate = Callable[[Turn], Finding]


def weigh(turn: Turn) -> None:
    """Look at the gates of the current operation and begin it when all are open."""
    if turn.state.work:
        return
    if unclear := slots_unclear(turn.state):
        turn.set(hold=Hold(code="slots-unclear", text=unclear))
        return
    for gate in GATES[turn.operation.kind]:
        match gate(turn):
            case Refusal(code=code, text=text):
                turn.end(Result.REFUSED, f"{code}: {text}")
                return
            case Already(text=text):
                turn.end(Result.SUCCEEDED, text)
                return
            case Hold() as hold:
                turn.set(hold=hold)
                return
            case None:
                pass
    turn.set(hold=None)
    BEGIN[turn.operation.kind](turn)


# --- gates --------------------------------------------------------------------------------------------------


def _names_image(turn: Turn) -> Finding:
    if turn.operation.image is None:
        return Refusal("no-image", "the operation names no image")
    return None


def _fits_node(turn: Turn) -> Finding:
    image, state = _image(turn), turn.state
    if image.os != state.os:
        return Refusal("wrong-os", f"the image is for {image.os}, this node runs {state.os}")
    if image.arch != state.arch:
        return Refusal("wrong-arch", f"the image is for {image.arch}, this node is {state.arch}")
    return None


def _trusted(turn: Turn) -> Finding:
    return Refusal("untrusted-image", turn.state.distrust) if turn.state.distrust else None


def _not_failed_here(turn: Turn) -> Finding:
    failed = failed_here(turn.state, _image(turn).digest)
    if failed is None or turn.operation.override_failed:
        return None
    return Refusal("failed-here", f"{failed.version} failed on this node: {failed.reason}")


def _not_running(turn: Turn) -> Finding:
    slot, image = booted(turn.state), turn.operation.image
    if slot is not None and image is not None and slot.digest == image.digest:
        return Already(f"already running in slot {slot.name}")
    return None


def _confirmed(turn: Turn) -> Finding:
    facts = turn.state.booted
    if facts is not None and facts.confirmed:
        return None
    return Hold(code="not-confirmed", text=f"the booted slot {facts.slot if facts else ''} is not confirmed good")


def _way_back_free(turn: Turn) -> Finding:
    """Only what is written costs the way back: an image that is staged already does not."""
    if holds_image(turn.state, _image(turn)):
        return None
    way_back, slot = turn.state.way_back, passive(turn.state)
    if way_back is None or slot is None or way_back.slot != slot.name:
        return None
    what = f"slot {slot.name} ({slot.version or 'version unknown'}) is kept as the way back"
    if way_back.left is None:
        return Hold(code="keeping-way-back", text=f"{what} until this version has proved itself or is rescued")
    left_s = way_back.left.at(turn.now_s)
    if left_s > 0:
        return Hold(code="keeping-way-back", text=f"{what} for another {span(left_s)}")
    return None


def _has_passive(turn: Turn) -> Finding:
    if passive(turn.state) is None:
        return Refusal("no-passive-slot", "this node shows no second slot")
    return None


def _holds_named(turn: Turn) -> Finding:
    """An image is withdrawn: only where it is staged there is anything to do."""
    image, runs, other = turn.operation.image, booted(turn.state), passive(turn.state)
    if image is None:
        return None
    if runs is not None and runs.digest == image.digest:
        return Already(f"{worded(runs)} runs it: nothing was touched")
    if other is None or other.digest != image.digest:
        return Already(f"{image.version} is not in the passive slot: nothing was touched")
    return _only_way_back(turn.state, other)


def _only_way_back(state: State, other: Slot) -> Finding:
    """What is booted has not proved itself: without the other slot a machine that it breaks boots nothing (rule 2)."""
    way_back, facts = state.way_back, state.booted
    if way_back is None or way_back.slot != other.name:
        return None
    if way_back.left is not None and facts is not None and facts.confirmed:
        return None
    return Refusal("only-way-back", f"{worded(other)} stays until the booted version has proved itself or is rescued")


def _leads_back(turn: Turn) -> Finding:
    """Into exactly what is named. Of a slot whose contents nobody knows only what was confirmed once is booted.

    A slot that was marked bad is not, failed or withdrawn: it has to be written anew.
    """
    image, slot = turn.operation.image, passive(turn.state)
    if slot is not None and slot.good is False and image is not None and slot.digest == image.digest:
        return Refusal("way-back-bad", f"{worded(slot)} was made unbootable: it has to be written anew")
    if _passive_is(slot, image):
        return _not_failed_here(turn) if image is not None else None
    holds = (slot.version or slot.digest or "nothing known") if slot else "nothing"
    wanted = image.version if image is not None else "a confirmed slot of unknown contents"
    return Refusal("way-back-gone", f"the passive slot holds {holds}, not {wanted}")


GATES: dict[OperationKind, tuple[Gate, ...]] = {
    OperationKind.STAGE: (
        _names_image,
        _fits_node,
        _trusted,
        _not_failed_here,
        _confirmed,
        _not_running,
        _has_passive,
        _way_back_free,
    ),
    OperationKind.ACTIVATE: (
        _names_image,
        _fits_node,
        _trusted,
        _not_failed_here,
        _confirmed,
        _not_running,
        _has_passive,
        _way_back_free,
    ),
    OperationKind.ROLLBACK: (_not_running, _has_passive, _leads_back),
    OperationKind.REBOOT: (),
    OperationKind.DISARM: (_holds_named,),
    OperationKind.RESCUE: (),
}


# --- beginning ----------------------------------------------------------------------------------------------


def begin_staging(turn: Turn) -> None:
    """Start (or try again) to fill the passive slot; the first start sets the deadline."""
    if turn.state.stage_until_s is None:
        turn.set(stage_until_s=turn.now_s + turn.limits.stage_s)
    turn.set(step=Step.STAGING, staged=None, hold=None)
    turn.queue(WorkKind.STAGE, image=_image(turn))


def _stage(turn: Turn) -> None:
    if holds_image(turn.state, _image(turn)):
        finish_staging(turn)
    else:
        begin_staging(turn)


def settle_staging(turn: Turn) -> None:
    """STAGING: when the work is over, go on; work that was lost is begun again."""
    if turn.state.work:
        return
    if turn.state.staged == _image(turn).digest:
        finish_staging(turn)
    else:
        begin_staging(turn)


def finish_staging(turn: Turn) -> None:
    """The tool says that it is done: look at the slot itself, make sure that it is not next boot, then go on."""
    slot = passive(turn.state)
    if not holds_image(turn.state, _image(turn)):
        shown = slot.digest if slot else None
        turn.end(Result.STAGE_FAILED, f"after staging the passive slot shows {shown or 'no digest'}")
    elif slot is not None and slot.next_boot:
        turn.set(step=Step.STAGING)
        turn.queue(WorkKind.DISARM)
    elif turn.operation.kind is OperationKind.STAGE:
        turn.end(Result.SUCCEEDED, f"staged in slot {slot.name}" if slot else "staged")
    else:
        turn.set(step=Step.READY, hold=None)


def _ready(turn: Turn) -> None:
    turn.set(step=Step.READY)


def _disarm(turn: Turn) -> None:
    """Rule 2 keeps the way back: only a staged copy, or the image that is named, becomes unbootable."""
    turn.set(step=Step.ACTING)
    turn.queue(WorkKind.DISARM)
    slot = passive(turn.state)
    if slot is None:
        return
    named = turn.operation.image is not None  # and the slot holds it: the gate has seen to that
    staged = slot.digest is not None and slot.digest == turn.state.staged
    if named or staged or not _is_way_back(turn.state):
        turn.queue(WorkKind.MARK_BAD, slot=slot.name)


def _rescue(turn: Turn) -> None:
    turn.set(step=Step.ACTING)
    author, reason = turn.operation.author or "an operator", turn.operation.reason
    because = f": “{reason}”" if reason else ""
    turn.event("rescued", f"Rescue by {author}: {worded(_booted(turn.state))} is confirmed as it is{because}")
    turn.queue(WorkKind.MARK_GOOD)
    way_back = turn.state.way_back
    if way_back is not None and way_back.left is None:
        free: KeptWayBack = msgspec.structs.replace(way_back, left=Remaining(left_s=0.0, as_of_s=turn.now_s))
        turn.set(way_back=free)


BEGIN: dict[OperationKind, Callable[[Turn], None]] = {
    OperationKind.STAGE: _stage,
    OperationKind.ACTIVATE: _stage,
    OperationKind.ROLLBACK: _ready,
    OperationKind.REBOOT: _ready,
    OperationKind.DISARM: _disarm,
    OperationKind.RESCUE: _rescue,
}


# --- facts --------------------------------------------------------------------------------------------------


def failed_here(state: State, digest: str | None) -> FailedVersion | None:
    """The remembered failure of a version on this node."""
    return next((failed for failed in state.failed if failed.digest == digest), None)


def slots_unclear(state: State) -> str:
    """Why what the tool shows cannot be acted on; empty when one slot is booted, and the one that this boot is of."""
    names = [slot.name for slot in state.slots if slot.booted]
    if len(names) != 1:
        return f"the update tool shows {len(names) or 'no'} booted slots"
    if state.booted is None or state.booted.slot != names[0]:
        was = state.booted.slot if state.booted else "none"
        return f"the update tool shows slot {names[0]} as booted; at the start of this boot it was {was}"
    return ""


def holds_image(state: State, image: Image) -> bool:
    """Whether the passive slot holds the verified image in a state that can be armed."""
    slot = passive(state)
    if slot is None or slot.digest != image.digest:
        return False
    return slot.good is not False or state.staged == image.digest


def in_place(state: State) -> bool:
    """Whether what an operation in step READY is going to boot is still there."""
    operation = state.operation
    if operation is None or operation.kind is OperationKind.REBOOT:
        return True
    if operation.kind is OperationKind.ROLLBACK:
        return _passive_is(passive(state), operation.image)
    return operation.image is not None and holds_image(state, operation.image)


def _passive_is(slot: Slot | None, image: Image | None) -> bool:
    """Whether the passive slot holds what a roll back names; without an image, a confirmed slot without a digest."""
    if slot is None or slot.good is False:
        return False
    if image is None:
        return slot.digest is None and slot.good is True
    return slot.digest == image.digest


def _is_way_back(state: State) -> bool:
    slot = passive(state)
    return state.way_back is not None and slot is not None and state.way_back.slot == slot.name


def _image(turn: Turn) -> Image:
    image = turn.operation.image
    assert image is not None, "the gates ask for an image first"
    return image


def _booted(state: State) -> Booted:
    assert state.booted is not None, "known since the first start"
    return state.booted
