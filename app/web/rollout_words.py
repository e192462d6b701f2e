"""How rollouts are called and explained on pages. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from app.core.estimate import Estimate
from app.core.group_policy import Amount, GroupPolicy, OnFailure
from app.core.policy_text import field_texts
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
    """(whose nodes, what happens to them)."""
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


UNDER_WAY = "Under way at once"
"""What a rollout's own `max_unavailable` limits: its nodes from their lease to the end of their soak."""
MISSING = "Missing at once"
"""What that of each group limits beside it, whatever a rollout has."""


def policy_lines(
    policy: GroupPolicy, group: tuple[str, GroupPolicy] | None, at_once: list[tuple[str, str]] | None = None
) -> list[tuple[str, str]]:
    """(what, how much), as far as it concerns the way of a rollout.

    `group`: name and policy, as they are now, of the group whose nodes it moves; None: they were chosen. `at_once`: how
    many at once, where that is known as numbers of nodes.
    """
    domain, *others = group_lines(group[1]) if group is not None else [_GROUPS_OF_NODES]
    return [
        ("Canaries", f"{amount(policy.canaries)}, then {duration(policy.canary_soak_s)}"),
        *(at_once or _at_once(policy, group)),
        ("Soak", duration(policy.timing.soak_s)),
        *([domain] if group is None or group[1].domain_label else []),
        ("Stops", failure_words(policy)),
        *others,
    ]


_GROUPS_OF_NODES = ("Windows, failure domains", "as the groups of each node have them")


def _at_once(policy: GroupPolicy, group: tuple[str, GroupPolicy] | None) -> list[tuple[str, str]]:
    own = f"at most {amount(policy.max_unavailable)} of this rollout, from the lease to the end of the soak"
    if group is None:
        return [(UNDER_WAY, own), (MISSING, "as the groups of each node have it")]
    return [(UNDER_WAY, own), (MISSING, f"group {group[0]}: {missing_words(group[1])}")]


def missing_words(policy: GroupPolicy) -> str:
    """How many nodes of a group with this policy may be missing."""
    return f"at most {amount(policy.max_unavailable)}, whatever the cause"


def group_lines(policy: GroupPolicy) -> list[tuple[str, str]]:
    """As `policy_lines`, what binds as the group has it and no rollout can have otherwise: failure domains first."""
    each = "one after another" if policy.one_domain_after_another else f"at most {policy.max_per_domain} at once"
    limited = policy.one_domain_after_another or policy.max_per_domain
    per = f"Per {policy.domain_label or 'failure domain'}"
    lines = [(per, each if limited else "no limit"), ("Windows", field_texts(policy)["windows"] or "always open")]
    return lines + ([("Age of an image", f"at least {duration(policy.minimum_age_s)}")] if policy.minimum_age_s else [])


def failure_words(policy: GroupPolicy) -> str:
    """When it stops, and what happens then."""
    limit = policy.failure_limit
    least = f" and at least {policy.failure_least} nodes" if limit.share is not None else ""
    then = "rolls back" if policy.on_failure is OnFailure.ROLL_BACK else "halts"
    return f"{then} when a canary fails, or more than {amount(limit)}{' of those attempted' if least else ''}{least}"


def span(seconds: float) -> str:
    """With two units where the larger alone says too little: `1 h 10 min`, `3 d 4 h`, `12 min`."""
    minutes = max(1, round(seconds / 60))
    days, hours, rest = minutes // 1440, minutes % 1440 // 60, minutes % 60
    parts = [(days, "d"), (hours, "h"), (0 if days else rest, "min")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def range_words(estimate: Estimate) -> str:
    """From now to the end: `1 h – 2 h 30 min`; empty where nothing moves."""
    if not estimate.high_s:
        return ""
    if math.isinf(estimate.low_s):
        return "beyond the windows of the next months"
    low = span(estimate.low_s // 60 * 60)  # never rounded up: it has to hold
    if math.isinf(estimate.high_s):
        return f"at least {low}"
    high = span(estimate.high_s)
    return low if low == high else f"{low} – {high}"


def basis_words(estimate: Estimate) -> str:
    """What the range is counted with; empty where there is none."""
    if not estimate.high_s:
        return ""
    moved = estimate.moved
    if moved is None:
        return "The range ends where the policy’s deadlines do; it narrows when nodes have moved."
    low, high = duration(moved.fastest_s), duration(moved.slowest_s)
    if moved.nodes == 1:
        return f"The range is counted with the one node that has moved so far, in {high}."
    each = low if low == high else f"{low} to {high}"
    return f"The range is counted with the {moved.nodes:,} nodes that have moved so far, in {each} each."


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


_EVENT_KINDS = {
    "ok": {"succeeded", "canaries-soaked"},
    "bad": {"halted", "node-failed", "not-started"},
    "warn": {
        "paused",
        "aborted",
        "rolling-back",
        "rolled-back",
        "changed",
        "reversed",
        "node-left",
        "stayed",
        "superseded",
    },
    "accent": {"started", "resumed", "nodes-came", "canary"},
}


def event_kind(kind: str) -> str:
    """The colour of an event's mark in a rollout's history."""
    return next((color for color, kinds in _EVENT_KINDS.items() if kind in kinds), "")
