"""Many simulated nodes: places of replicas, what happens to a fleet, the same seed the same run."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import pytest

from agent.phases.model import Step
from sim.dice import Dice
from sim.population import place, specs_of
from sim.scenario import ScenarioError, parse_scenario
from sim.simulated import SimFleet
from tests.sim.desk import START, desk
from wire.messages import Result

SERVICES = """
[[services]]
name = "api"
replicas = 6
[[services]]
name = "log"
per_node = true
[[services]]
name = "db"
replicas = 2
zone = "b"
spread = "pack"
"""


def test_replicas_are_placed_where_the_scenario_says() -> None:
    scenario = parse_scenario(SERVICES + "[fleet]\nnodes = 9\n")
    specs = specs_of(scenario)
    placed = place(scenario, specs)
    homes = {name: [spec for spec, held in zip(specs, placed, strict=True) for each in held if each.service == index]
             for index, name in enumerate(("api", "log", "db"))}  # fmt: skip
    assert len(homes["api"]) == len({spec.name for spec in homes["api"]}) == 6
    assert len(homes["log"]) == 9
    assert [spec.zone for spec in homes["db"]] == ["b", "b"]


def test_zones_take_turns() -> None:
    scenario = parse_scenario("[fleet]\nnodes = 30\n[[services]]\nname = 'api'\nreplicas = 9\nspread = 'zones'")
    specs = specs_of(scenario)
    zones = [spec.zone for spec, held in zip(specs, place(scenario, specs), strict=True) if held]
    assert Counter(zones) == {"a": 3, "b": 3, "c": 3}


def test_a_service_that_does_not_fit_is_an_error() -> None:
    scenario = parse_scenario("[fleet]\nnodes = 2\n[[services]]\nname = 'api'\nreplicas = 3")
    with pytest.raises(ScenarioError, match=r"3 replicas of api do not fit on 2 nodes - at `services\[0\]`"):
        SimFleet(scenario, START)


def _transcript(seed: int) -> list[tuple[float, int, str]]:
    faults = "[[faults]]\nkind = 'agent-dies'\nper_hour = 60\n[[faults]]\nkind = 'containers-move'\nper_hour = 60\n"
    made = desk(f"seed = {seed}\n{SERVICES}{faults}[fleet]\nnodes = 9\n")
    for node in made.fleet.nodes:
        made.update(node, "2.0.0")
    made.run(1200.0)
    return made.transcript


def test_the_same_seed_gives_the_same_run() -> None:
    assert _transcript(1) == _transcript(1)
    assert _transcript(1) != _transcript(2)


def test_containers_move_without_a_gap() -> None:
    made = desk("[[services]]\nname = 'api'\nreplicas = 3\n[fleet]\nnodes = 6\n")
    before = [len(node.engine.held) for node in made.fleet.nodes]
    origin = before.index(1)
    made.fleet.move(origin, made.now)
    assert sum(len(node.engine.held) for node in made.fleet.nodes) == 4, "the new one starts beside the old one"
    assert made.fleet.watch.healthy == [3]
    made.run(30.0)
    assert made.fleet.watch.healthy == [3]
    assert not made.fleet.nodes[origin].engine.held
    assert sum(len(node.engine.held) for node in made.fleet.nodes) == 3


def test_a_container_stays_when_its_goal_goes_down() -> None:
    made = desk("[[services]]\nname = 'api'\nreplicas = 1\n[fleet]\nnodes = 2\n")
    origin = [len(node.engine.held) for node in made.fleet.nodes].index(1)
    made.fleet.move(origin, made.now)
    made.fleet.cut_power(made.fleet.nodes[1 - origin], made.now, 100.0)
    made.run(60.0)
    assert len(made.fleet.nodes[origin].engine.held) == 1
    assert made.fleet.watch.healthy == [1]


def test_a_power_cut_takes_one_zone() -> None:
    made = desk("[[faults]]\nkind = 'power-cut'\nat_s = 60\nfor_s = 10\nzone = 'b'\n[fleet]\nnodes = 6\n")
    made.run(60.0)
    assert [node.up for node in made.fleet.nodes] == [True, False, True] * 2
    made.run(60.0)
    assert [node.machine.boots for node in made.fleet.nodes] == [1, 2, 1] * 2
    assert all(node.linked for node in made.fleet.nodes)


def test_agents_die_and_come_back() -> None:
    made = desk("[[faults]]\nkind = 'agent-dies'\nper_hour = 3600\n[fleet]\nnodes = 3\n")
    starts = 0
    for _ in range(60):
        before = [node.alive for node in made.fleet.nodes]
        made.run(1.0)
        starts += sum(
            now and not then for then, now in zip(before, (node.alive for node in made.fleet.nodes), strict=True)
        )
    assert starts > 5
    assert all(node.machine.boots == 1 for node in made.fleet.nodes), "the machines stayed up"


def test_an_idle_node_costs_no_time_and_little_memory() -> None:
    tracemalloc.start()
    made = desk("[[services]]\nname = 'log'\nper_node = true\n[fleet]\nnodes = 300\n")
    current, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert current / 300 < 30 * 1024
    assert all(node.state.step is Step.IDLE for node in made.fleet.nodes)
    assert made.fleet.next_at == float("inf"), "nothing happens by itself"


def test_half_of_a_fleet_fails_by_share() -> None:
    made = desk("[[faults]]\nkind = 'no-boot'\nversion = '2.0.0'\nshare = 0.5\n[fleet]\nnodes = 60\n")
    for node in made.fleet.nodes:
        made.update(node, "2.0.0")
    made.run(600.0)
    results = Counter(made.result(node).result for node in made.fleet.nodes)
    assert set(results) == {Result.SUCCEEDED, Result.FELL_BACK}
    assert 15 < results[Result.FELL_BACK] < 45


def test_dice_are_even() -> None:
    dice = Dice("seed")
    thrown = Counter(dice.below(6) for _ in range(6000))
    assert all(800 < count < 1200 for count in thrown.values())
    assert all(0.0 <= dice.chance() < 1.0 for _ in range(1000))
