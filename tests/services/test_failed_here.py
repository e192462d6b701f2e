"""What failed on a node stays remembered there until an operator clears it with a reason (rule 5): no way back leads to
it, and no success of anybody clears it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from app.config import Settings
from app.core.errors import NotPossible
from app.core.group_policy import Amount, GroupPolicy, OnFailure
from app.core.policy_json import policy_to_builtins
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import nodes
from app.services.group_way_back import way_back_of_group
from app.services.rollout_reverse import reverse, reverse_group
from app.store import bad_versions, failed_versions, schema
from app.store.bad_versions import BadVersion, Cause
from app.store.database import Database
from tests import server_kit as kit
from tests.rollout_kit import add_group
from tests.server_kit import OPERATOR, digest_of
from tests.services.rollout_world import QUICK, Mood, World
from tests.services.test_rollouts import ON_SQLITE, begin

pytestmark = ON_SQLITE

WIDE = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=3), failure_limit=Amount(count=5))


def world_where_2_failed_on_n0(db: Database, settings: Settings, policy: GroupPolicy = WIDE) -> World:
    """Three nodes run 2.0, which did not stay healthy on n0: it stayed there, and got well by itself."""
    world = World(db, settings, 3, policy)
    with db.write() as change:
        world.images["3.0"] = kit.add_image(change.conn, "3.0")
    world.nodes["n0"].mood = Mood.SICK
    world.run(begin(world), until=RolloutState.SUCCEEDED)
    world.nodes["n0"].mood, world.nodes["n0"].healthy = Mood.WELL, True
    world.tick()
    assert remembered(world) == [digest_of("2.0")]
    return world


def remembered(world: World, name: str = "n0") -> list[str]:
    with world.db.read() as conn:
        return [one.digest for one in failed_versions.of_node(conn, world.nodes[name].id) if one.cleared_at is None]


def actions(world: World) -> list[tuple[str, str, str]]:
    with world.db.read() as conn:
        log = schema.audit.c
        rows = conn.execute(select(log.action, log.object, log.reason).order_by(log.id))
        return [(row.action, row.object, row.reason) for row in rows]


def stays(world: World, rollout_id: str) -> None:
    """The others are back on 2.0, n0 is not and says why, and nothing was forgotten."""
    assert world.versions() == {"n0": "3.0", "n1": "2.0", "n2": "2.0"}
    assert (
        "what it ran before, 2.0, failed on it: its check failed during the soak" in world.rows(rollout_id)["n0"].text
    )
    assert remembered(world) == [digest_of("2.0")]
    assert not [one for one in actions(world) if "clear" in one[0]]


def test_a_reverse_rollout_leads_to_nothing_that_failed_here(database: Database, settings: Settings) -> None:
    world = world_where_2_failed_on_n0(database, settings)
    forth = begin(world, version="3.0")
    world.run(forth, until=RolloutState.SUCCEEDED)
    back = reverse(database, OPERATOR, forth, "3.0 is odd", world.now)
    world.run(back, until=RolloutState.SUCCEEDED)
    assert world.states(back)["n0"] is RolloutNodeState.LEFT
    stays(world, back)
    with pytest.raises(NotPossible, match=r"No node could ever move: 2\.0 failed on it before"):
        begin(world, allow_downgrade=True)


def test_a_rollout_that_rolls_back_by_itself_leads_to_nothing_that_failed_here(
    database: Database, settings: Settings
) -> None:
    world = world_where_2_failed_on_n0(database, settings, replace(WIDE, on_failure=OnFailure.ROLL_BACK))
    forth = begin(world, version="3.0", policy=replace(WIDE, on_failure=OnFailure.ROLL_BACK, failure_limit=Amount(0)))
    world.nodes["n1"].mood = Mood.SICK
    world.run(forth, until=RolloutState.ROLLED_BACK)
    stays(world, forth)
    with database.read() as conn:
        told = schema.rollout_events.c
        texts = conn.execute(select(told.text).where(told.rollout_id == forth, told.kind == "node-failed")).scalars()
        assert any("n0 is not sent back: what it ran before, 2.0, failed on it" in text for text in texts)


def test_a_group_that_is_rolled_back_leads_to_nothing_that_failed_here(database: Database, settings: Settings) -> None:
    """Its page says so before, and who stays leaves no other update for it."""
    world = world_where_2_failed_on_n0(database, settings)
    world.run(begin(world, version="3.0"), until=RolloutState.SUCCEEDED)
    with database.write() as change:
        kit.add_image(change.conn, "4.0")
        everyone = add_group(change.conn, name="all", selector="*", precedence=1, policy=policy_to_builtins(WIDE))
        change.touch("groups")
    other = begin(world, group_id=everyone, version="4.0")
    with database.read() as conn:
        found = way_back_of_group(conn, world.group_id)
    assert found.reasons == [("what it ran before, 2.0, failed on it", ["n0"])]
    assert [(way.before, way.nodes) for way in found.backs] == [("2.0", 2)]
    back = reverse_group(database, OPERATOR, world.group_id, "3.0 is odd", world.now)
    assert set(world.rows(back)) == {"n1", "n2"}
    assert world.states(other)["n0"] is not RolloutNodeState.LEFT
    world.run(back, until=RolloutState.SUCCEEDED)
    assert remembered(world) == [digest_of("2.0")] and world.versions()["n1"] == "2.0"


def test_a_group_of_which_nobody_may_go_back_says_why(database: Database, settings: Settings) -> None:
    world = world_where_2_failed_on_n0(database, settings)
    world.run(begin(world, version="3.0"), until=RolloutState.SUCCEEDED)
    bad = BadVersion(digest_of("2.0"), "2.0", "withdrawn: cve", Cause.WITHDRAWN, "mb", world.now)
    with database.write() as change:
        bad_versions.remember(change.conn, bad)
    with pytest.raises(NotPossible, match="what they ran before is bad, or failed on them"):
        reverse_group(database, OPERATOR, world.group_id, "3.0 is odd", world.now)


def test_the_way_back_is_free_once_an_operator_has_cleared_it(database: Database, settings: Settings) -> None:
    world = world_where_2_failed_on_n0(database, settings)
    world.run(begin(world, version="3.0"), until=RolloutState.SUCCEEDED)
    node_id = world.nodes["n0"].id
    with pytest.raises(NotPossible, match="Clear it there to try it again"):
        nodes.roll_back(database, OPERATOR, node_id, "by hand", world.now)
    nodes.clear_failed_version(database, OPERATOR, node_id, digest_of("2.0"), "it was the disk", world.now)
    nodes.roll_back(database, OPERATOR, node_id, "by hand", world.now)
    world.run_until(lambda: world.versions()["n0"] == "2.0" and world.open_operations("n0") == 0)
    assert remembered(world) == []
    assert actions(world)[-2:-1] == [("node.clear-failed-version", f"node:{node_id}", "it was the disk")]


def test_who_overrides_it_with_a_reason_clears_it_before_it_is_tried(database: Database, settings: Settings) -> None:
    """One author, one transaction; what fails again is remembered again."""
    world = world_where_2_failed_on_n0(database, settings)
    node_id, image_id = world.nodes["n0"].id, world.images["2.0"]
    nodes.update(database, OPERATOR, node_id, world.images["3.0"], "on", world.now)
    world.run_until(lambda: world.versions()["n0"] == "3.0" and world.open_operations("n0") == 0)
    nodes.update(database, OPERATOR, node_id, image_id, "the disk is new", world.now, override_failed=True)
    assert remembered(world) == []
    assert actions(world)[-2:] == [
        ("node.clear-failed-version", f"node:{node_id}", "the disk is new"),
        ("node.update", f"node:{node_id}", "the disk is new"),
    ]
    world.nodes["n0"].mood = Mood.FALLS_BACK
    world.run_until(lambda: world.open_operations("n0") == 0)
    assert remembered(world) == [digest_of("2.0")]


def test_an_override_of_what_never_failed_clears_nothing(database: Database, settings: Settings) -> None:
    world = World(database, settings, 1, WIDE)
    nodes.update(database, OPERATOR, world.nodes["n0"].id, world.images["2.0"], "r", world.now, override_failed=True)
    assert [action for action, _, _ in actions(world)] == ["node.update"]
