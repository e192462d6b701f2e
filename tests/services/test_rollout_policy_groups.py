"""Of a node's groups the policy group decides channel and soak, whatever other groups do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select, update

from app.config import Settings
from app.core.group_policy import Amount, Follow
from app.core.policy_json import policy_to_builtins
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import channels, nodes
from app.services.rollout_preview import preview
from app.store import channels as channel_rows
from app.store import rollouts, schema
from app.store.database import Database
from app.store.rollouts import Rollout
from tests import server_kit as kit
from tests.rollout_kit import add_group
from tests.server_kit import OPERATOR
from tests.services.rollout_world import QUICK, TIMING, World
from tests.services.test_rollouts import ON_SQLITE, begin

pytestmark = ON_SQLITE

LONG = replace(QUICK, timing=replace(TIMING, soak_s=77.0))
AT_ONCE = replace(QUICK, follow=Follow.AT_ONCE, canaries=Amount(count=0))


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    """n0 is in web (precedence 10, stable, 77 s of soak) and every (precedence 1, alpha at once); n1 only in this."""
    world = World(database, settings, 1)
    world.join("n1", {"role": "lab"})
    with database.write() as change:
        conn = change.conn
        stable, alpha = (kit.add_channel(conn, name, world.images["1.0"]) for name in ("stable", "alpha"))
        web = {"channel_id": stable, "policy": policy_to_builtins(LONG)}
        conn.execute(update(schema.groups).values(**web))
        add_group(conn, name="every", selector="*", precedence=1, channel_id=alpha, policy=policy_to_builtins(AT_ONCE))
        change.touch("groups")
    return world


def promote(world: World, name: str) -> Rollout:
    """The channel moves to 2.0; what was drafted."""
    with world.db.read() as conn:
        (channel,) = (one.id for one in channel_rows.all_channels(conn) if one.name == name)
    channels.promote(
        world.db,
        OPERATOR,
        channel,
        world.images["2.0"],
        seen_image_id=world.images["1.0"],
        reason="nightly",
        now=world.now,
    )
    with world.db.read() as conn:
        (found,) = rollouts.newest(conn, limit=1)
    return found


def soaks(world: World, name: str) -> list[float]:
    with world.db.read() as conn:
        columns = schema.operations.c
        rows = conn.execute(select(columns.policy).where(columns.node_id == world.nodes[name].id))
        return [row[0]["soak_s"] for row in rows]


def test_a_channel_moves_only_nodes_whose_policy_group_follows_it(world: World) -> None:
    rollout = promote(world, "alpha")
    (left,) = preview(world.db, rollout.id, world.now).left
    assert (left.name, left.out.text) == ("n0", "it follows stable by group web")
    world.run(rollout.id, until=RolloutState.SUCCEEDED)
    assert world.versions() == {"n0": "1.0", "n1": "2.0"}
    assert world.rows(rollout.id)["n0"].text == "it follows stable by group web"


def test_a_policy_group_without_a_channel_follows_none(world: World) -> None:
    with world.db.write() as change:
        change.conn.execute(update(schema.groups).where(schema.groups.c.name == "web").values(channel_id=None))
        change.touch("groups")
    rollout = promote(world, "alpha")
    (left,) = preview(world.db, rollout.id, world.now).left
    assert left.out.text == "it is of group web, which follows no channel"


def test_the_policy_groups_own_channel_moves_it(world: World) -> None:
    rollout = promote(world, "stable")
    assert [one.name for one in preview(world.db, rollout.id, world.now).entering] == ["n0"]


def test_a_late_joiner_and_one_whose_policy_group_changes_stay_out(world: World) -> None:
    with world.db.write() as change:
        waits = policy_to_builtins(replace(AT_ONCE, stage_jitter_s=3600.0))
        change.conn.execute(update(schema.groups).where(schema.groups.c.name == "every").values(policy=waits))
        change.touch("groups")
    rollout = promote(world, "alpha")
    world.conduct()
    assert world.states(rollout.id) == {"n0": RolloutNodeState.LEFT, "n1": RolloutNodeState.WAITING}
    world.join("n2")
    with world.db.write() as change:
        mine = schema.nodes.c.name == "n1"
        change.conn.execute(update(schema.nodes).where(mine).values(labels={"role": "web"}))
        change.touch("nodes")
    world.conduct()
    rows = world.rows(rollout.id)
    assert {row.text for row in rows.values()} == {"it follows stable by group web"}
    assert {row.state for row in rows.values()} == {RolloutNodeState.LEFT} and len(rows) == 3


def test_what_an_operator_composes_takes_every_node_and_the_longer_soak(world: World) -> None:
    with world.db.read() as conn:
        every = conn.execute(select(schema.groups.c.id).where(schema.groups.c.name == "every")).scalar_one()
    rollout_id = begin(world, group_id=every)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert world.versions() == {"n0": "2.0", "n1": "2.0"}
    assert (soaks(world, "n0"), soaks(world, "n1")) == ([77.0], [TIMING.soak_s])


def test_a_soak_that_was_set_for_one_rollout_counts_in_its_own_group(world: World) -> None:
    begin(world, overrides={"timing": {"soak_s": 33.0}})
    world.conduct()
    assert soaks(world, "n0") == [33.0]


@pytest.mark.parametrize(("own", "soak_s"), [({}, 77.0), ({"timing": {"soak_s": 33.0}}, 33.0)])
def test_chosen_nodes_soak_as_long_as_their_policy_group_says(
    world: World, own: dict[str, object], soak_s: float
) -> None:
    with world.db.write() as change:
        change.conn.execute(update(schema.fleet).values(policy={"soak_s": 5.0, "stage_deadline_s": 600.0}))
    given = {"group_id": None, "node_ids": (world.nodes["n0"].id,), "overrides": own}
    begin(world, **given)
    world.run_until(lambda: bool(soaks(world, "n0")), ticks=12)
    assert soaks(world, "n0") == [soak_s]


def test_who_another_group_decided_about_comes_in_when_it_does_not_any_more(world: World) -> None:
    rollout = promote(world, "alpha")
    world.tick()
    assert world.rows(rollout.id)["n0"].state is RolloutNodeState.LEFT
    nodes.relabel(world.db, OPERATOR, world.nodes["n0"].id, {"role": "lab"}, "not of web any more", world.now)
    world.run(rollout.id, until=RolloutState.SUCCEEDED)
    assert world.versions() == {"n0": "2.0", "n1": "2.0"}
