"""A rollout's life: every state and move, and the table in the documentation."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from app.core.errors import NotPossible
from app.core.rollouts import MOVES, TERMINAL, Move, RolloutState, move, possible_moves

DOCS = Path(__file__).parents[2] / "docs" / "rollouts.md"


@pytest.mark.parametrize(("state", "by"), list(itertools.product(RolloutState, Move)))
def test_every_state_and_move(state: RolloutState, by: Move) -> None:
    if (state, by) in MOVES:
        assert move(state, by) is MOVES[state, by]
        assert by in possible_moves(state)
        return
    with pytest.raises(NotPossible) as refused:
        move(state, by)
    assert refused.value.code == "illegal-move"
    assert state.value.replace("-", " ") in refused.value.text
    assert by not in possible_moves(state)


def test_terminal_is_terminal() -> None:
    assert {state for state in RolloutState if not possible_moves(state)} == TERMINAL


def test_everything_but_a_draft_and_an_end_can_be_rolled_back_or_is_going_back() -> None:
    going = set(RolloutState) - TERMINAL - {RolloutState.DRAFT, RolloutState.ROLLING_BACK}
    assert all(Move.ROLL_BACK in possible_moves(state) for state in going)


def test_the_table_in_the_docs_is_the_table() -> None:
    rows = re.findall(r"^\| ([a-z-]+) \| ([a-z-]+) \| ([a-z-]+) \|$", DOCS.read_text(encoding="utf-8"), re.M)
    assert [row for row in rows if row[0] != "state"] == [
        (state.value, by.value, after.value) for (state, by), after in MOVES.items()
    ]
