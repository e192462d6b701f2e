"""What an installed node is given: the example configuration says the truth, and systemd takes the unit."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from agent.config import DEFAULT_FILE, DEFAULT_RUN, DEFAULT_STATE, Config, load

DEPLOY = Path(__file__).parents[2] / "deploy"


def values(config: Config) -> dict[str, object]:
    return {field: getattr(config, field) for field in msgspec.structs.asdict(config)}


def test_the_example_loads_and_its_comments_are_the_defaults(tmp_path: Path) -> None:
    text = (DEPLOY / "agent.toml").read_text()
    everything = tmp_path / "everything.toml"
    everything.write_text(re.sub(r"(?m)^#(?=[a-z_]+ = |\[)", "", text))
    as_written, uncommented = values(load(DEPLOY / "agent.toml")), values(load(everything))
    assert uncommented.pop("labels") == {"site": "hall-3"}
    as_written.pop("labels")
    rauc = uncommented.pop("rauc")
    assert msgspec.structs.replace(rauc, bus_address=None) == as_written.pop("rauc")  # type: ignore[type-var]
    assert uncommented == as_written


def test_the_unit_gives_the_agent_its_folders() -> None:
    unit = (DEPLOY / "twinroot-agent.service").read_text()
    assert Path("/var/lib") / setting(unit, "StateDirectory") == DEFAULT_STATE
    assert Path("/run") / setting(unit, "RuntimeDirectory") == DEFAULT_RUN
    assert DEFAULT_FILE.parent == Path("/etc") / setting(unit, "ConfigurationDirectory")


def setting(unit: str, key: str) -> str:
    found = re.search(rf"(?m)^{key}=(.+)$", unit)
    assert found is not None
    return found[1]


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = (DEPLOY / "twinroot-agent.service").read_text()
    copy = tmp_path / "twinroot-agent.service"
    copy.write_text(unit.replace("/usr/bin/twinroot-agent", shutil.which("true") or "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    # It may also complain of the machine's own units, which are none of ours.
    assert (done.returncode, "twinroot" in done.stderr) == (0, False), done.stderr
