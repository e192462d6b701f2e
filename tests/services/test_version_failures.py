"""What makes a version bad everywhere: failures on enough nodes, whoever led these to it, and whether or not a rollout
stopped (rule 5)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import insert, select

from app.config import Settings
from app.core.errors import NotPossible
from app.core.group_policy import Amount, OnFailure
from app.core.policy_json import policy_to_builtins
from app.core.rollouts import RolloutState
from app.services import nodes
from app.services.bad_versions import clear
from app.services.version_failures import judge_versions
from app.store import bad_versions, failed_versions, schema, version_failures
from app.store.bad_versions import BadVersion, Cause
from app.store.database import Database
from tests import server_kit as kit
from tests.rollout_kit import add_group, add_rollout, add_rollout_node
from tests.server_kit import NOW, OPERATOR, digest_of
from tests.services.rollout_world import QUICK, Mood, World
from tests.services.test_rollouts import ON_SQLITE, begin

ONE_BY_ONE = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=1), failure_limit=Amount(count=1))
TOLERANT = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=6), failure_limit=Amount(count=4))


def bad(db: Database) -> BadVersion | None:
    with db.read() as conn:
        return bad_versions.get(conn, digest_of("2.0"))


@ON_SQLITE
def test_orders_to_single_nodes_make_a_version_bad_too(database: Database, settings: Settings) -> None:
    world = World(database, settings, 4, ONE_BY_ONE)
    for name in ("n0", "n1"):
        assert bad(database) is None
        world.nodes[name].mood = Mood.FALLS_BACK
        nodes.update(database, OPERATOR, world.nodes[name].id, world.images["2.0"], "one by one", world.now)
        world.run_until(lambda name=name: world.open_operations(name) == 0)
    found = bad(database)
    assert found is not None and found.cause is Cause.FAILED
    assert found.reason == "failed on 2 nodes: n1, n0 (the default failure limit allows 1)"
    with pytest.raises(NotPossible, match="bad fleet-wide"):
        nodes.update(database, OPERATOR, world.nodes["n2"].id, world.images["2.0"], "one by one", world.now)
    with database.read() as conn:
        (entry,) = conn.execute(select(schema.audit).where(schema.audit.c.action == "version.bad"))
    assert (entry.actor_kind, entry.object, entry.reason) == ("conductor", "version:2.0", found.reason)


@ON_SQLITE
def test_failures_that_each_rollout_allows_add_up(database: Database, settings: Settings) -> None:
    """One in each of four groups, none of whose rollouts stops by itself for it."""
    world = World(database, settings, 0, ONE_BY_ONE)
    with database.write() as change:
        groups = [
            add_group(change.conn, name=f"g{number}", selector=f"g={number}", policy=policy_to_builtins(ONE_BY_ONE))
            for number in range(4)
        ]
        change.touch("groups")
    for number in range(4):
        for place in range(3):
            world.join(f"g{number}n{place}", {"g": str(number)}).mood = Mood.WELL if place else Mood.FALLS_BACK
    rollout_ids = [begin(world, group_id=group_id) for group_id in groups]
    world.run_until(lambda: bad(database) is not None)
    world.tick()
    stopped = [world.rollout(rollout_id) for rollout_id in rollout_ids]
    assert {rollout.state for rollout in stopped} == {RolloutState.HALTED}
    assert all("2.0 is bad fleet-wide: failed on" in rollout.state_text for rollout in stopped)
    versions = world.versions()
    for _ in range(6):
        world.tick()
    assert world.versions() == versions


@ON_SQLITE
def test_a_rollout_that_may_lose_more_goes_on(database: Database, settings: Settings) -> None:
    """Its failure limit is an operator's word on how many say nothing; single orders count on top."""
    world = World(database, settings, 8, TOLERANT)
    for name in ("n0", "n1", "n2", "n3"):
        world.nodes[name].mood = Mood.FALLS_BACK
    world.run(begin(world), until=RolloutState.SUCCEEDED)
    assert bad(database) is None
    late = world.join("late", {"role": "db"})
    late.mood = Mood.FALLS_BACK
    nodes.update(database, OPERATOR, late.id, world.images["2.0"], "one more", world.now)
    world.run_until(lambda: bad(database) is not None)


@ON_SQLITE
def test_what_was_cleared_counts_only_what_failed_since(database: Database, settings: Settings) -> None:
    world = World(database, settings, 4, replace(TOLERANT, failure_limit=Amount(count=1)))
    for node in world.nodes.values():
        node.mood = Mood.FALLS_BACK
    others = tuple(world.nodes[name].id for name in ("n2", "n3"))
    world.run(begin(world, left_out=others), until=RolloutState.HALTED)
    assert bad(database) is not None
    clear(database, OPERATOR, digest_of("2.0"), "it was the network", world.now)
    for name in ("n2", "n3"):
        for _ in range(3):
            world.tick()
        assert bad(database) is None, "neither the failures of before alone, nor with one more"
        nodes.update(database, OPERATOR, world.nodes[name].id, world.images["2.0"], "again", world.now)
        world.run_until(lambda name=name: world.open_operations(name) == 0)
    found = bad(database)
    assert found is not None and found.reason.startswith("failed on 2 nodes: n3, n2 (")


