"""Saved snapshots: bad ones get one clear sentence, and `twinroot plan` needs no database."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import Invalid
from app.core.snapshot_file import dump, load
from tests.core.plan_fleets import node, service, snapshot

FLEET = snapshot([node("node-0", (0, 1)), node("node-1")], services=(service("db", 1, 1),))


def changed(*path: Any, to: Any) -> bytes:
    document = json.loads(dump(FLEET))
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = to
    return json.dumps(document).encode()


def windowed(**given: Any) -> bytes:
    window = {"days": [0], "opens": "22:00", "closes": "04:00", "zone": "Europe/Berlin"} | given
    return changed("snapshot", "groups", 0, "policy", "windows", to=[window])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no snapshot"),
        (b"\xff\xfe\x00", "is no snapshot"),
        (b"[1, 2]", "is no snapshot"),
        (b'{"snapshot": {}}', "is no snapshot of Twinroot."),
        (changed("version", to=2), "has version 2"),
        (changed("snapshot", "nodes", 0, "online", to="yes"), "online"),
        (changed("snapshot", "nodes", 0, "placements", to=[[7, 1]]), "service number 7 of 1"),
        (changed("snapshot", "nodes", 0, "placements", to=[[0, 1], [0, 1]]), "names a service twice"),
        (changed("snapshot", "nodes", 0, "placements", to=[[0, -1]]), "-1 replicas"),
        (changed("snapshot", "nodes", 0, "returning", to=[[7, 1]]), "service number 7 of 1"),
        (changed("snapshot", "nodes", 0, "placement_known", to=False), "that is not known"),
        (changed("snapshot", "nodes", 1, "groups", to=["nowhere"]), "in a group nowhere"),
        (changed("snapshot", "candidates", 0, "node", to=2), "node number 2 of 2"),
        (changed("snapshot", "candidates", 0, "rollout", to=-1), "rollout number -1"),
        (changed("snapshot", "now", to=1e18), "now is 1e+18, which is no time"),
        (changed("snapshot", "rollouts", 0, "created_at", to=-1.0), "is -1, which is no time"),
        (changed("snapshot", "rollouts", 0, "targets", 0, "created_at", to=1e300), "is 1e+300, which is no time"),
        (changed("snapshot", "candidates", 0, "since", to=1e300), "is 1e+300, which is no time"),
        (windowed(zone="Mars/Olympus"), "Mars/Olympus"),
        (windowed(opens="99:99"), "99:99"),
        (windowed(days=[7]), "a week has seven days"),
        (changed("snapshot", "groups", 0, "policy", "max_unavailable", to={"count": None, "share": None}), "policy of"),
        (changed("snapshot", "rollouts", 0, "policy", "timing", "soak_s", to=1e18), "seconds"),
    ],
)
def test_a_bad_file_says_what_is_wrong(content: bytes, says: str) -> None:
    with pytest.raises(Invalid) as found:
        load(content, "fleet.json")
    assert found.value.text.startswith("fleet.json ") and says in found.value.text
    assert "\n" not in found.value.text


def twinroot(*arguments: str, folder: Path, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """In a process without any setting, so that nothing but the file can be read."""
    command = [sys.executable, "-m", "app.cli", "plan", *arguments]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, input=content, capture_output=True, cwd=folder, env=environ, timeout=60)


def test_the_command_explains_a_file(tmp_path: Path) -> None:
    (tmp_path / "fleet.json").write_bytes(dump(FLEET))
    done = twinroot("--snapshot", "fleet.json", "--check", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"impossible: db has a single replica" in done.stdout
    assert b"The checker finds nothing wrong." in done.stdout
    assert twinroot("--snapshot", "-", folder=tmp_path, content=dump(FLEET)).returncode == 0
    assert [file.name for file in tmp_path.iterdir()] == ["fleet.json"]


def test_the_command_fails_in_one_line(tmp_path: Path) -> None:
    for done in (
        twinroot("--snapshot", "missing.json", folder=tmp_path),
        twinroot("--snapshot", "-", folder=tmp_path, content=b"{}"),
        twinroot(folder=tmp_path),
    ):
        assert done.returncode != 0
        assert done.stderr.startswith(b"twinroot: ") and done.stderr.count(b"\n") == 1
        assert not done.stdout
