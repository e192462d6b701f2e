"""Why a node is not moving, in one line for lists: the most urgent reason speaks."""

from __future__ import annotations

from app.core.fleet import NodeState
from wire.messages import Activity, Phase, Result

_BAD_ENDS = {
    Result.FELL_BACK: "fell back from",
    Result.NEVER_SWITCHED: "never switched to",
    Result.STAGE_FAILED: "could not stage",
    Result.REFUSED: "refused",
    Result.UNHEALTHY: "unhealthy on",
    Result.UNREACHABLE: "went back from (unreachable)",
    Result.TIMED_OUT: "timed out towards",
    Result.UNKNOWN: "not known whether it runs",
}


def why(
    *,
    state: NodeState,
    conflict: bool,
    phase: str,
    activity: Activity,
    operation_hold: str | None,
    pinned_to: str | None,
    pin_reason: str | None,
) -> str:
    """One sentence, or nothing where there is nothing to say."""
    if conflict:
        return "two machines claim to be this node; neither is commanded"
    if state is NodeState.PENDING:
        return "waits for approval"
    if phase in (Phase.CONFIRMING, Phase.SOAKING) and activity.trial is not None:
        return activity.trial.text or ("soaks" if activity.trial.confirmed else "on trial, not confirmed yet")
    hold = operation_hold or next((hold.text for hold in activity.holds), "")
    if phase != Phase.IDLE:
        return hold or _under_way(phase, activity)
    if hold:
        return hold  # what stops it now, before what happened the last time
    outcome = activity.outcome
    if outcome is not None and outcome.result in _BAD_ENDS:
        because = f": {outcome.reason}" if outcome.reason else ""
        return f"{_BAD_ENDS[outcome.result]} {outcome.version or 'the last operation'}{because}"
    if pinned_to:
        return f"pinned to {pinned_to}" + (f": “{pin_reason}”" if pin_reason else "")
    return ""


def _under_way(phase: str, activity: Activity) -> str:
    target = f" {activity.target}" if activity.target else ""
    done = f", {activity.progress * 100:.0f} %" if activity.progress is not None else ""
    return {
        Phase.STAGING: f"staging{target}{done}",
        Phase.STAGED: f"{target.strip() or 'the image'} is staged",
        Phase.DRAINING: "draining before the reboot",
        Phase.REBOOTING: f"rebooting into{target}" if target else "rebooting",
        Phase.ROLLING_BACK: "going back by itself",
    }.get(Phase(phase), phase)
