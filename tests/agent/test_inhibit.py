"""Inhibitors: files that end with their time, their process, or their boot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.inhibit import Inhibitors


@pytest.fixture
def kept(tmp_path: Path) -> Inhibitors:
    return Inhibitors(tmp_path / "inhibitors", "boot-1")


def test_until_released(kept: Inhibitors) -> None:
    inhibitor = kept.add("backup  runs\n", by="ada")
    assert [found.why for found in kept.present(1e9)] == ["backup runs"]
    kept.release(inhibitor.id)
    assert kept.present(0.0) == []


def test_until_its_time_is_over(kept: Inhibitors) -> None:
    kept.add("backup", until_s=100.0)
    assert len(kept.present(99.9)) == 1 and kept.present(100.0) == []


def test_not_over_a_reboot(kept: Inhibitors) -> None:
    kept.add("backup")
    assert Inhibitors(kept.folder, "boot-2").present(0.0) == []


def test_not_longer_than_its_process(kept: Inhibitors) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        kept.add("backup", pid=process.pid)
        assert len(kept.present(0.0)) == 1
    finally:
        process.kill()
        process.communicate()
    assert kept.present(0.0) == []


def test_a_number_in_other_hands_does_not_count(kept: Inhibitors) -> None:
    inhibitor = kept.add("backup", pid=os.getpid())
    path = kept.folder / f"{inhibitor.id}.json"
    path.write_text(path.read_text().replace(inhibitor.pid_started, "1"))
    assert kept.present(0.0) == []


def test_a_file_that_cannot_be_read_inhibits(kept: Inhibitors) -> None:
    kept.add("backup")
    (kept.folder / "x.json").write_text("{")
    assert "x.json cannot be read" in [found.why for found in kept.present(0.0)]


@pytest.mark.parametrize("why", ["", "  \n", "x" * 201])
def test_a_reason_is_needed(kept: Inhibitors, why: str) -> None:
    with pytest.raises(AgentError, match="say why"):
        kept.add(why)
    assert not kept.folder.exists()


@pytest.mark.parametrize("name", ["../x", "deadbeef", ""])
def test_only_what_exists_is_released(kept: Inhibitors, name: str) -> None:
    with pytest.raises(AgentError):
        kept.release(name)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AgentError, match="file/inhibitors cannot be written"):
        Inhibitors(tmp_path / "file" / "inhibitors", "b").add("x")
