"""Who is in a rollout: composing and refusing, late joiners, pins, newer rollouts, edges, followed channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from app.config import Settings
from app.core.errors import Invalid, NotFound, NotPossible
from app.core.group_policy import Amount, Follow
from app.core.policy_json import policy_to_builtins
from app.core.rollouts import RolloutKind, RolloutNodeState, RolloutState
from app.services import bad_versions, images, nodes
from app.services import rollouts as service
from app.services.channels import promote
from app.services.rollout_preview import preview
from app.services.rollout_spec import RolloutSpec
from app.services.rollout_start import start
from app.store import bad_versions as bad_store
from app.store import rollouts, schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import OPERATOR, digest_of
from tests.services.rollout_world import QUICK, Mood, World
from tests.services.test_rollouts import ON_SQLITE, begin

WIDE = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=3))
DONE, LEFT, WAITING = RolloutNodeState.DONE, RolloutNodeState.LEFT, RolloutNodeState.WAITING


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    return World(database, settings, 2, WIDE)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda world: {"group_id": None}, Invalid),
        (lambda world: {"group_id": "group_no"}, NotFound),
        (lambda world: {"node_ids": (world.nodes["n0"].id,)}, Invalid),
        (lambda world: {"group_id": None, "node_ids": ("node_no",)}, NotFound),
        (lambda world: {"version": ""}, Invalid),
        (lambda world: {"version": "9.9"}, Invalid),
        (lambda world: {"version": "", "image_ids": ("image_no",)}, NotFound),
        (lambda world: {"version": "", "channel_id": "channel_no"}, NotFound),
        (lambda world: {"image_ids": (world.images["2.0"],)}, Invalid),
        (lambda world: {"reason": " "}, Invalid),
    ],
)
@ON_SQLITE
def test_what_cannot_be_drafted(
    world: World, change: Callable[[World], dict[str, Any]], error: type[Exception]
) -> None:
    given: dict[str, Any] = {"group_id": world.group_id, "version": "2.0", "reason": "why"} | change(world)
    with pytest.raises(error):
        service.draft(world.db, OPERATOR, RolloutSpec(**given), world.now)
    assert kit.count_rows(world.db, schema.rollouts) == kit.count_rows(world.db, schema.rollout_events) == 0


def test_a_preview_changes_nothing_and_says_who_stays_out(world: World) -> None:
    with world.db.write() as change:
        pinned = {"pin_image_id": world.images["1.0"], "pinned_at": world.now, "pin_actor": "ana", "pin_reason": "fair"}
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.name == "n1").values(**pinned))
    spec = RolloutSpec(group_id=world.group_id, version="2.0", reason="why")
    before = kit.revisions(world.db)
    seen = preview(world.db, spec, world.now)
    assert [one.name for one in seen.entering] == ["n0"]
    assert [(one.name, one.out.text) for one in seen.left] == [("n1", "it is pinned to version 1.0")]
    assert seen.waves() == [[world.nodes["n0"].id]] and seen.estimate.never == ""
    assert kit.revisions(world.db) == before and kit.count_rows(world.db, schema.rollouts) == 0


@ON_SQLITE
def test_a_service_that_forbids_every_wave_is_named_before_the_start(world: World) -> None:
    with world.db.write() as change:
        for node in world.nodes.values():
            kit.add_container(change.conn, node.id, f"db-{node.name}", scope="shop", replicas=1)
    spec = RolloutSpec(group_id=world.group_id, version="2.0", reason="why")
    rollout_id = service.draft(world.db, OPERATOR, spec, world.now)
    with pytest.raises(NotPossible, match=r"shop/db-n0.*shop/db-n1"):
        start(world.db, OPERATOR, rollout_id, "", world.now, start_anyway=True)
    assert world.rollout(rollout_id).state is RolloutState.DRAFT and world.rows(rollout_id) == {}
    service.allow_single(world.db, OPERATOR, rollout_id, ("shop", "db-n0"), "night", world.now)
    with pytest.raises(NotPossible, match="Start anyway"):
        start(world.db, OPERATOR, rollout_id, "", world.now)
    start(world.db, OPERATOR, rollout_id, "", world.now, start_anyway=True)
    world.run_until(lambda: world.states(rollout_id)["n0"] is DONE)
    for _ in range(3):
        world.tick()
    assert world.nodes["n1"].version == "1.0"  # held for good: the rollout stays open
    seen = preview(world.db, rollout_id, world.now)
    assert world.rollout(rollout_id).state is RolloutState.RUNNING and "db-n1" in seen.estimate.never
    service.leave_out(world.db, OPERATOR, rollout_id, world.nodes["n1"].id, "later", world.now)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)


@ON_SQLITE
def test_late_joiners_and_unpinned_nodes_come_in_and_who_leaves_the_group_goes(world: World) -> None:
    db = world.db
    nodes.pin(db, OPERATOR, world.nodes["n1"].id, image_id=world.images["1.0"], reason="fair", now=world.now)
    world.join("n9", {"role": "db"})
    rollout_id = begin(world)
    assert world.states(rollout_id) == {"n0": WAITING, "n1": LEFT}
    world.join("late")
    world.join("goes")
    nodes.unpin(db, OPERATOR, world.nodes["n1"].id, "fair is over", world.now)
    world.tick(1)
    assert set(world.states(rollout_id)) == {"n0", "n1", "late", "goes"}
    nodes.relabel(db, OPERATOR, world.nodes["goes"].id, {"role": "db"}, "moved", world.now)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert world.versions() == {"goes": "1.0", "late": "2.0", "n0": "2.0", "n1": "2.0", "n9": "1.0"}
    assert world.states(rollout_id)["goes"] is LEFT


@ON_SQLITE
def test_a_newer_update_takes_what_has_not_moved(world: World) -> None:
    with world.db.write() as change:
        world.images["3.0"] = kit.add_image(change.conn, "3.0")
    older = begin(world)
    world.tick()
    newer = begin(world, version="3.0")
    world.run(newer, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"3.0"}
    assert set(world.states(older).values()) == {LEFT}
    assert {node.boots for node in world.nodes.values()} == {2}


@ON_SQLITE
def test_version_edges_and_downgrades_hold_until_somebody_acts(world: World) -> None:
    db, node_id = world.db, world.nodes["n0"].id
    edges = {"must_pass": ["1.5"], "not_from": ["0.9"], "reason": "new boot loader", "now": world.now}
    images.set_edges(db, OPERATOR, world.images["2.0"], **edges)
    with pytest.raises(NotPossible, match=r"1\.5"):
        nodes.update(db, OPERATOR, node_id, world.images["2.0"], "", world.now)
    with pytest.raises(NotPossible, match=r"1\.5"):
        begin(world)
    images.set_edges(db, OPERATOR, world.images["2.0"], must_pass=[], not_from=[], reason="", now=world.now)
    running = begin(world)
    images.set_edges(db, OPERATOR, world.images["2.0"], **edges)
    for _ in range(3):
        world.tick()
    assert [row.hold and row.hold["code"] for row in world.rows(running).values()] == ["version-edge"] * 2
    assert set(world.states(running).values()) == {WAITING}  # nothing is staged that could never be booted
    service.abort(db, OPERATOR, running, "not now", world.now)
    with db.write() as change:
        kit.add_image(change.conn, "0.5")
    with pytest.raises(NotPossible, match="older"):
        begin(world, version="0.5")
    rollout_id = begin(world, version="0.5", allow_downgrade=True)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"0.5"}


@ON_SQLITE
def test_a_version_that_fails_often_is_bad_everywhere_until_it_is_cleared(
    database: Database, settings: Settings
) -> None:
    world = World(database, settings, 3, replace(WIDE, failure_limit=Amount(count=1)))
    for name in ("n0", "n1", "n2"):
        world.nodes[name].mood = Mood.FALLS_BACK
    rollout_id = begin(world)
    world.run(rollout_id, until=RolloutState.HALTED)
    world.join("other", {"role": "db"})
    with pytest.raises(NotPossible, match="bad fleet-wide"):
        nodes.update(database, OPERATOR, world.nodes["other"].id, world.images["2.0"], "", world.now)
    with pytest.raises(NotPossible, match="bad fleet-wide"):
        service.resume(database, OPERATOR, rollout_id, "try", world.now)
    with pytest.raises(Invalid):
        bad_versions.clear(database, OPERATOR, digest_of("2.0"), "", world.now)
    bad_versions.clear(database, OPERATOR, digest_of("2.0"), "it was the network", world.now)
    with database.read() as conn:
        assert bad_store.not_cleared(conn) == {}
    nodes.update(database, OPERATOR, world.nodes["other"].id, world.images["2.0"], "", world.now)


@ON_SQLITE
@pytest.mark.parametrize("follow", list(Follow))
def test_a_channel_move_drafts_or_starts(database: Database, settings: Settings, follow: Follow) -> None:
    world = World(database, settings, 2, replace(WIDE, follow=follow))
    with database.write() as change:
        channel_id = kit.add_channel(change.conn, "stable", world.images["1.0"])
        world.images["3.0"] = kit.add_image(change.conn, "3.0")
        group = {"channel_id": channel_id, "policy": policy_to_builtins(replace(WIDE, follow=follow))}
        change.conn.execute(update(schema.groups).values(**group))
    seen = world.images["1.0"]
    for version in ("2.0", "3.0"):
        image_id = world.images[version]
        promote(database, OPERATOR, channel_id, image_id, seen_image_id=seen, reason="ready", now=world.now)
        seen = image_id
    with database.read() as conn:
        newest, older = rollouts.newest(conn)
    assert (older.state, older.version, newest.version) == (RolloutState.ABORTED, "2.0", "3.0")
    if follow is Follow.DRAFT:
        world.tick()
        assert world.rollout(newest.id).state is RolloutState.DRAFT
    else:
        world.run(newest.id, until=RolloutState.SUCCEEDED)
        assert set(world.versions().values()) == {"3.0"}


@ON_SQLITE
def test_chosen_nodes_reboot_and_nothing_else(world: World) -> None:
    chosen = (world.nodes["n1"].id,)
    rollout_id = begin(world, group_id=None, node_ids=chosen, kind=RolloutKind.REBOOT, version="", policy=WIDE)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert [node.boots for node in world.nodes.values()] == [1, 2]
    with pytest.raises(NotPossible):
        service.roll_back(world.db, OPERATOR, rollout_id, "back", world.now)
