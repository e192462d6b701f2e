"""When a version that failed on nodes is bad everywhere (rule 5): the one place that says so. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from app.core.group_policy import GroupPolicy
from app.core.rollout_ends import failures_allowed

LEAST_NODES = 2
"""A version that failed on one node may be that node's fault."""


def enough_failures(policies: Iterable[GroupPolicy], tried: int) -> int:
    """Different nodes on which a version has to have failed to be bad everywhere: more than the strictest failure limit
    allows under which rollouts led to it, and at least two.

    `policies`: of the rollouts to it that were started, however they went; without any, as when only single nodes were
    ordered to it, the defaults. `tried`: nodes anywhere that run it or on which it failed; shares are of these.
    """
    allowed = [failures_allowed(policy, tried) for policy in policies] or [failures_allowed(GroupPolicy(), tried)]
    return max(LEAST_NODES, min(allowed) + 1)
