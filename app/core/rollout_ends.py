"""What the end of an operation means for its rollout, and when a rollout stops by itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.core.group_policy import Amount, GroupPolicy
from app.core.rollouts import RolloutNodeState
from wire.messages import Phase, Result

_DONE, _FAILED, _LEFT = RolloutNodeState.DONE, RolloutNodeState.FAILED, RolloutNodeState.LEFT

ENDS: dict[Result, RolloutNodeState] = {
    Result.SUCCEEDED: _DONE,
    Result.FELL_BACK: _FAILED,
    Result.NEVER_SWITCHED: _FAILED,
    Result.STAGE_FAILED: _FAILED,
    Result.UNHEALTHY: _FAILED,
    Result.TIMED_OUT: _FAILED,
    Result.UNKNOWN: _FAILED,
    # No judgement on the version (rule 6), but the node did not get there, and the next may not either.
    Result.UNREACHABLE: _FAILED,
    # These say nothing about the version (rule 4): the node is out, and nobody failed.
    Result.REFUSED: _LEFT,
    Result.CANCELLED: _LEFT,
}
"""How an operation ended → what its node is in the rollout."""

CALLED_BACK = "its order was called back"
"""What is said of a node whose order its rollout took back, until the node has answered: also where it had armed and
finishes, or gives its lease back after all."""

END_WORDS = {
    Result.REFUSED: "the node refused it",
    Result.CANCELLED: "it was cancelled, or another order took the node",
    Result.UNREACHABLE: "it went back because nothing could be reached, which says nothing about the version",
}


def nothing_attempted(result: Result, phase: Phase, *, asked: bool, had_lease: bool) -> bool:
    """Whether the deadline passed on a node that only waited for its lease: it had staged (or, with nothing to stage,
    had asked, idle as it is then) and was never given one, so its silence says nothing of the version.

    `asked`: for a lease, at any time. `had_lease`: at any time, used or not.
    """
    waited = phase is Phase.STAGED or (asked and phase is Phase.IDLE)
    return result is Result.TIMED_OUT and waited and not had_lease


@dataclass(frozen=True, slots=True)
class Tally:
    """A rollout's nodes as far as judging it goes; failures that an operator resumed over are forgiven."""

    attempted: int
    """Nodes that moved, whatever became of them."""
    failed: int
    canaries_failed: tuple[str, ...] = ()
    """Names."""
    canaries_refused: tuple[str, ...] = ()
    first_failure: str = ""
    """Name of a node that failed and how, for the text."""
    unreachable: int = 0
    """Of `failed`: went back because they could reach nobody, which may be the version's doing or anybody's."""
    canaries_unreachable: tuple[str, ...] = ()
    """Names."""


def failures_allowed(policy: GroupPolicy, attempted: int) -> int:
    """Most nodes that may fail before the rollout stops."""
    limit = policy.failure_limit
    if limit.share is None:
        return _count(limit)
    return max(limit.of(attempted), policy.failure_least - 1)


def stops(policy: GroupPolicy, tally: Tally) -> str | None:
    """Why the rollout has to stop, as a sentence; None while it may go on. A failed canary shuts the gate alone."""
    if tally.canaries_failed:
        return f"Canary {_names(tally.canaries_failed)} failed"
    if tally.canaries_refused:
        return f"Canary {_names(tally.canaries_refused)} refused it"
    if tally.canaries_unreachable:
        return f"Canary {_names(tally.canaries_unreachable)} went back because nothing could be reached"
    allowed = failures_allowed(policy, tally.attempted)
    if tally.failed <= allowed:
        return None
    example = f", the last: {tally.first_failure}" if tally.first_failure else ""
    unreachable = f" ({tally.unreachable} because nothing could be reached)" if tally.unreachable else ""
    nodes = "node" if tally.attempted == 1 else "nodes"
    return f"{tally.failed} of {tally.attempted} {nodes} failed{unreachable}, and {allowed} may{example}"


def blames_version(policy: GroupPolicy, tally: Tally) -> bool:
    """Whether it has to stop even without those that could reach nobody: only then others may be sent back by it."""
    known = replace(tally, failed=tally.failed - tally.unreachable, unreachable=0, canaries_unreachable=())
    return stops(policy, known) is not None


def _count(limit: Amount) -> int:
    assert limit.count is not None, "exactly one of count and share is set"
    return limit.count


def _names(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
