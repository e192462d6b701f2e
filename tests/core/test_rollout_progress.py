"""A node's progress now and at any moment of the past, and waves as rows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.rollout_progress import Band, Passage, Progress, bands, progress, progress_at, tally
from app.core.rollouts import RolloutNodeState

_S = RolloutNodeState


def test_the_way_of_a_node_is_replayed_from_its_times() -> None:
    way = Passage(_S.DONE, False, 10, ordered_at=20, staged_at=30, moving_at=40, confirmed_at=50, ended_at=60)
    reached = [progress_at(way, moment) for moment in (9, 10, 20, 30, 40, 50, 60, 99)]
    assert reached == [
        None,
        Progress.WAITING,
        Progress.STAGING,
        Progress.STAGED,
        Progress.MOVING,
        Progress.SOAKING,
        Progress.DONE,
        Progress.DONE,
    ]


def test_going_back_comes_after_the_end() -> None:
    way = Passage(_S.FAILED, False, 10, moving_at=40, ended_at=60, back_at=70, back_ended_at=80)
    assert [progress_at(way, moment) for moment in (60, 70, 80)] == [
        Progress.FAILED,
        Progress.GOING_BACK,
        Progress.BACK,
    ]


def test_held_is_what_is_not_ordered_for_a_reason() -> None:
    assert progress(Passage(_S.WAITING, True, 0)) is Progress.HELD
    assert progress(Passage(_S.WAITING, False, 0)) is Progress.WAITING
    assert progress(Passage(_S.ORDERED, True, 0, ordered_at=1)) is Progress.STAGING
    assert progress(Passage(_S.LEFT, True, 0, ended_at=1)) is Progress.LEFT


def test_a_tally_is_in_the_order_of_the_way_and_leaves_out_nothing_else() -> None:
    assert list(tally([Progress.DONE, Progress.WAITING, Progress.DONE]).items()) == [
        (Progress.WAITING, 1),
        (Progress.DONE, 2),
    ]


def test_canaries_stand_alone() -> None:
    assert bands([0, 1, 2, 3, 4], 3) == [Band(0, 0), Band(1, 2), Band(3, 4)]
    assert bands([], 3) == []


@given(st.sets(st.integers(0, 6000)), st.integers(2, 40))
def test_rows_of_waves_cover_each_wave_once_and_are_few(waves: set[int], most: int) -> None:
    numbers = sorted(waves)
    rows = bands(numbers, most)
    assert len(rows) <= most
    assert [number for row in rows for number in numbers if row.first <= number <= row.last] == numbers
