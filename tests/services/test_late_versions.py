"""A version that was only late on a node (silence taught that it failed, and the node was seen confirmed on it since)
stays a way back there, from its slot; nothing leads the node forth to it without an operator (rules 5, 7)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.config import Settings
from app.core.group_policy import Amount
from app.core.rollouts import RolloutState
from app.services import nodes
from app.services.group_way_back import way_back_of_group
from app.services.rollout_reverse import reverse, reverse_group
from app.store import failed_versions, rollouts
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import OPERATOR, digest_of
from tests.services.rollout_world import QUICK, Mood, World
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import Phase

pytestmark = ON_SQLITE

WIDE = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=3), failure_limit=Amount(count=5))


def world_where_2_was_late_on_n0(db: Database, settings: Settings) -> tuple[World, str]:
    """n0 came up on 2.0 after its reboot deadline, and runs well; then all went to 3.0, in the rollout returned."""
    world = World(db, settings, 3, WIDE)
    with db.write() as change:
        world.images["3.0"] = kit.add_image(change.conn, "3.0")
    world.nodes["n0"].mood = Mood.SILENT
    world.run(begin(world), until=RolloutState.SUCCEEDED)
    world.wake("n0")
    world.run_until(lambda: world.nodes["n0"].phase.value == "idle" and world.versions()["n0"] == "2.0")
    assert remembered(world) == [(digest_of("2.0"), False)]
    forth = begin(world, version="3.0")
    world.run(forth, until=RolloutState.SUCCEEDED)
    assert world.versions()["n0"] == "3.0"
    return world, forth


def remembered(world: World) -> list[tuple[str, bool]]:
    with world.db.read() as conn:
        found = failed_versions.of_node(conn, world.nodes["n0"].id)
    return [(one.digest, one.only_late) for one in found if one.cleared_at is None]


@pytest.mark.parametrize("way", ["rollout", "group", "node"])
def test_it_is_a_way_back(database: Database, settings: Settings, way: str) -> None:
    world, forth = world_where_2_was_late_on_n0(database, settings)
    if way == "node":
        nodes.roll_back(database, OPERATOR, world.nodes["n0"].id, "3.0 is odd", world.now)
    elif way == "group":
        with database.read() as conn:
            assert way_back_of_group(conn, world.group_id).reasons == []
        reverse_group(database, OPERATOR, world.group_id, "3.0 is odd", world.now)
    else:
        reverse(database, OPERATOR, forth, "3.0 is odd", world.now)
    world.run_until(lambda: world.versions()["n0"] == "2.0")
    assert remembered(world) == [(digest_of("2.0"), True)], "it is not forgotten: no rollout leads there"


def test_its_slot_has_to_be_there(database: Database, settings: Settings) -> None:
    world, forth = world_where_2_was_late_on_n0(database, settings)
    world.overwrite("n0", "1.0")
    world.tick()
    back = reverse(database, OPERATOR, forth, "3.0 is odd", world.now)
    world.run_until(lambda: over(world, back))
    assert world.versions()["n0"] == "3.0" and "2.0, failed on it" in world.rows(back)["n0"].text


def over(world: World, rollout_id: str) -> bool:
    with world.db.read() as conn:
        found = rollouts.get(conn, rollout_id)
    return found is not None and found.state is RolloutState.SUCCEEDED


def test_what_the_node_itself_lists_is_no_silence(database: Database, settings: Settings) -> None:
    world, _ = world_where_2_was_late_on_n0(database, settings)
    assert remembered(world) == [(digest_of("2.0"), True)]
    with database.write() as change:
        failed_versions.listed(change.conn, world.nodes["n0"].id, [digest_of("2.0")])
    assert remembered(world) == [(digest_of("2.0"), False)]


def test_a_second_silence_counts_again(database: Database, settings: Settings) -> None:
    world, _ = world_where_2_was_late_on_n0(database, settings)
    nodes.roll_back(database, OPERATOR, world.nodes["n0"].id, "3.0 is odd", world.now)
    world.run_until(lambda: world.nodes["n0"].phase in (Phase.REBOOTING, Phase.CONFIRMING))
    world.nodes["n0"].silent = True
    world.run_until(lambda: world.open_operations("n0") == 0)
    assert remembered(world) == [(digest_of("2.0"), False)]
