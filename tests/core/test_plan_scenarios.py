"""Plans of situations that a person can read, line by line; see tests/core/plan_scenarios.py for how to renew them."""

from __future__ import annotations

import pytest

from app.core import snapshot_file
from app.core.plan_check import check
from app.core.plan_text import render
from app.core.planner import plan
from tests.core.plan_scenarios import FOLDER, SCENARIOS, text_of


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_plan_reads_as_before(name: str) -> None:
    assert text_of(name) == (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_plan_passes_the_checker(name: str) -> None:
    snapshot = SCENARIOS[name]()
    assert check(plan(snapshot), snapshot) == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_saved_snapshot_is_planned_alike(name: str) -> None:
    snapshot = SCENARIOS[name]()
    again = snapshot_file.load(snapshot_file.dump(snapshot))
    assert again == snapshot
    assert render(plan(again), again) == render(plan(snapshot), snapshot)


def test_no_text_is_left_of_a_scenario_that_is_gone() -> None:
    assert {file.stem for file in FOLDER.glob("*.txt")} == set(SCENARIOS)
