"""How nodes read: states, slot drawings, versions in order, the chart's bands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.fleet import NodeState, SlotMark, draw_slots, state_of
from app.core.share_chart import HEIGHT, WIDTH, shades, share_chart
from app.core.versions import in_order, version_key
from wire.messages import Slot


@pytest.mark.parametrize(
    ("admission", "connection", "trial", "health", "state"),
    [
        ("admitted", "online", False, "healthy", NodeState.HEALTHY),
        ("admitted", "online", False, "unknown", NodeState.UNKNOWN),
        ("admitted", "online", True, "degraded", NodeState.ON_TRIAL),
        ("admitted", "offline", True, "healthy", NodeState.OFFLINE),
        ("admitted", "never", False, "unknown", NodeState.OFFLINE),
        ("pending", "online", False, "healthy", NodeState.PENDING),
        ("retired", "online", True, "healthy", NodeState.RETIRED),
    ],
)
def test_state(admission: str, connection: str, trial: bool, health: str, state: NodeState) -> None:
    assert state_of(admission, connection, trial, health) is state


def drawn(*slots: Slot, phase: str = "idle", trial: bool = False) -> list[tuple[SlotMark, ...]]:
    return [drawing.marks for drawing in draw_slots(slots, phase, trial)]


def test_slot_drawings() -> None:
    booted = Slot(name="A", booted=True, next_boot=True, version="1", good=True)
    passive = Slot(name="B", booted=False, next_boot=False, version="2")
    armed = Slot(name="B", booted=False, next_boot=True, version="2")
    bad = Slot(name="B", booted=False, next_boot=False, version="2", good=False)
    empty = Slot(name="B", booted=False, next_boot=False)
    assert drawn(booted, passive) == [(SlotMark.BOOTED, SlotMark.NEXT), (SlotMark.KEPT,)]
    assert drawn(booted, passive, phase="staged")[1] == (SlotMark.STAGED,)
    assert drawn(booted, passive, trial=True)[0] == (SlotMark.TRIAL, SlotMark.NEXT)
    assert drawn(booted, armed)[1] == (SlotMark.NEXT,)
    assert drawn(booted, bad)[1] == (SlotMark.BAD,)
    assert drawn(booted, empty)[1] == (SlotMark.EMPTY,)
    assert draw_slots([bad], "idle", False)[0].words == "2 bad"


def test_versions_in_order() -> None:
    assert in_order({"4081.2.10", "4081.2.9", "2.0-rc1", "2.0", "2.0.1", "10"}) == [
        "2.0-rc1",
        "2.0",
        "2.0.1",
        "10",
        "4081.2.9",
        "4081.2.10",
    ]


@given(st.lists(st.text(max_size=12), min_size=3, max_size=3))
def test_version_keys_are_an_order(versions: list[str]) -> None:
    a, b, c = (version_key(version) for version in versions)
    assert (a <= b) or (b <= a)
    assert not (a <= b and b <= c) or a <= c


def test_shades_are_the_newest_first() -> None:
    found = shades({str(number) for number in range(1, 9)})
    assert found["8"] == 1
    assert found["4"] == 5
    assert found["3"] == found["1"] == 6


def test_chart_bands_fill_the_drawing_and_count_all_nodes() -> None:
    samples = [(float(at), version, nodes) for at in range(0, 100, 10) for version, nodes in (("1", 7), ("2", at))]
    chart = share_chart(samples, {"1": 3, "2": 6, "": 1}, now=100.0)
    assert chart is not None
    assert [(band.name, band.shade, band.nodes) for band in chart.bands] == [("2", 1, 6), ("1", 2, 3)]
    points = [point.split(",") for band in chart.bands for point in band.points.split()]
    assert {x for x, _ in points} >= {"0.0", f"{WIDTH:.1f}"}
    assert all(0 <= float(y) <= HEIGHT for _, y in points)


def test_no_chart_without_a_past() -> None:
    assert share_chart([], {"1": 3}, now=100.0) is None
    assert share_chart([(1.0, "1", 0)], {}, now=100.0) is None


@given(st.lists(st.tuples(st.floats(0, 99), st.sampled_from("abcdefgh"), st.integers(0, 50)), min_size=1, max_size=300))
def test_any_samples_can_be_drawn(samples: list[tuple[float, str, int]]) -> None:
    chart = share_chart(sorted(samples), {"a": 1}, now=100.0)
    assert chart is not None
    assert len(chart.bands) <= 6
