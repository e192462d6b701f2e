"""When a version that failed on nodes is bad everywhere (rule 5): the one place that says so. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.core.group_policy import GroupPolicy
from app.core.rollout_ends import failures_allowed

LEAST_NODES = 2
"""A version that failed on one node may be that node's fault."""


@dataclass(frozen=True, slots=True)
class Strictest:
    """How many nodes a version may fail on, and the number of the rollout that says so; None: the default does."""

    allowed: int
    rollout: int | None

    @property
    def enough(self) -> int:
        """Different nodes on which a version has to have failed to be bad everywhere."""
        return max(LEAST_NODES, self.allowed + 1)

    @property
    def words(self) -> str:
        whose = "the default failure limit" if self.rollout is None else f"the failure limit of rollout {self.rollout}"
        return f"{whose} allows {self.allowed:,}" if self.allowed else f"{whose} allows none"


def strictest(policies: Iterable[tuple[int, GroupPolicy]], tried: int) -> Strictest:
    """The strictest failure limit under which rollouts lead to a version.

    `policies`: with their numbers, of the rollouts to it that are under way or in which a node failed; without any, as
    when only single nodes were ordered to it, the defaults hold. `tried`: nodes anywhere that run it or on which it
    failed; shares are of these.
    """
    allowed = [(failures_allowed(policy, tried), number) for number, policy in policies]
    return Strictest(*min(allowed)) if allowed else Strictest(failures_allowed(GroupPolicy(), tried), None)