@ON_SQLITE
def test_a_rollout_rolls_back_by_its_own_policy_first(database: Database, settings: Settings) -> None:
    """Judged before it has seen its failures the version's badness would only halt it."""
    world = World(database, settings, 3, replace(TOLERANT, failure_limit=Amount(0), on_failure=OnFailure.ROLL_BACK))
    for name in ("n0", "n1"):
        world.nodes[name].mood = Mood.FALLS_BACK
    rollout_id = begin(world)
    for _ in range(40):
        world.act()
        if kit.count_rows(database, schema.failed_versions) == 2:
            break
        world.conduct()
    assert judge_versions(database, world.now) == 0
    world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    assert bad(database) is not None and set(world.versions().values()) == {"1.0"}


@ON_SQLITE
def test_a_pilot_that_is_over_and_well_sets_no_limit(database: Database, settings: Settings) -> None:
    """One node was tried first, under the default of one failure. Then a group may lose four, and loses two."""
    world = World(database, settings, 8, TOLERANT)
    world.join("pilot", {"role": "db"})
    pilot = begin(world, group_id=None, node_ids=(world.nodes["pilot"].id,), policy=None)
    world.run(pilot, until=RolloutState.SUCCEEDED)
    for name in ("n0", "n1"):
        world.nodes[name].mood = Mood.FALLS_BACK
    world.run(begin(world), until=RolloutState.SUCCEEDED)
    assert bad(database) is None


def test_limits_of_updates_under_way_and_of_those_that_failed_count(database: Database) -> None:
    """And the one that made it bad is named."""
    with database.write() as change:
        image_id = kit.add_image(change.conn, "2.0")
        limits = [("succeeded", 0, "done"), ("aborted", 3, "failed"), ("paused", 2, "waiting"), ("running", 5, "done")]
        for number, (state, count, node_state) in enumerate(limits):
            given = {"targets": [image_id], "policy": {"failure_limit": {"count": count}}, "started_at": NOW}
            rollout_id = add_rollout(change.conn, number=70 + number, state=state, **given)
            node_id = kit.add_node(change.conn, f"of-{number}")
            add_rollout_node(change.conn, rollout_id, node_id, state=node_state)
    failed_on(database, "a", "b")
    assert judge_versions(database, NOW) == 0
    with database.read() as conn:
        assert sorted(number for number, _ in version_failures.policies(conn, digest_of("2.0"))) == [71, 72, 73]
    failed_on(database, "c")
    assert judge_versions(database, NOW) == 1
    found = bad(database)
    assert found is not None and found.reason == "failed on 3 nodes: a, b, c (the failure limit of rollout 72 allows 2)"


def failed_on(db: Database, *names: str, at: float = NOW) -> list[str]:
    with db.write() as change:
        ids = [kit.add_node(change.conn, name) for name in names]
        for node_id in ids:
            failed_versions.remember(change.conn, node_id, digest_of("2.0"), "2.0", "panics", None, at)
    return ids


def test_it_is_found_once_and_told_once(database: Database) -> None:
    one, two = failed_on(database, "a", "b")
    assert judge_versions(database, NOW) == 1
    assert judge_versions(database, NOW) == 0
    with database.write() as change:
        failed_versions.clear(change.conn, one, digest_of("2.0"), "mb", "disk", NOW)
    assert bad(database) is not None, "clearing it on a node clears nothing elsewhere"
    assert kit.count_rows(database, schema.audit) == 1 and two


def test_what_is_withdrawn_besides_is_remembered_as_failed(database: Database) -> None:
    failed_on(database, "a", "b")
    with database.write() as change:
        withdrawn = BadVersion(digest_of("2.0"), "2.0", "withdrawn: cve", Cause.WITHDRAWN, "mb", NOW)
        bad_versions.remember(change.conn, withdrawn)
    assert judge_versions(database, NOW) == 1


def test_limits_and_shares_are_of_everybody_who_tried(database: Database) -> None:
    """Three of twenty-one, where ten in a hundred may fail and a rollout that was only drafted allows none."""
    with database.write() as change:
        image_id = kit.add_image(change.conn, "2.0")
        for policy, started_at in (({"failure_limit": {"share": 0.1}}, NOW), ({"failure_limit": {"count": 0}}, None)):
            add_rollout(change.conn, targets=[image_id], policy=policy, started_at=started_at, state="draft")
        for number in range(18):
            kit.add_node(change.conn, f"well-{number}", version="2.0", booted_digest=digest_of("2.0"))
    failed_on(database, "a", "b")
    assert judge_versions(database, NOW) == 0
    failed_on(database, "c")
    with database.read() as conn:
        assert version_failures.tried(conn, digest_of("2.0")) == 21
    assert judge_versions(database, NOW) == 1


def test_a_failure_that_its_rollout_has_not_seen_waits_for_it(database: Database) -> None:
    failed_on(database, "a")
    with database.write() as change:
        node_id = kit.add_node(change.conn, "b")
        operation_id = kit.add_operation(change.conn, node_id)
        rollout_id = add_rollout(change.conn, targets=[kit.add_image(change.conn, "2.0")])
        add_rollout_node(change.conn, rollout_id, node_id, state="moving", operation_id=operation_id)
        values = {"node_id": node_id, "digest": digest_of("2.0"), "version": "2.0", "reason": "panics", "at": NOW}
        change.conn.execute(insert(schema.failed_versions).values(operation_id=operation_id, **values))
    assert judge_versions(database, NOW) == 0
    with database.write() as change:
        change.conn.execute(schema.rollout_nodes.update().values(state="failed"))
    assert judge_versions(database, NOW) == 1
