"""Back is back: what undoes a way back leads forth, and is composed; a group goes back once, its updates with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.config import Settings
from app.core.errors import NotPossible
from app.core.group_policy import Amount
from app.core.policy_json import policy_to_builtins
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import rollouts as service
from app.services.group_way_back import way_back_of_group
from app.services.rollout_reverse import reverse, reverse_group
from app.store import failed_versions
from app.store.database import Database
from tests import server_kit as kit
from tests.rollout_kit import add_group
from tests.server_kit import OPERATOR, digest_of
from tests.services.rollout_world import QUICK, Mood, World
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import Phase

pytestmark = ON_SQLITE

WIDE = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=3), failure_limit=Amount(count=3))


def test_a_way_back_is_not_turned_round(database: Database, settings: Settings) -> None:
    """It would lead forth past canaries, freezes and what failed here; while it is under way, and afterwards."""
    world = World(database, settings, 3, WIDE)
    world.nodes["n0"].mood = Mood.SICK
    rollout_id = begin(world)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    back_id = reverse(database, OPERATOR, rollout_id, "n0 is ill", world.now)
    world.run_until(lambda: "1.0" in world.versions().values())
    for undo in (
        lambda: service.roll_back(database, OPERATOR, back_id, "oops", world.now),
        lambda: reverse(database, OPERATOR, back_id, "oops", world.now, wave=1),
    ):
        with pytest.raises(NotPossible, match=r"Compose a rollout to 2\.0 instead"):
            undo()
    world.run(back_id, until=RolloutState.SUCCEEDED)
    with pytest.raises(NotPossible, match=r"Compose a rollout to 2\.0 instead"):
        reverse(database, OPERATOR, back_id, "oops", world.now)
    for _ in range(3):
        world.tick()
    assert set(world.versions().values()) == {"1.0"}
    with database.read() as conn:
        failed = {one.digest: one.cleared_at for one in failed_versions.of_node(conn, world.nodes["n0"].id)}
    assert failed == {digest_of("2.0"): None}


def test_a_group_that_is_asked_to_go_back_again_stays(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, WIDE)
    world.run(begin(world), until=RolloutState.SUCCEEDED)
    world.run(back(world), until=RolloutState.SUCCEEDED)
    with pytest.raises(NotPossible, match="No node of group web runs what an update brought it to"):
        back(world)
    world.run(begin(world), until=RolloutState.SUCCEEDED)  # forth again, by a rollout that was composed
    world.run(back(world), until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"1.0"}


def back(world: World) -> str:
    return reverse_group(world.db, OPERATOR, world.group_id, "bad week", world.now)


def test_rolling_back_a_group_stops_its_update_that_is_under_way(database: Database, settings: Settings) -> None:
    """Nodes that it moved go back, one that reboots at that moment too, and no other moves on to it."""
    world = World(database, settings, 6, replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=1)))
    rollout_id = begin(world)
    world.run_until(lambda: list(world.states(rollout_id).values()).count(RolloutNodeState.DONE) == 2)
    world.run_until(lambda: any(node.phase is Phase.REBOOTING for node in world.nodes.values()))
    assert back(world) == rollout_id
    assert world.rollout(rollout_id).state is RolloutState.ROLLING_BACK
    with pytest.raises(NotPossible, match="already"):
        back(world)
    world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    for _ in range(10):
        world.tick()
    assert set(world.versions().values()) == {"1.0"}
    assert sum(node.boots == 1 for node in world.nodes.values()) == 3
    assert all(row.hold is None for row in world.rows(rollout_id).values())  # nobody waits any more


def test_what_an_earlier_update_moved_goes_back_beside_the_one_that_is_stopped(
    database: Database, settings: Settings
) -> None:
    """n0 came to 2.0 by an order before; n3 never moved. The page says so before."""
    world = World(database, settings, 4, WIDE)
    others = tuple(world.nodes[name].id for name in ("n1", "n2", "n3"))
    world.run(begin(world, left_out=others), until=RolloutState.SUCCEEDED)
    world.join("late")
    second = begin(world, left_out=(world.nodes["n3"].id, world.nodes["late"].id))
    world.run_until(lambda: RolloutNodeState.MOVING in world.states(second).values())
    with database.read() as conn:
        found = way_back_of_group(conn, world.group_id)
    assert [one.name for one in found.goes] == ["n0"] and [stop.id for stop in found.stops] == [second]
    assert {one.name for one in found.with_them} == {"n1", "n2"}
    assert [(why, names) for why, names in found.reasons] == [
        ("no update is known that brought it to what it runs", ["late", "n3"])
    ]
    made_id = back(world)
    world.run(made_id, until=RolloutState.SUCCEEDED)
    world.run(second, until=RolloutState.ROLLED_BACK)
    assert set(world.rows(made_id)) == {"n0"}
    assert set(world.versions().values()) == {"1.0"}


def test_a_node_that_fell_back_by_itself_stays(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, WIDE)
    world.nodes["n1"].mood = Mood.FALLS_BACK
    world.run(begin(world), until=RolloutState.SUCCEEDED)
    with database.read() as conn:
        found = way_back_of_group(conn, world.group_id)
    assert {one.name for one in found.goes} == {"n0", "n2"}
    assert found.reasons == [("it went back by itself, from 2.0", ["n1"])]
    assert [(way.version, way.before, way.nodes, way.local) for way in found.backs] == [("2.0", "1.0", 2, 2)]


def test_who_goes_back_leaves_the_update_of_another_group(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, WIDE)
    with database.write() as change:
        kit.add_image(change.conn, "3.0")
        everyone = add_group(change.conn, name="all", selector="*", precedence=1, policy=policy_to_builtins(WIDE))
        change.touch("groups")
    world.run(begin(world), until=RolloutState.SUCCEEDED)
    other = begin(world, group_id=everyone, version="3.0")
    made_id = back(world)
    assert set(world.states(other).values()) == {RolloutNodeState.LEFT}
    assert all("group web is rolled back" in row.text for row in world.rows(other).values())
    world.run(made_id, until=RolloutState.SUCCEEDED)
    for _ in range(6):
        world.tick()
    assert set(world.versions().values()) == {"1.0"}
