"""When a phase machine has to be told that time has passed: an agent ticks each second, 50,000 of them need not."""

from __future__ import annotations

import math
from collections.abc import Callable

from agent.phases.inputs import Limits
from agent.phases.model import State, Step

SLACK_S = 0.001
"""Some deadlines are over only after their moment."""


def due_s(state: State, limits: Limits) -> float:
    """Boot clock of the next moment at which a tick may change something; infinite when only inputs can."""
    found = [
        found
        for each in (_retry, _unconfirmed, _undrained, _OF_STEP.get(state.step, _unknown))
        for found in each(state, limits)
    ]
    return min(found, default=math.inf) + SLACK_S


def _retry(state: State, limits: Limits) -> list[float]:
    return [state.retry_s] if state.retry_s is not None else []


def _unconfirmed(state: State, limits: Limits) -> list[float]:
    facts, since_s = state.booted, state.rounds.good_since_s
    waits = facts is not None and not facts.confirmed and not facts.stuck and not state.work and state.welcomed
    return [since_s + limits.unasked_confirm_s] if waits and since_s is not None else []


def _undrained(state: State, limits: Limits) -> list[float]:
    left = state.drained
    return [left.again_s] if left is not None and left.again_s is not None else []


def _held(state: State, limits: Limits) -> list[float]:
    way_back = state.way_back
    if way_back is None or way_back.left is None:
        return []
    return [way_back.left.as_of_s + way_back.left.left_s]


def _retrying(state: State, limits: Limits) -> list[float]:
    return [state.stage_until_s] if state.stage_until_s is not None else []


def _ready(state: State, limits: Limits) -> list[float]:
    if not state.linked:
        return []
    if state.asking is not None:
        return [state.asking.sent_s + limits.lease_answer_s]
    return [state.ask_s] if state.ask_s is not None else []


def _rebooting(state: State, limits: Limits) -> list[float]:
    lease = [state.lease.until_s] if state.lease is not None else []
    return lease + ([state.rebooted_s + limits.reboot_s] if state.rebooted_s is not None else [])


def _on_trial(state: State, limits: Limits) -> list[float]:
    until = [state.trial.until_s] if state.trial is not None else []
    return [*until, state.rounds.last_s + limits.checks_late_s]


def _nothing(state: State, limits: Limits) -> list[float]:
    return []


def _unknown(state: State, limits: Limits) -> list[float]:
    """A step that has no entry below is told each second, as a real agent is."""
    return [0.0]


_OF_STEP: dict[Step, Callable[[State, Limits], list[float]]] = {
    Step.IDLE: _nothing,
    Step.HELD: _held,
    Step.STAGING: _nothing,
    Step.RETRYING: _retrying,
    Step.READY: _ready,
    Step.DRAINING: _rebooting,
    Step.ARMING: _rebooting,
    Step.REBOOTING: _rebooting,
    Step.CONFIRMING: _on_trial,
    Step.SOAKING: _on_trial,
    Step.ROLLING_BACK: _rebooting,
    Step.ACTING: _nothing,
}
