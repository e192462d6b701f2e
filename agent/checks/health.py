"""From checks to the node's health."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent.checks.builtin import run_builtins
from agent.checks.config import ChecksConfig
from agent.checks.scripts import run_scripts
from wire.limits import CHECKS, REASONS
from wire.messages import Check, CheckState, Health, HealthState, Placement

_NOT_PASSED = frozenset({CheckState.FAILED, CheckState.TIMED_OUT})


async def run_checks(config: ChecksConfig, placement: Placement | None) -> Health:
    """Run every check; each is limited in time, so this is too. None: the node has no container engine."""
    builtins, scripts = await asyncio.gather(run_builtins(config, placement), run_scripts(config))
    return verdict([*builtins, *scripts])


def verdict(checks: Sequence[Check]) -> Health:
    """A failed required check makes unhealthy, a failed other one degraded. Pure.

    Unknown when a required check gave no answer, or none at all did: silence is not health. The reasons are
    one sentence each, required checks first.
    """
    failed = [check for check in checks if check.state in _NOT_PASSED]
    failed.sort(key=lambda check: not check.required)  # stable: otherwise in the order in which they ran
    unanswered = [check for check in checks if check.state is CheckState.UNKNOWN]
    reasons = [f"{check.name}: {check.text}." for check in failed]
    if any(check.required for check in failed):
        state = HealthState.UNHEALTHY
    elif any(check.required for check in unanswered) or len(unanswered) == len(checks):
        state = HealthState.UNKNOWN
        reasons = [f"{check.name}: {check.text}." for check in unanswered] + reasons
    elif failed:
        state = HealthState.DEGRADED
    else:
        state = HealthState.HEALTHY
    return Health(state=state, reasons=_fitting(reasons or _no_reason(state)), checks=_worst(checks))


def _fitting(reasons: list[str]) -> list[str]:
    """Within the wire's limit, with a last line that says how many are left out."""
    if len(reasons) <= REASONS:
        return reasons
    return [*reasons[: REASONS - 1], f"And {len(reasons) - REASONS + 1} more."]


def _worst(checks: Sequence[Check]) -> list[Check]:
    """All, in their order; beyond the wire's limit passed ones are left out first."""
    if len(checks) <= CHECKS:
        return list(checks)
    return sorted(checks, key=lambda check: (check.state is CheckState.PASSED, not check.required))[:CHECKS]


def _no_reason(state: HealthState) -> list[str]:
    return ["No check is configured."] if state is HealthState.UNKNOWN else []
