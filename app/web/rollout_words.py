"""How rollouts are called and explained on pages. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.core.group_policy import Amount, GroupPolicy, OnFailure
from app.core.rollout_progress import Progress
from app.core.rollouts import RolloutKind, RolloutState
from app.store.rollouts import Rollout
from app.web.filters import duration

ATTENTION_ORDER = (
    RolloutState.HALTED,
    RolloutState.ROLLING_BACK,
    RolloutState.RUNNING,
    RolloutState.PAUSED,
)
"""Rollouts that are under way, what needs a person first."""


def title(rollout: Rollout) -> tuple[str, str]:
    """(whose nodes, what happens to them); the second is a version where `is_version` says so."""
    whose = rollout.group_name or "Chosen nodes"
    match rollout.kind:
        case RolloutKind.UPDATE:
            return whose, rollout.version
        case RolloutKind.REBOOT:
            return whose, "reboot"
        case RolloutKind.ROLLBACK:
            return whose, f"back to {rollout.version}" if rollout.version else "back"


def name(rollout: Rollout) -> str:
    """In one line, for links and titles of pages."""
    return " → ".join(title(rollout))


def amount(value: Amount) -> str:
    """`2 nodes`, `5 %`."""
    if value.share is not None:
        return f"{value.share * 100:g} %"
    assert value.count is not None, "exactly one of count and share is set"
    return f"{value.count:,} node{'s' if value.count != 1 else ''}"


def policy_lines(policy: GroupPolicy) -> list[tuple[str, str]]:
    """(what, how much), as far as it concerns the way of a rollout."""
    lines = [
        ("Canaries", f"{amount(policy.canaries)}, then {duration(policy.canary_soak_s)}"),
        ("Unavailable at once", f"at most {amount(policy.max_unavailable)}"),
        ("Soak", duration(policy.timing.soak_s)),
    ]
    if policy.domain_label:
        each = "one after another" if policy.one_domain_after_another else f"at most {policy.max_per_domain} at once"
        limited = policy.one_domain_after_another or policy.max_per_domain
        lines.append((f"Per {policy.domain_label}", each if limited else "no limit"))
    lines.append(("Stops", failure_words(policy)))
    return lines


def failure_words(policy: GroupPolicy) -> str:
    """When it stops, and what happens then."""
    limit = policy.failure_limit
    least = f" and at least {policy.failure_least} nodes" if limit.share is not None else ""
    then = "rolls back" if policy.on_failure is OnFailure.ROLL_BACK else "halts"
    return f"{then} when a canary fails, or more than {amount(limit)}{' of those attempted' if least else ''}{least}"


def counted(number: int, noun: str = "node") -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


_STAY = (Progress.WAITING, Progress.HELD, Progress.STAGING, Progress.STAGED)
_FINISH = (Progress.MOVING, Progress.SOAKING)


def stays(counts: Mapping[Progress, int]) -> int:
    """Nodes that nothing is armed on: what stops at once when a rollout stops."""
    return sum(counts.get(each, 0) for each in _STAY)


def finishes(counts: Mapping[Progress, int]) -> int:
    """Nodes that are armed, rebooting, on trial or soaking: stopping them half-way would leave them in between."""
    return sum(counts.get(each, 0) for each in _FINISH)


def touched(counts: Mapping[Progress, int]) -> int:
    """Nodes that run the new version, or are on their way there."""
    return sum(counts.get(each, 0) for each in (*_FINISH, Progress.DONE, Progress.FAILED))


def rate_words(done: int, seconds: float) -> str:
    """`12 an hour`, `1.7 a minute`; empty where nothing has been done."""
    if not done or seconds <= 0:
        return ""
    a_minute = done * 60 / seconds
    return f"{a_minute:.3g} a minute" if a_minute >= 1 else f"{a_minute * 60:.3g} an hour"


def names_in_line(names: Sequence[str], total: int, most: int = 8) -> str:
    """`a, b and 3 more`."""
    shown = ", ".join(names[:most])
    return f"{shown} and {total - min(len(names), most):,} more" if total > min(len(names), most) else shown


_EVENT_KINDS = {
    "ok": {"succeeded", "canaries-soaked"},
    "bad": {"halted", "node-failed", "not-started"},
    "warn": {"paused", "aborted", "rolling-back", "rolled-back", "changed", "reversed", "node-left", "superseded"},
    "accent": {"started", "resumed", "nodes-came", "canary"},
}


def event_kind(kind: str) -> str:
    """The colour of an event's mark in a rollout's history."""
    return next((color for color, kinds in _EVENT_KINDS.items() if kind in kinds), "")
