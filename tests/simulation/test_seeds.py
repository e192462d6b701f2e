"""Seeds of the simulation, for as long as the run allows; and that the judge sees what is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from sim.scenario import parse_scenario
from tests.sim.desk import START, Desk, desk
from tests.simulation.judge import Judge, RuleBroken
from tests.simulation.story import GroupPlan, Story

PROCESSES = 2
SEEDS = 120
"""The same ones each time, from 1 on; whoever has more time says so, and gets others."""
SECONDS = os.environ.get("TWINROOT_SEEDS_S", "")
"""How long to go on with seeds from FIRST on; empty: exactly SEEDS of them."""
FIRST = int(os.environ.get("TWINROOT_SEEDS_FROM", "1"))
_PATIENCE_S = 1800.0


def test_seeds_hold_all_rules() -> None:
    """In two processes; a seed that breaks a rule names the command that repeats it."""
    span = [f"--for={SECONDS}"] if SECONDS else [f"--for={_PATIENCE_S}", f"--most={SEEDS // PROCESSES}"]
    commands = [
        [sys.executable, "-m", "tests.simulation", f"--from={FIRST + place}", f"--step={PROCESSES}", *span]
        for place in range(PROCESSES)
    ]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands
    ]
    said = [process.communicate()[0] for process in running]
    assert not any(process.returncode for process in running), "\n".join(said)
    count = sum(int(found) for text in said for found in re.findall(r"^RAN (\d+)", text, re.MULTILINE))
    assert count >= (1 if SECONDS else SEEDS), f"only {count} seeds ran"


def _watched(replicas: int, nodes: int, most: int = 10) -> tuple[Desk, Judge]:
    """A fleet whose every request is granted at once, with a judge."""
    scenario = parse_scenario(
        f"[fleet]\nnodes = {nodes}\nzones = ['a']\n[[services]]\nname = 'api'\nreplicas = {replicas}\n"
    )
    story = Story(0, scenario, "2.0.0", [GroupPlan("all", "zone", "", most, 0, {})], [replicas - 1], [], 1, 60.0, 1.0)
    judge = Judge(story, lambda operation_id: "", lambda text: None)
    made = desk(f"[fleet]\nnodes = {nodes}\nzones = ['a']\n[[services]]\nname = 'api'\nreplicas = {replicas}\n", judge)
    judge.nodes = made.fleet.nodes
    for node in made.fleet.nodes:
        judge.records[node.spec.number].live_until = START + 10_000.0
        judge.granted(node.spec.number, made.now)
    return made, judge


def test_the_judge_sees_a_service_below_its_floor() -> None:
    made, _ = _watched(replicas=3, nodes=3)
    for node in made.fleet.nodes:
        made.update(node, "2.0.0")
    with pytest.raises(RuleBroken, match="leaves 1 of api, whose floor is 2"):
        made.run(300.0)


def test_the_judge_sees_a_group_beyond_its_budget() -> None:
    made, _ = _watched(replicas=2, nodes=6, most=2)
    idle = [node for node in made.fleet.nodes if not node.engine.held]
    for node in idle:
        made.update(node, "2.0.0")
    with pytest.raises(RuleBroken, match="number 3 of 2 that group all may miss"):
        made.run(300.0)


def test_the_judge_sees_a_reboot_without_a_lease() -> None:
    made, judge = _watched(replicas=2, nodes=3)
    (node, *_) = (node for node in made.fleet.nodes if not node.engine.held)
    judge.records[node.spec.number].live_until = 0.0
    made.update(node, "2.0.0")
    with pytest.raises(RuleBroken, match="arms slot B without a live lease"):
        made.run(300.0)


def test_the_judge_forgives_what_nobody_could_know() -> None:
    """One node lost its power a moment after the lease of another one was granted."""
    made, judge = _watched(replicas=3, nodes=3)
    first, second, _ = made.fleet.nodes
    made.update(first, "2.0.0")
    made.fleet.cut_power(second, made.now, 500.0)
    made.run(300.0)
    assert judge.reboots == 1


def test_the_judge_does_not_forgive_what_was_known() -> None:
    made, judge = _watched(replicas=3, nodes=3)
    first, second, _ = made.fleet.nodes
    made.fleet.cut_power(second, made.now, 500.0)
    judge.known(second, made.now, made.now)
    made.run(10.0)
    judge.granted(first.spec.number, made.now)
    made.update(first, "2.0.0")
    with pytest.raises(RuleBroken, match="leaves 1 of api"):
        made.run(300.0)
