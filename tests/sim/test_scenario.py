"""Scenario files: what is right is read, what is wrong is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.fleet import ARCH, IMAGES, OS, demo_nodes
from sim.scenario import NoBoot, ScenarioError, parse_scenario, read_scenario


def test_defaults_make_a_fleet() -> None:
    scenario = parse_scenario("")
    assert (scenario.fleet.nodes, scenario.fleet.version, scenario.seed) == (12, "1.0.0", 1)
    assert scenario.digest_of("1.0.0") != scenario.digest_of("2.0.0")


def test_everything_that_the_page_shows_is_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sim.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0]
    scenario = parse_scenario(example)
    assert scenario.fleet.nodes == 200
    assert any(isinstance(fault, NoBoot) for fault in scenario.faults)
    kinds = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `") and "fault" not in line[:8]}
    for kind in ("no-boot", "checks-fail", "lies", "containers-move", "power-cut", "flapping"):
        assert kind in kinds


def test_the_scenario_beside_the_demo_fits_its_images_and_its_documented_token() -> None:
    docs = Path(__file__).parents[2] / "docs"
    scenario = read_scenario(docs / "scenarios" / "beside-the-demo.toml")
    assert (scenario.fleet.os, scenario.fleet.arch) == (OS, ARCH)
    assert scenario.fleet.version == IMAGES[0].version
    assert set(scenario.fleet.zones) == {node.labels["zone"] for node in demo_nodes(12)}
    never_boot = {image.version for image in IMAGES if image.boot != "ok"}
    assert {fault.version for fault in scenario.faults if isinstance(fault, NoBoot)} == never_boot
    assert f"--uses {scenario.fleet.nodes} " in (docs / "sim.md").read_text()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[fleet\n", "line 1"),
        ("[fleet]\nnodes = 0", "`fleet.nodes`"),
        ("[fleet]\nnodes = 50001", "`fleet.nodes`"),
        ("[fleet]\nnoses = 3", "`fleet`"),
        ("[[faults]]\nkind = 'no-such'", "`faults[0].kind`"),
        ("[[faults]]\nkind = 'no-boot'", "`faults[0]`"),
        ("[[faults]]\nkind = 'no-boot'\nversion = '1.0.0'", "`faults[0].version`"),
        ("[[faults]]\nkind = 'power-cut'\nat_s = 1\nzone = 'q'", "`faults[0].zone`"),
        ("[[faults]]\nkind = 'power-cut'\nat_s = 1\nnodes = [13]", "`faults[0].nodes`"),
        ("[[faults]]\nkind = 'power-cut'\nat_s = -1", "`faults[0].at_s`"),
        ("[[services]]\nname = 'x'\nzone = 'q'", "`services[0].zone`"),
        ("[[services]]\nname = 'x'\n[[services]]\nname = 'x'", "`services[1].name`"),
        ("[[services]]\nname = 'x'\nspread = 'thin'", "`services[0].spread`"),
        ("[durations]\nboot_s = [9, 3]", "`durations.boot_s`"),
        ("[durations]\nboot_s = [1, 2, 3]", "`durations.boot_s`"),
        ("[durations]\ndownload_mib_s = 0", "`durations.download_mib_s`"),
        ("[[images]]\nversion = '1'\ndigest = 'md5:1'", "`images[0].digest`"),
    ],
)
def test_what_is_wrong_is_named(content: str, named: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(content, "fleet.toml")
    assert str(caught.value).startswith("fleet.toml: ")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"no\.toml: No such file"):
        read_scenario(tmp_path / "no.toml")
    (tmp_path / "raw").write_bytes(b"\xff")
    with pytest.raises(ScenarioError, match="not UTF-8"):
        read_scenario(tmp_path / "raw")
