"""What a rollout's history says of its nodes when it is stopped: who moved did move, and many alike are one line."""

from __future__ import annotations

from dataclasses import replace

from app.config import Settings
from app.core.group_policy import Amount
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import nodes
from app.services import rollouts as service
from app.store import rollouts
from app.store.database import Database
from tests.server_kit import OPERATOR
from tests.services.rollout_world import QUICK, World
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import Phase

LEFT = RolloutNodeState.LEFT


def lines(world: World, rollout_id: str, kind: str) -> list[str]:
    """Of its history, oldest first."""
    with world.db.read() as conn:
        return [event.text for event in reversed(rollouts.events(conn, rollout_id)) if event.kind == kind]


@ON_SQLITE
def test_who_soaks_when_it_is_rolled_back_goes_back_and_did_not_stay(database: Database, settings: Settings) -> None:
    world = World(database, settings, 5, replace(QUICK, canaries=Amount(count=0)))
    rollout_id = begin(world)
    world.run_until(lambda: sum(node.phase is Phase.SOAKING for node in world.nodes.values()) == 2)
    soaking = {name for name, node in world.nodes.items() if node.phase is Phase.SOAKING}
    service.roll_back(database, OPERATOR, rollout_id, "it is slow", world.now)
    world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    rows = world.rows(rollout_id)
    assert {name for name, row in rows.items() if row.back_ended_at is not None} == soaking
    assert {rows[name].text for name in soaking} == {"it was sent back before it had soaked"}
    assert {rows[name].text for name in rows.keys() - soaking} == {"rollout 1 was stopped before it moved"}
    assert lines(world, rollout_id, "node-left") == []
    assert lines(world, rollout_id, "stayed") == ["3 nodes left: rollout 1 was stopped before they moved"]


@ON_SQLITE
def test_who_another_order_takes_from_its_soak_after_an_abort_had_moved(database: Database, settings: Settings) -> None:
    world = World(database, settings, 1, replace(QUICK, canaries=Amount(count=0)))
    rollout_id = begin(world)
    node = world.nodes["n0"]
    world.run_until(lambda: node.phase is Phase.SOAKING)
    service.abort(database, OPERATOR, rollout_id, "no", world.now)
    nodes.roll_back(database, OPERATOR, node.id, "slow", world.now)
    world.run_until(lambda: world.states(rollout_id)["n0"] is LEFT)
    assert "was stopped before it moved" not in world.rows(rollout_id)["n0"].text
    assert lines(world, rollout_id, "stayed") == []
    [told] = lines(world, rollout_id, "node-left")
    assert told.startswith("n0 left: it was cancelled, or another order took the node")


@ON_SQLITE
def test_the_line_counts_on_while_nodes_answer_one_by_one(database: Database, settings: Settings) -> None:
    """Who is not heard when it is aborted leaves later, and the line is still one."""
    world = World(database, settings, 4, replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=1)))
    rollout_id = begin(world)
    world.run_until(lambda: any(node.phase is Phase.SOAKING for node in world.nodes.values()))
    quiet = next(node for node in world.nodes.values() if node.phase is Phase.STAGED)
    quiet.silent = True
    finishing = {one.name for one in service.abort(database, OPERATOR, rollout_id, "no", world.now)}
    world.tick()
    world.tick()
    first = lines(world, rollout_id, "stayed")
    quiet.silent = False
    world.run_until(lambda: world.states(rollout_id)[quiet.name] is LEFT)
    stayed = 4 - len(finishing)
    assert first == [f"{stayed - 1} nodes left: rollout 1 was stopped before they moved"]
    assert lines(world, rollout_id, "stayed") == [f"{stayed} nodes left: rollout 1 was stopped before they moved"]


@ON_SQLITE
def test_many_that_leave_for_one_reason_are_one_line_and_few_are_named(database: Database, settings: Settings) -> None:
    world = World(database, settings, 8, replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=1)))
    rollout_id = begin(world)
    for name in ("n0", "n1", "n2", "n3"):
        nodes.relabel(database, OPERATOR, world.nodes[name].id, {"role": "db"}, "moved", world.now)
    world.tick(1)
    assert lines(world, rollout_id, "node-left") == ["4 nodes left, each because it left the group, or the fleet"]
    nodes.relabel(database, OPERATOR, world.nodes["n7"].id, {"role": "db"}, "moved", world.now)
    world.tick(1)
    assert lines(world, rollout_id, "node-left")[1:] == ["n7 left: it left the group, or the fleet"]
