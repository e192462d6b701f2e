from __future__ import annotations

from app.core.freezes import Freeze, freeze_hold
from app.core.holds import HoldCode


def freeze(starts_at: float, ends_at: float | None, group_id: str | None = None, **given: float) -> Freeze:
    name = "edge" if group_id is not None else ""
    return Freeze(f"freeze_{starts_at}", group_id, name, "mb", "Black Friday", starts_at, ends_at, **given)  # type: ignore[arg-type]


def test_a_freeze_holds_from_its_start_to_before_its_end() -> None:
    one = freeze(10, 20)
    assert [one.holds_at(now) for now in (9.9, 10, 19.9, 20)] == [False, True, True, False]
    assert freeze(10, None).holds_at(1e12)
    assert not freeze(10, None, lifted_at=15).holds_at(12)


def test_the_hold_says_who_and_why() -> None:
    hold = freeze_hold([freeze(10, 20, "group_1")], ["group_0", "group_1"], 15)
    assert hold is not None
    assert (hold.code, hold.subject, hold.until) == (HoldCode.FREEZE, "group_1", 20)
    assert hold.text == "group “edge” is frozen by mb: “Black Friday”"


def test_a_freeze_of_the_fleet_holds_every_group_and_nodes_in_none() -> None:
    for groups in (["group_1"], []):
        hold = freeze_hold([freeze(10, None)], groups, 15)
        assert hold is not None and hold.text.startswith("the whole fleet is frozen") and hold.until is None


def test_other_groups_are_not_held() -> None:
    assert freeze_hold([freeze(10, 20, "group_1")], ["group_2"], 15) is None


def test_overlapping_freezes_hold_until_the_last_is_over() -> None:
    every = [freeze(10, 20), freeze(15, 30, "group_1"), freeze(30, 40), freeze(41, 50), freeze(12, 99, "group_2")]
    hold = freeze_hold(every, ["group_1"], 16)
    assert hold is not None and hold.until == 40
    assert hold.subject == "group_1"  # of those that hold now it lasts longest
    before = freeze_hold(every, [], 16)
    assert before is not None and before.until == 20
    assert freeze_hold(every, ["group_1"], 40) is None


def test_one_without_an_end_later_on_leaves_the_end_open() -> None:
    hold = freeze_hold([freeze(10, 20), freeze(20, None)], [], 15)
    assert hold is not None and hold.until is None
