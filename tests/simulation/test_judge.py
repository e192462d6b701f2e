"""The judge of the simulation sees what is wrong, and forgives what nobody could know."""

from __future__ import annotations

import pytest

from sim.node import SimNode
from sim.scenario import parse_scenario
from tests.sim.desk import SOAK_S, START, Desk, desk
from tests.simulation.gate import Patience, Soaked
from tests.simulation.judge import Judge, Keeps, Objection, RuleBroken
from tests.simulation.story import Gap, GroupPlan, Story

KEEP_S = 300.0


def _no_objection(number: int, operation_id: str, version: str, soaked: Soaked) -> str:
    return ""


def _nobody_keeps(rollout_id: str, operation_id: str, version: str) -> str:
    return ""


def _watched(
    replicas: int, nodes: int, most: int = 10, objection: Objection = _no_objection, keeps: Keeps = _nobody_keeps
) -> tuple[Desk, Judge]:
    """A fleet whose every request is granted at once, with a judge."""
    scenario = parse_scenario(
        f"[fleet]\nnodes = {nodes}\nzones = ['a']\n[[services]]\nname = 'api'\nreplicas = {replicas}\n"
    )
    policy = {"timing": {"soak_s": SOAK_S, "keep_way_back_s": KEEP_S}}
    group = GroupPlan("all", "zone", "", most, 0, policy)
    story = Story(0, scenario, "2.0.0", [group], [replicas - 1], [], 1, 60.0, 1.0)
    judge = Judge(story, lambda operation_id: "rollout", lambda text: None, objection, keeps)
    made = desk(f"[fleet]\nnodes = {nodes}\nzones = ['a']\n[[services]]\nname = 'api'\nreplicas = {replicas}\n", judge)
    judge.nodes = made.fleet.nodes
    for node in made.fleet.nodes:
        judge.known(node, made.now, made.now - 1.0)
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


@pytest.mark.parametrize("known", [False, True])
def test_the_judge_forgives_the_end_of_replicas_that_nobody_knew_of(known: bool) -> None:
    """A node lost its power with another one, and gets its lease before anybody knows that it serves again."""
    made, judge = _watched(replicas=2, nodes=2)
    first, second = made.fleet.nodes
    for node, off_s in ((first, 1.0), (second, 1000.0)):
        made.fleet.cut_power(node, made.now, off_s)
        judge.known(node, made.now, made.now)
    while not judge.healthy[0]:
        made.run(1.0)
    if known:
        judge.known(first, made.now, made.now)
    made.run(1.0)
    judge.granted(first.spec.number, made.now)
    judge.records[first.spec.number].live_until = made.now + 1000.0
    made.update(first, "2.0.0")
    if known:
        with pytest.raises(RuleBroken, match="leaves 0 of api, whose floor is 1"):
            made.run(300.0)
    else:
        made.run(300.0)
        assert judge.reboots == 1


def _idle(made: Desk) -> SimNode:
    """A node without a replica."""
    return next(node for node in made.fleet.nodes if not node.engine.held)


def test_power_excuses_only_what_a_node_was_at() -> None:
    made, judge = _watched(replicas=2, nodes=3)
    node = _idle(made)
    made.update(node, "2.0.0")
    made.run(KEEP_S + SOAK_S + 200.0)
    made.fleet.cut_power(node, made.now, 1.0)
    assert judge.struck == set(), "that was over before"
    made.run(60.0)
    made.update(node, "3.0.0")
    assert node.state.operation is not None
    at = node.state.operation.id
    made.fleet.cut_power(node, made.now, 1.0)
    assert judge.struck == {at}


def test_the_judge_sees_a_way_back_that_is_written_too_early() -> None:
    """The agent keeps it for as long as it was told; here it was told of no such time."""
    made, _ = _watched(replicas=2, nodes=3)
    made.update(_idle(made), "2.0.0")
    made.run(200.0)  # it has soaked
    with pytest.raises(RuleBroken, match=r"writes its way back .* has to keep it for 360 s"):
        made.update(_idle(made), "3.0.0")


def test_the_judge_sees_a_way_back_that_is_written_before_its_rollout_is_over() -> None:
    asked: list[tuple[str, str]] = []

    def keeps(rollout_id: str, operation_id: str, version: str) -> str:
        asked.append((rollout_id, version))
        return "its rollout is paused"

    made, judge = _watched(replicas=2, nodes=3, keeps=keeps)
    node = _idle(made)
    made.update(node, "2.0.0")
    made.run(KEEP_S + SOAK_S + 200.0)
    assert asked == [], "nothing had brought it to what it ran"
    judge.records[node.spec.number].live_until = made.now + 1000.0
    with pytest.raises(RuleBroken, match=r"writes its way back for 3\.0\.0, and its rollout is paused"):
        made.update(node, "3.0.0")
    assert asked == [("rollout", "3.0.0")]


def test_a_way_back_that_was_kept_may_be_written() -> None:
    made, judge = _watched(replicas=2, nodes=3)
    node = _idle(made)
    made.update(node, "2.0.0")
    made.run(KEEP_S + SOAK_S + 200.0)
    judge.records[node.spec.number].live_until = made.now + 1000.0
    made.update(node, "3.0.0")
    made.run(200.0)
    assert node.machine.running.version == "3.0.0"


def test_who_moves_while_something_objects_breaks_a_rule() -> None:
    made, _ = _watched(replicas=2, nodes=3, objection=lambda *_: "got its lease while the fleet was frozen")
    made.update(_idle(made), "2.0.0")
    with pytest.raises(RuleBroken, match=r"moves to 2\.0\.0 and got its lease while the fleet was frozen"):
        made.run(300.0)


def test_the_judge_knows_how_long_a_node_has_proved_a_version() -> None:
    seen: list[Soaked] = []

    def objection(number: int, operation_id: str, version: str, soaked: Soaked) -> str:
        seen.append(soaked)
        return ""

    made, _ = _watched(replicas=2, nodes=3, objection=objection)
    node = _idle(made)
    made.update(node, "2.0.0")
    made.run(300.0)
    number = node.spec.number
    assert seen[-1](number, "2.0.0", SOAK_S, made.now)
    assert not seen[-1](number, "2.0.0", SOAK_S, START + 10.0)
    assert not seen[-1](number, "3.0.0", SOAK_S, made.now)


def test_a_slot_that_nobody_confirmed_is_not_booted_by_a_power_cut() -> None:
    """What was armed under a lease stays armed, as if the agent had forgotten to take it back."""
    made, judge = _watched(replicas=2, nodes=3)
    node = _idle(made)
    made.update(node, "2.0.0")
    while node.machine.record.entry("B").digest is None:
        made.run(1.0)
    made.fleet.kill_agent(node, made.now)
    node.machine.arm("B")
    judge.records[node.spec.number].live_until = made.now - 60.0
    made.fleet.cut_power(node, made.now, 1.0)
    with pytest.raises(RuleBroken, match="boots slot B without a lease; A is confirmed"):
        made.run(100.0)


def test_a_wait_without_a_reason_is_seen_after_a_while() -> None:
    patience = Patience()
    said = [patience.look({"node 1": True} if round_ != 3 else {}, 20.0 * round_) for round_ in range(9)]
    assert said == [""] * 8 + ["node 1"]  # in round 3 it had one


def test_a_gap_leaves_the_rest_of_the_day_open() -> None:
    assert [(each["opens"], each["closes"]) for each in Gap(481, 483).windows] == [
        ("00:00", "08:01"),
        ("08:03", "00:00"),
    ]
