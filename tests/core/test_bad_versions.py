from __future__ import annotations

import pytest

from app.core.bad_versions import enough_failures
from app.core.group_policy import Amount, GroupPolicy


def limit(count: int | None = None, share: float | None = None) -> GroupPolicy:
    return GroupPolicy(failure_limit=Amount(count, share), failure_least=2)


@pytest.mark.parametrize(
    ("policies", "tried", "enough"),
    [
        ([], 1, 2),  # only single orders: as the defaults have it
        ([], 1000, 2),
        ([limit(0)], 50, 2),  # one node alone may be at fault itself
        ([limit(1)], 50, 2),
        ([limit(5)], 50, 6),
        ([limit(5), limit(1), limit(9)], 50, 2),  # the strictest
        ([limit(share=0.1)], 5, 2),
        ([limit(share=0.1)], 50, 6),
        ([limit(share=0.1), limit(share=0.05)], 1000, 51),
        ([limit(share=0.1), limit(20)], 1000, 21),
    ],
)
def test_how_many_nodes_are_enough(policies: list[GroupPolicy], tried: int, enough: int) -> None:
    assert enough_failures(policies, tried) == enough
