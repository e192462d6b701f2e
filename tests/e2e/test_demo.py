"""`twinroot demo`, as `make demo` runs it: a sign-in link, live nodes with services, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.local import LocalProcess, wait_until
from tests.e2e.operator_client import Operator

NODES = 3


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: container engines listen on sockets below it."""
    with tempfile.TemporaryDirectory(prefix="tr-demo-") as name:
        yield Path(name)


def test_a_fleet_that_can_be_updated_and_that_ctrl_c_ends(folder: Path) -> None:
    environ = {**os.environ, "TMPDIR": str(folder)}
    command = [sys.executable, "-m", "app.cli", "demo", "--nodes", str(NODES)]
    demo = LocalProcess("twinroot demo", command, folder / "demo.log", environ)
    demo.start()
    try:
        wait_until(lambda: "Ctrl-C" in demo.tail() or not demo.running, "the demo runs", timeout_s=120)
        link = re.search(r"(https?://\S+)/sign-in/\S+", demo.tail())
        assert link, demo.tail()
        operator = Operator(link.group(1), link.group(0))

        wait_until(lambda: all_alive(operator), "all nodes are alive with their services")
        versions = {name: row["version"] for name, row in operator.nodes().items()}
        assert versions == {"web-01": "1.0.0", "web-02": "1.0.0", "web-03": "1.0.0"}
        node_id = str(operator.nodes()["web-01"]["id"])
        operator.get(f"/nodes/{node_id}/update")
        offered = operator.visible_text()
        assert all(version in offered for version in ("1.1.0", "1.2.0", "1.3.0"))
        image_id = image_named(operator, f"/nodes/{node_id}/update", "1.1.0")
        operator.act(node_id, "update", image_id=image_id)
        assert operator.status == 200
        wait_until(lambda: operator.nodes()["web-01"]["version"] == "1.1.0", "the node boots the new version")
    finally:
        ended = demo.stop(signal.SIGINT)
    assert ended == 0, demo.tail()
    assert [path.name for path in folder.iterdir()] == ["demo.log"], "its folder is gone"
    assert processes_of(folder) == []


def all_alive(operator: Operator) -> bool:
    rows = operator.nodes()
    return len(rows) == NODES and all(
        row["connection"] == "online" and row["health"] == "healthy" and row["containers_running"]
        for row in rows.values()
    )


def image_named(operator: Operator, path: str, version: str) -> str:
    """The choice of a form that stands beside a version."""
    radio = rf'name="image_id" value="(\w+)"(?:(?!value=").)*?{re.escape(version)}'
    choice = re.search(radio, operator.get(path), re.DOTALL)
    assert choice, operator.visible_text()
    return choice.group(1)


def processes_of(folder: Path) -> list[str]:
    """Command lines that name the folder, or that were started with it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue  # it has just ended, or is somebody else's
        if str(folder).encode() in words:
            found.append((process / "cmdline").read_text().replace("\0", " "))
    return found
