"""The runner of the benchmarks, on benchmarks that measure nothing."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.__main__ import FIGURES, main, measure

MET = {"name": "fake-ratio", "value": 0.7, "unit": "ratio", "goal": ">= 0.5", "met": True}
MISSED = MET | {"name": "fake-ms", "value": 900, "unit": "ms", "goal": "<= 500", "met": False}


def cannot_run() -> list[dict[str, object]]:
    raise RuntimeError("there is no database here")


def rows(results: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in results.read_text().splitlines()]


def test_an_unknown_figure_ends_with_2_and_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-figure"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "there is no figure no-such-figure" in said.err and "live-pages-cpu" in said.err


def test_each_figure_has_its_module() -> None:
    assert [module for module in FIGURES.values() if find_spec(f"bench.{module}") is None] == []


def test_a_figure_is_a_line_and_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.jsonl"
    assert measure({"fake": lambda: [MET]}, results) == 0
    line = capsys.readouterr().out
    assert line.split() == ["fake-ratio", "0.7", "ratio", "goal", ">=", "0.5", "met"]
    [row] = rows(results)
    assert {name: row[name] for name in MET} == MET
    assert list(row) == ["name", "value", "unit", "goal", "met", "commit", "machine"]
    assert row["commit"] and "cores" in str(row["machine"])


def test_rows_are_added_to_those_of_earlier_runs(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    for _ in range(2):
        measure({"fake": lambda: [MET]}, results)
    assert len(rows(results)) == 2


def test_a_missed_goal_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure({"fake": lambda: [MISSED, MET]}, tmp_path / "results.jsonl") == 1
    assert "MISSED" in capsys.readouterr().out


def test_one_that_cannot_run_says_so_and_the_others_still_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.jsonl"
    assert measure({"broken": cannot_run, "fake": lambda: [MISSED]}, results) == 2
    assert [row["name"] for row in rows(results)] == ["fake-ms"]
    said = capsys.readouterr().err
    assert "bench: broken could not run" in said and "there is no database here" in said
