"""What comes late, or while somebody else does something: ends stay as they are, and nothing bad slips through."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import update

from app.config import Settings
from app.core.group_policy import Amount, Follow
from app.core.policy_json import policy_to_builtins
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import following, rollout_observe
from app.services import rollouts as service
from app.services.rollout_reverse import reverse
from app.services.withdrawal import withdraw
from app.store import channels, schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import OPERATOR
from tests.services.rollout_world import QUICK, World
from tests.services.test_rollout_breaks import WIDE, Between
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import Phase

pytestmark = ON_SQLITE


def test_a_canary_that_ends_after_the_abort_changes_nothing_of_the_rollout(
    database: Database, settings: Settings
) -> None:
    world = World(database, settings, 3, replace(QUICK, canaries=Amount(count=2)))
    rollout_id = begin(world)
    canaries = [name for name, row in world.rows(rollout_id).items() if row.canary]
    world.run_until(lambda: world.nodes[canaries[0]].phase is Phase.CONFIRMING)
    service.abort(database, OPERATOR, rollout_id, "no", world.now)
    world.nodes[canaries[0]].give_way()
    for _ in range(8):
        world.tick()
    assert world.states(rollout_id)[canaries[0]] is RolloutNodeState.LEFT
    assert [name for name, row in world.rows(rollout_id).items() if row.canary] == canaries
    assert "canary" not in world.kinds(rollout_id)


@pytest.mark.parametrize("rolls_back", [False, True])
def test_a_way_back_whose_version_is_withdrawn_is_called_back(
    database: Database, settings: Settings, rolls_back: bool
) -> None:
    """Ordered, and before its lease: by a reverse rollout, and by one that rolls back."""
    world = World(database, settings, 2, WIDE)
    policy = replace(WIDE, max_unavailable=Amount(count=1))
    rollout_id = begin(world, policy=policy if rolls_back else WIDE)
    if rolls_back:
        world.run_until(lambda: RolloutNodeState.DONE in world.states(rollout_id).values())
        service.roll_back(database, OPERATOR, rollout_id, "slow", world.now)
        back_id = rollout_id
    else:
        world.run(rollout_id, until=RolloutState.SUCCEEDED)
        back_id = reverse(database, OPERATOR, rollout_id, "slow", world.now)
    world.conduct()
    boots = {name: node.boots for name, node in world.nodes.items() if node.version == "2.0"}
    assert any(world.open_operations(name) for name in boots)
    with database.read() as conn:
        image_id = world.images["1.0"]
        assert conn.execute(schema.images.select().where(schema.images.c.id == image_id)).first()
    withdraw(database, OPERATOR, image_id, "it loses data", world.now)
    for _ in range(6):
        world.tick()
    assert {name: world.nodes[name].boots for name in boots} == boots
    assert {world.nodes[name].version for name in boots} == {"2.0"}
    assert world.rollout(back_id).state in (RolloutState.ROLLED_BACK, RolloutState.SUCCEEDED)


def test_a_group_that_changes_while_its_draft_starts_by_itself_is_tried_again(
    database: Database, settings: Settings
) -> None:
    at_once = replace(QUICK, follow=Follow.AT_ONCE)
    world = World(database, settings, 2, at_once)
    with database.write() as change:
        stable = kit.add_channel(change.conn, "stable", world.images["2.0"])
        found = channels.get(change.conn, stable)
        assert found is not None
        change.conn.execute(update(schema.groups).values(channel_id=stable))
        (rollout_id,) = following.draft_for(change, OPERATOR, found, "tuesday", world.now)
    limits = iter(range(3, 100))

    def turns() -> None:
        policy = policy_to_builtins(replace(at_once, failure_least=next(limits)))
        with world.db.write() as change:
            change.conn.execute(update(schema.groups).values(policy=policy))

    assert following.start_drafts(Between(database, turns), world.now) == 0
    assert world.rollout(rollout_id).state_text == ""
    assert following.start_drafts(database, world.now) == 1
    assert world.rollout(rollout_id).state is RolloutState.RUNNING


def test_a_node_that_was_called_back_as_it_began_to_arm_and_then_did_not_goes_on(
    database: Database, settings: Settings
) -> None:
    world = World(database, settings, 1, WIDE)
    node = world.nodes["n0"]
    rollout_id = begin(world)
    world.run_until(lambda: world.states(rollout_id)["n0"] is RolloutNodeState.MOVING)
    service.pause(database, OPERATOR, rollout_id, "", world.now)
    for phase, state in ((Phase.REBOOTING, RolloutNodeState.MOVING), (Phase.STAGED, RolloutNodeState.ORDERED)):
        with database.write() as change:  # it arms at this moment; then its lease runs out before it does
            change.conn.execute(update(schema.operations).values(phase=phase.value))
            if phase is Phase.STAGED:
                change.conn.execute(update(schema.leases).values(ended_at=world.now))
        rollout_observe.observe(database, world.now)
        assert world.states(rollout_id)["n0"] is state
    world.run_until(lambda: node.operation is None and not world.open_operations("n0"))
    world.tick()
    assert world.states(rollout_id)["n0"] is RolloutNodeState.WAITING
    service.resume(database, OPERATOR, rollout_id, "", world.now)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert node.version == "2.0" and world.rows(rollout_id)["n0"].text == ""


def test_who_comes_when_all_canaries_have_left_goes_first_as_one(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, QUICK)
    others = {"pin_image_id": world.images["1.0"], "pin_actor": "ana", "pinned_at": world.now}
    with database.write() as change:
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.name != "n0").values(**others))
    rollout_id = begin(world)
    world.run_until(lambda: world.nodes["n0"].phase is Phase.CONFIRMING)
    service.pause(database, OPERATOR, rollout_id, "", world.now)
    world.nodes["n0"].give_way()
    world.run_until(lambda: world.states(rollout_id)["n0"] is RolloutNodeState.LEFT)
    with database.write() as change:
        unpinned = {"pin_image_id": None, "pin_actor": None, "pinned_at": None}
        change.conn.execute(update(schema.nodes).values(**unpinned))
    service.resume(database, OPERATOR, rollout_id, "", world.now)
    world.tick()
    assert sum(row.canary for row in world.rows(rollout_id).values()) == 1
    world.run_until(lambda: sum(world.nodes[name].boots for name in ("n1", "n2")) == 3)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert world.kinds(rollout_id).count("canaries-soaked") == 1
