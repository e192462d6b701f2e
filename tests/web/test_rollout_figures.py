"""How fast a rollout goes, and what its range is counted with."""

from __future__ import annotations

import pytest

from app.core.estimate import Estimate
from app.core.rollouts import RolloutState
from app.core.snapshot import MoveTimes
from app.store.rollout_counts import Through
from app.store.rollout_taken import Lent
from app.web.rollout_outlook import lent_words
from app.web.rollout_rate import rate_of
from app.web.rollout_words import basis_words

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("seen", "words", "caption"),
    [
        (Through(0, None, None), "", "nothing through yet"),
        (Through(0, NOW - 20, None), "", "nothing through yet"),
        (Through(0, NOW - 9000, None), "", "nothing through yet"),
        (Through(0, NOW - 9000, NOW - 4000), "", "nothing through in the last hour"),
        (Through(2, NOW - 60, NOW), "", "too early for a rate"),
        (Through(3, NOW - 60, NOW - 60), "", "too early for a rate"),
        (Through(8, NOW - 120, NOW), "4 a minute", "rate of the last 2 min"),
        (Through(8, NOW - 125, NOW - 5), "4 a minute", "rate of the last 2 min"),
        (Through(8, NOW - 255, NOW - 135), "2 a minute", "rate of the last 4 min"),
        (Through(2, NOW - 9000, NOW - 600), "2 an hour", "rate of the last hour"),
    ],
)
def test_a_rate_is_of_the_time_in_which_it_went(seen: Through, words: str, caption: str) -> None:
    """It does not fall while the next one is not due, and does when it should have been through."""
    found = rate_of(seen, NOW)
    assert (found.words, found.caption) == (words, caption)


def test_a_range_says_what_it_is_counted_with() -> None:
    assert basis_words(Estimate(0.0, 0.0)) == ""
    assert "deadlines" in basis_words(Estimate(60.0, 9000.0))
    one = basis_words(Estimate(60.0, 90.0, moved=MoveTimes(1, 12.0, 12.0)))
    assert one == "The range is counted with the one node that has moved so far, in 12 s."
    some = basis_words(Estimate(60.0, 90.0, moved=MoveTimes(1200, 12.0, 75.0)))
    assert some == "The range is counted with the 1,200 nodes that have moved so far, in 12 s to 1 min each."


def test_of_lent_nodes_it_says_which_rollout_has_stopped_with_them() -> None:
    lent = [Lent(2, RolloutState.RUNNING, 1), Lent(3, RolloutState.PAUSED, 4), Lent(4, RolloutState.HALTED, 1)]
    said = "1 with rollout 2, 4 with rollout 3, which is paused, 1 with rollout 4, which has been halted"
    assert lent_words(lent) == f"Of its nodes: {said}. Those that are not moved there come in again."
