from __future__ import annotations

import pytest

from app.core.bad_versions import Strictest, strictest
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
    assert strictest(list(enumerate(policies)), tried).enough == enough


def test_whose_limit_it_was() -> None:
    assert strictest([(7, limit(5)), (8, limit(1)), (9, limit(1))], 50) == Strictest(1, 8)
    assert Strictest(1, 8).words == "the failure limit of rollout 8 allows 1"
    assert Strictest(0, 8).words == "the failure limit of rollout 8 allows none"
    assert strictest([], 50).words == "the default failure limit allows 1"
