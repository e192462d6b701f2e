"""What the machine's state looks like on pages: the `activity` section of a status."""

from __future__ import annotations

from collections.abc import Sequence

from agent.phases.model import State, Step
from agent.phases.model import Trial as Kept
from agent.phases.spans import span
from agent.phases.turn import target
from wire.messages import Activity, Hold, OperationKind, Phase, Trial, WayBack

PHASES = {
    Step.IDLE: Phase.IDLE,
    Step.HELD: Phase.IDLE,
    Step.STAGING: Phase.STAGING,
    Step.RETRYING: Phase.STAGING,
    Step.READY: Phase.STAGED,
    Step.DRAINING: Phase.DRAINING,
    Step.ARMING: Phase.REBOOTING,
    Step.REBOOTING: Phase.REBOOTING,
    Step.CONFIRMING: Phase.CONFIRMING,
    Step.SOAKING: Phase.SOAKING,
    Step.ROLLING_BACK: Phase.ROLLING_BACK,
    Step.ACTING: Phase.IDLE,
}


def activity(state: State, boot_s: float, progress: float | None = None, more_holds: Sequence[Hold] = ()) -> Activity:
    """The activity section now.

    `progress` is the share done of the present download or write, `more_holds` what the runner knows itself.
    """
    operation = state.operation
    return Activity(
        phase=phase(state),
        operation_id=operation.id if operation else None,
        order=state.order,
        target=target(state),
        progress=progress if state.step is Step.STAGING else None,
        holds=[*more_holds, *holds(state, boot_s)],
        trial=_trial(state, state.trial, boot_s) if state.trial else None,
        outcome=state.outcome,
        way_back=WayBack(slot=state.way_back.slot, version=state.way_back.version, digest=state.way_back.digest)
        if state.way_back
        else None,
        failed_versions=state.failed,
        inhibitors=state.inhibitors,
    )


def phase(state: State) -> Phase:
    """The phase of the design for a step; a reboot has nothing staged while it waits."""
    if state.step is Step.READY and state.operation and state.operation.kind is OperationKind.REBOOT:
        return Phase.IDLE
    return PHASES[state.step]


def holds(state: State, boot_s: float) -> list[Hold]:
    """Why the node is not moving now, the nearest reason first."""
    found: list[Hold] = []
    if state.hold is not None:
        found.append(state.hold)
    elif state.step is Step.READY and not state.linked:
        found.append(Hold(code="gateway-away", text="no lease without the gateway: nothing is started"))
    elif state.step is Step.READY and not state.work:
        found.append(Hold(code="lease", text="waits for the permission to reboot"))
    if state.step is Step.RETRYING and state.retry_s is not None:
        again = span(max(0.0, state.retry_s - boot_s))
        found.append(Hold(code="download", text=f"{state.work_error}; tried again in {again}"))
    elif state.work and state.work_error:
        found.append(Hold(code="driver", text=state.work_error))
    if state.drained is not None and state.drained.error:
        found.append(Hold(code="undrain-failed", text=f"the node is still drained: {state.drained.error}"))
    facts = state.booted
    if facts is not None and facts.stuck:
        text = f"slot {facts.slot} could neither be confirmed nor left: a person has to look"
        found.append(Hold(code="needs-a-person", text=text))
    elif facts is not None and not facts.confirmed and state.step is Step.IDLE:
        text = f"slot {facts.slot} is confirmed when its checks have passed for a while"
        found.append(Hold(code="not-confirmed", text=text))
    return found


def _trial(state: State, kept: Kept, boot_s: float) -> Trial:
    confirmed = state.step is Step.SOAKING
    text = "" if confirmed or state.welcomed else "not welcomed by the gateway since this boot"
    return Trial(confirmed=confirmed, left_s=max(0.0, kept.until_s - boot_s), text=text)
