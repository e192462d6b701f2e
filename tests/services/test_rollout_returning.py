"""Who left a rollout comes in again when the reason is over, and the rollout does not end before that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.config import Settings
from app.core.errors import NotPossible
from app.core.estimate import estimate
from app.core.group_policy import Amount
from app.core.planner import plan
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import attention, freezes, nodes, rollout_finish, rollout_observe
from app.services import rollouts as service
from app.services.fleet_snapshot import gather
from app.services.rollout_spec import RolloutSpec
from app.services.rollout_start import start
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import OPERATOR
from tests.services.rollout_world import QUICK, Mood, World
from tests.services.test_rollouts import ON_SQLITE, begin

pytestmark = ON_SQLITE

ONE = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=1))
DONE, LEFT, MOVING = RolloutNodeState.DONE, RolloutNodeState.LEFT, RolloutNodeState.MOVING
RUNNING, SUCCEEDED = RolloutState.RUNNING, RolloutState.SUCCEEDED


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    """Three nodes, one of which moves at a time; there is a 3.0."""
    world = World(database, settings, 3, ONE)
    with database.write() as change:
        world.images["3.0"] = kit.add_image(change.conn, "3.0")
    return world


def newer(world: World, *names: str) -> str:
    """A rollout of these to 3.0, while the group is frozen so that nobody has moved."""
    chosen = tuple(world.nodes[name].id for name in names)
    spec = RolloutSpec(node_ids=chosen, version="3.0", policy=ONE, reason="new")
    rollout_id = service.draft(world.db, OPERATOR, spec, world.now)
    start(world.db, OPERATOR, rollout_id, "go", world.now, start_anyway=True)
    return rollout_id


def frozen_pair(world: World) -> tuple[str, str, str]:
    """An older rollout of the group to 2.0, a newer one that took n0 and n1 to 3.0, and the freeze that holds both."""
    freeze_id = freezes.freeze(world.db, OPERATOR, group_id=None, reason="fair", now=world.now)
    spec = RolloutSpec(group_id=world.group_id, version="2.0", reason="monthly")
    older = service.draft(world.db, OPERATOR, spec, world.now)
    start(world.db, OPERATOR, older, "go", world.now, start_anyway=True)
    world.tick()
    taker = newer(world, "n0", "n1")
    world.run_until(lambda: [row.state for _, row in sorted(world.rows(older).items())][:2] == [LEFT, LEFT])
    return older, taker, freeze_id


def test_who_is_relabelled_back_comes_in_again(world: World) -> None:
    rollout_id = begin(world)
    nodes.relabel(world.db, OPERATOR, world.nodes["n2"].id, {"role": "db"}, "slip", world.now)
    world.run_until(lambda: world.states(rollout_id)["n2"] is LEFT)
    nodes.relabel(world.db, OPERATOR, world.nodes["n2"].id, {"role": "web"}, "back", world.now)
    world.run(rollout_id, until=SUCCEEDED)
    assert set(world.versions().values()) == {"2.0"}
    assert set(world.states(rollout_id).values()) == {DONE}


def test_it_does_not_end_before_who_is_back_has_come_in(world: World) -> None:
    rollout_id = begin(world)
    nodes.relabel(world.db, OPERATOR, world.nodes["n2"].id, {"role": "db"}, "slip", world.now)
    world.run_until(lambda: [row.state for _, row in sorted(world.rows(rollout_id).items())][:2] == [DONE, MOVING])
    nodes.relabel(world.db, OPERATOR, world.nodes["n2"].id, {"role": "web"}, "back", world.now)
    while world.states(rollout_id)["n1"] is not DONE:  # the step that takes it in looks only from time to time
        world.act()
        rollout_observe.observe(world.db, world.now)
    assert rollout_finish.finish(world.db, world.now) == 0
    world.run(rollout_id, until=SUCCEEDED)
    assert set(world.versions().values()) == {"2.0"}


def test_what_a_newer_rollout_took_comes_in_again_when_that_is_aborted(world: World) -> None:
    older, taker, freeze_id = frozen_pair(world)
    assert world.rows(older)["n0"].text == "rollout 2 took it"
    freezes.lift(world.db, OPERATOR, freeze_id, "over", world.now)
    service.pause(world.db, OPERATOR, taker, "looks odd", world.now)
    world.run_until(lambda: world.states(older)["n2"] is DONE)
    for _ in range(5):
        world.tick()
    assert world.rollout(older).state is RUNNING, "two of its nodes may come back"
    service.abort(world.db, OPERATOR, taker, "it was odd", world.now)
    world.run(older, until=SUCCEEDED)
    assert set(world.versions().values()) == {"2.0"}
    assert world.rollout(older).state_text == "Ended: 3 done"


def test_it_ends_when_the_newer_rollout_has_moved_what_it_took(world: World) -> None:
    older, taker, freeze_id = frozen_pair(world)
    freezes.lift(world.db, OPERATOR, freeze_id, "over", world.now)
    world.run(taker, until=SUCCEEDED)
    world.run(older, until=SUCCEEDED)
    assert world.versions() == {"n0": "3.0", "n1": "3.0", "n2": "2.0"}
    assert world.rollout(older).state_text == "Ended: 1 done, 2 taken by rollout 2"


def test_what_the_newer_rollout_moved_is_not_led_elsewhere_by_the_older(world: World) -> None:
    older, taker, freeze_id = frozen_pair(world)
    service.pause(world.db, OPERATOR, older, "first the new one", world.now)
    freezes.lift(world.db, OPERATOR, freeze_id, "over", world.now)
    world.run_until(lambda: DONE in world.states(taker).values())
    service.roll_back(world.db, OPERATOR, taker, "slow pages", world.now)
    world.run(taker, until=RolloutState.ROLLED_BACK)
    gone = {name for name, row in world.rows(taker).items() if row.moving_at is not None}
    service.resume(world.db, OPERATOR, older, "go on", world.now)
    world.run(older, until=SUCCEEDED)
    assert gone
    assert world.versions() == {name: "1.0" if name in gone else "2.0" for name in world.nodes}


def test_two_rollouts_do_not_wait_for_each_other(world: World) -> None:
    older = begin(world)
    world.run_until(lambda: DONE in world.states(older).values())
    moved = {name for name, state in world.states(older).items() if state is DONE}
    other = begin(world, version="3.0")
    for name in world.nodes.keys() - moved:  # they hold the newer one up
        world.nodes[name].mood = Mood.SILENT
    world.run_until(lambda: world.rollout(older).state is not RUNNING)
    assert world.rollout(older).state is SUCCEEDED, "the newer one waits for the way back that it keeps"
    assert "taken by rollout 2" in world.rollout(older).state_text
    assert world.rollout(other).state is RUNNING


def test_who_is_left_out_while_another_rollout_has_it_does_not_come_in_again(world: World) -> None:
    older, taker, freeze_id = frozen_pair(world)
    service.leave_out(world.db, OPERATOR, older, world.nodes["n0"].id, "it stays", world.now)
    with pytest.raises(NotPossible):
        service.leave_out(world.db, OPERATOR, older, world.nodes["n0"].id, "it stays", world.now)
    service.abort(world.db, OPERATOR, taker, "not now", world.now)
    freezes.lift(world.db, OPERATOR, freeze_id, "over", world.now)
    world.run(older, until=SUCCEEDED)
    assert world.versions() == {"n0": "1.0", "n1": "2.0", "n2": "2.0"}
    assert "left out by" in world.rows(older)["n0"].text


def test_who_waits_for_a_newer_rollout_that_is_paused_says_so(world: World) -> None:
    older, taker, freeze_id = frozen_pair(world)
    service.pause(world.db, OPERATOR, taker, "later", world.now)
    freezes.lift(world.db, OPERATOR, freeze_id, "go", world.now)
    world.run_until(lambda: world.states(older)["n2"] is DONE)
    snapshot = gather(world.db, world.now)
    place = [view.id for view in snapshot.rollouts].index(older)
    words = "2 nodes are with rollout 2, which is paused"
    assert estimate(plan(snapshot), snapshot, place).never == f"never ends unless this changes: {words}"
    with world.db.read() as conn:
        found = {one.subject: one.text for one in attention.entries(conn, world.now + 86_400)}
    assert found[f"rollout:{older}"] == words
