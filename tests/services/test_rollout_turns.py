"""One failure domain after another: who cannot move any more keeps nobody's turn, and is named."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import update

from app.config import Settings
from app.core.group_policy import Amount
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import rollouts as service
from app.store import rollouts, schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import OPERATOR
from tests.services.rollout_world import QUICK, World
from tests.services.test_rollout_breaks import offline
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import Phase

pytestmark = ON_SQLITE

IN_TURN = replace(
    QUICK,
    canaries=Amount(count=0),
    failure_limit=Amount(count=3),
    max_unavailable=Amount(count=3),
    domain_label="zone",
    one_domain_after_another=True,
)


def zones(world: World) -> None:
    for name, zone in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        world.join(name, {"role": "web", "zone": zone})


def passed_over(world: World, rollout_id: str) -> list[str]:
    with world.db.read() as conn:
        return rollouts.texts_of(conn, rollout_id, "passed-over")


def test_a_node_that_is_lost_while_it_soaks_keeps_no_turn(database: Database, settings: Settings) -> None:
    world = World(database, settings, 0, replace(IN_TURN, timing=replace(IN_TURN.timing, soak_s=86_400.0)))
    zones(world)
    rollout_id = begin(world)
    world.run_until(lambda: all(world.nodes[name].phase is Phase.SOAKING for name in ("a1", "a2")))
    for name in ("a1", "a2"):
        world.nodes[name].silent = True
    offline(world, ["a1", "a2"])
    for _ in range(3):
        world.tick()
    assert world.states(rollout_id)["b1"] is RolloutNodeState.ORDERED, "it is the turn of zone a"
    with database.write() as change:
        gone = schema.nodes.c.name.in_(("a1", "a2"))
        change.conn.execute(update(schema.nodes).where(gone).values(lost_at=world.now))
        change.touch("nodes")
    world.run_until(lambda: world.nodes["b1"].boots == 2, ticks=8)


def test_a_domain_whose_nodes_are_away_is_passed_over_and_named_once(database: Database, settings: Settings) -> None:
    world = World(database, settings, 0, IN_TURN)
    zones(world)
    rollout_id = begin(world)
    for name in ("a1", "a2"):
        world.nodes[name].silent = True
    offline(world, ["a1", "a2"])
    world.run_until(lambda: world.nodes["b1"].boots == 2)
    for _ in range(3):
        world.tick()
    (text,) = passed_over(world, rollout_id)
    assert text == "zone a is passed over: a1 waits (is not connected; it goes on when it is back), and so do 1 more"
    for name in ("a1", "a2"):
        world.wake(name)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"2.0"}
    assert len(passed_over(world, rollout_id)) == 1


def test_nobody_is_passed_over_who_waits_for_its_turn(database: Database, settings: Settings) -> None:
    world = World(database, settings, 0, IN_TURN)
    zones(world)
    rollout_id = begin(world)
    world.run_until(lambda: world.nodes["a1"].boots == 2)
    late = world.join("a0", {"role": "web", "zone": "A"})  # comes first by name, and came late
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert late.version == "2.0" and passed_over(world, rollout_id) == []


def test_a_paused_rollout_passes_nobody_over(database: Database, settings: Settings) -> None:
    world = World(database, settings, 0, IN_TURN)
    zones(world)
    rollout_id = begin(world)
    world.run_until(lambda: world.nodes["a1"].boots == 2)
    service.pause(database, OPERATOR, rollout_id, "", world.now)
    for _ in range(3):
        world.tick()
    assert passed_over(world, rollout_id) == []


def test_a_domain_whose_nodes_keep_their_way_back_keeps_no_turn(database: Database, settings: Settings) -> None:
    world = World(database, settings, 0, IN_TURN)
    zones(world)
    with database.write() as change:
        world.images["3.0"] = kit.add_image(change.conn, "3.0")
    older = begin(world)
    world.run_until(lambda: all(world.states(older)[name] is RolloutNodeState.DONE for name in ("a1", "a2")))
    service.pause(database, OPERATOR, older, "lunch", world.now)
    newer = begin(world, version="3.0")
    world.run_until(lambda: world.versions()["b1"] == "3.0")
    assert {world.versions()[name] for name in ("a1", "a2")} == {"2.0"}
    assert world.rollout(older).state is RolloutState.PAUSED
    (text,) = passed_over(world, newer)
    assert text.startswith("zone a is passed over: a1 waits (keeps its way back for rollout")
