"""Rollouts over a small fleet of acting nodes: to the end, stopped by failures, paused, aborted, sent back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select, update

from app.config import Settings
from app.core.errors import Invalid, NotPossible
from app.core.group_policy import Amount, OnFailure
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import rollout_observe
from app.services import rollouts as service
from app.services.freezes import freeze
from app.services.rollout_preview import preview
from app.services.rollout_spec import RolloutSpec
from app.services.rollout_start import start
from app.store import schema
from app.store.database import Database
from tests.server_kit import OPERATOR
from tests.services.rollout_world import QUICK, Mood, World
from wire.messages import Phase

DONE, FAILED, LEFT, WAITING = (
    RolloutNodeState.DONE,
    RolloutNodeState.FAILED,
    RolloutNodeState.LEFT,
    RolloutNodeState.WAITING,
)

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""Long stories are told once. What differs on PostgreSQL, locks and row counts, is in the first test and in
test_rollout_crashes."""


def begin(world: World, **given: object) -> str:
    spec = RolloutSpec(**({"group_id": world.group_id, "version": "2.0", "reason": "monthly"} | given))  # type: ignore[arg-type]
    rollout_id = service.draft(world.db, OPERATOR, spec, world.now)
    start(world.db, OPERATOR, rollout_id, "go", world.now)
    return rollout_id


def test_to_the_end(database: Database, settings: Settings) -> None:
    world = World(database, settings, 5)
    rollout_id = begin(world)
    canaries = [name for name, row in world.rows(rollout_id).items() if row.canary]
    assert len(canaries) == 1 and world.rows(rollout_id)[canaries[0]].wave == 0
    ended = world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"2.0"}
    assert set(world.states(rollout_id).values()) == {DONE}
    assert ended.canaries_soaked_at is not None and ended.ended_at is not None and ended.moved_at is not None
    rows = world.rows(rollout_id).values()
    others = [row.moving_at for row in rows if not row.canary]
    assert all(moving_at is not None and moving_at >= ended.canaries_soaked_at for moving_at in others)
    assert world.most_exposed <= 2
    assert world.kinds(rollout_id) == ["drafted", "started", "canaries-soaked", "succeeded"]


@ON_SQLITE
def test_a_failed_canary_shuts_the_gate(database: Database, settings: Settings) -> None:
    world = World(database, settings, 4)
    spec = RolloutSpec(group_id=world.group_id, version="2.0", reason="monthly")
    (canary,) = (one.name for one in preview(database, spec, world.now).entering if one.id in _first(world, spec))
    world.nodes[canary].mood = Mood.FALLS_BACK
    rollout_id = begin(world)
    halted = world.run(rollout_id, until=RolloutState.HALTED)
    assert canary in halted.state_text
    for _ in range(6):
        world.tick()
    assert [name for name, node in world.nodes.items() if node.boots > 1] == [canary]
    assert set(world.versions().values()) == {"1.0"}  # a fallback is never success
    assert world.states(rollout_id)[canary] is FAILED
    assert {state for name, state in world.states(rollout_id).items() if name != canary} == {WAITING}
    assert all(world.open_operations(name) == 0 for name in world.nodes)


def _first(world: World, spec: RolloutSpec) -> frozenset[str]:
    return preview(world.db, spec, world.now).canaries


@ON_SQLITE
def test_the_gate_shuts_with_the_same_transaction_that_sees_the_failure(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3)
    rollout_id = begin(world)
    first = next(name for name, row in world.rows(rollout_id).items() if row.canary)
    world.nodes[first].mood = Mood.FALLS_BACK
    world.run_until(lambda: world.nodes[first].phase is Phase.CONFIRMING)
    world.act()  # the node reports, and the conductor gets no further than to write that down
    rollout_observe.observe(database, world.now)
    assert world.rollout(rollout_id).state is RolloutState.HALTED


@ON_SQLITE
def test_unhealthy_during_the_soak_rolls_back_what_it_touched(database: Database, settings: Settings) -> None:
    policy = replace(QUICK, failure_limit=Amount(count=0), on_failure=OnFailure.ROLL_BACK)
    world = World(database, settings, 6, policy)
    rollout_id = begin(world)
    canary = next(name for name, row in world.rows(rollout_id).items() if row.canary)
    for name, node in world.nodes.items():
        node.mood = Mood.WELL if name == canary else Mood.SICK
    ended = world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    assert set(world.versions().values()) == {"1.0"}
    touched = [name for name, node in world.nodes.items() if node.boots > 1]
    assert canary in touched and len(touched) <= 1 + 2  # canaries and one wave
    assert ended.ended_at is not None
    assert world.kinds(rollout_id)[-2:] == ["rolling-back", "rolled-back"] or "rolling-back" in world.kinds(rollout_id)
    assert {world.rows(rollout_id)[name].back_ended_at is not None for name in touched} == {True}


@ON_SQLITE
def test_a_silent_node_fails_at_its_deadline_and_nobody_fails_while_we_are_away(
    database: Database, settings: Settings
) -> None:
    world = World(database, settings, 2, replace(QUICK, canaries=Amount(count=0), failure_limit=Amount(count=1)))
    rollout_id = begin(world)
    world.nodes["n0"].mood = Mood.SILENT
    world.run_until(lambda: world.nodes["n0"].silent)
    world.heard = False
    for _ in range(20):  # ten minutes, and the deadline is two
        world.conduct()
        world.now += 30.0
    assert FAILED not in world.states(rollout_id).values()
    world.heard = True
    world.run_until(lambda: world.states(rollout_id)["n0"] is FAILED)
    row = world.rows(rollout_id)["n0"]
    assert row.result is not None and row.result.value == "timed-out"


@ON_SQLITE
def test_pause_says_who_finishes_and_resume_goes_on(database: Database, settings: Settings) -> None:
    world = World(database, settings, 5, replace(QUICK, canaries=Amount(count=0)))
    rollout_id = begin(world)
    world.run_until(lambda: any(node.phase is Phase.SOAKING for node in world.nodes.values()))
    finishing = service.pause(database, OPERATOR, rollout_id, "lunch", world.now)
    assert {one.name for one in finishing} == {
        name for name, node in world.nodes.items() if node.phase in (Phase.SOAKING, Phase.CONFIRMING, Phase.REBOOTING)
    }
    boots = {name: node.boots for name, node in world.nodes.items() if node.boots == 1}
    for _ in range(8):
        world.tick()
    assert {name: world.nodes[name].boots for name in boots} == boots
    assert world.rollout(rollout_id).state is RolloutState.PAUSED
    service.resume(database, OPERATOR, rollout_id, "", world.now)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"2.0"}


@ON_SQLITE
def test_pause_takes_back_a_lease_that_was_not_used(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, replace(QUICK, canaries=Amount(count=0)))
    rollout_id = begin(world)
    states = {RolloutNodeState.MOVING}
    world.run_until(lambda: states <= set(world.states(rollout_id).values()))
    assert all(node.phase is Phase.STAGED for node in world.nodes.values())  # granted, not heard of yet
    assert service.pause(database, OPERATOR, rollout_id, "", world.now) == []
    for _ in range(4):
        world.tick()
    assert {node.boots for node in world.nodes.values()} == {1}
    assert set(world.states(rollout_id).values()) == {WAITING}
    assert {node.passive.version for node in world.nodes.values()} == {"2.0"}  # staged stays staged
    service.resume(database, OPERATOR, rollout_id, "", world.now)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)


@ON_SQLITE
def test_terminal_is_terminal_and_late_reports_change_nothing(database: Database, settings: Settings) -> None:
    world = World(database, settings, 4, replace(QUICK, canaries=Amount(count=0)))
    rollout_id = begin(world)
    world.nodes["n3"].silent = True
    with database.write() as change:
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.name == "n3").values(connection="offline"))
    world.run_until(lambda: any(node.phase is Phase.CONFIRMING for node in world.nodes.values()))
    finishing = [one.name for one in service.abort(database, OPERATOR, rollout_id, "no", world.now)]
    aborted = world.rollout(rollout_id)
    for _ in range(8):
        world.tick()
    assert world.rollout(rollout_id).state is RolloutState.ABORTED
    assert (world.rollout(rollout_id).ended_at, world.rollout(rollout_id).state_text) == (
        aborted.ended_at,
        aborted.state_text,
    )
    states = world.states(rollout_id)
    assert {name for name, state in states.items() if state is DONE} == set(finishing)
    assert {state for name, state in states.items() if name not in finishing} == {LEFT}
    for move in (service.pause, service.resume, service.abort, service.roll_back):
        with pytest.raises(NotPossible):
            move(database, OPERATOR, rollout_id, "again", world.now)


@ON_SQLITE
def test_a_freeze_disarms_and_break_glass_passes_it(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, replace(QUICK, canaries=Amount(count=0)))
    rollout_id = begin(world)
    moving = {RolloutNodeState.MOVING}
    world.run_until(lambda: moving <= set(world.states(rollout_id).values()))
    freeze(database, OPERATOR, group_id=world.group_id, reason="fair", now=world.now)
    world.conduct()  # the leases were granted and not used: they are called back
    for _ in range(4):
        world.tick()
    assert {node.boots for node in world.nodes.values()} == {1}
    assert {node.passive.version for node in world.nodes.values()} == {"2.0"}
    with pytest.raises(Invalid):
        service.set_break_glass(database, OPERATOR, rollout_id, True, "", world.now)
    service.set_break_glass(database, OPERATOR, rollout_id, True, "security", world.now)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)


@ON_SQLITE
def test_shares_of_failures_and_what_says_nothing_about_the_version(database: Database, settings: Settings) -> None:
    """Two of five may fail; who refuses leaves the rollout, and who goes back unreached is held against no version."""
    policy = replace(QUICK, canaries=Amount(count=0), failure_limit=Amount(share=0.4), max_unavailable=Amount(count=6))
    world = World(database, settings, 6, policy)
    moods = (Mood.FALLS_BACK, Mood.REFUSES, Mood.UNREACHABLE)
    for node, mood in zip(world.nodes.values(), moods, strict=False):
        node.mood = mood
    rollout_id = begin(world)
    ended = world.run(rollout_id, until=RolloutState.SUCCEEDED)
    states = world.states(rollout_id)
    assert [states[name] for name in ("n0", "n1", "n2")] == [FAILED, LEFT, FAILED]
    assert ended.state_text.startswith("Ended: 3 done, 2 failed, 1 left")
    with database.read() as conn:
        failed = [row.node_id for row in conn.execute(schema.failed_versions.select())]
    assert failed == [world.nodes["n0"].id]


@ON_SQLITE
def test_a_canary_that_proves_nothing_is_replaced_and_the_gate_stays_shut(
    database: Database, settings: Settings
) -> None:
    world = World(database, settings, 3)
    rollout_id = begin(world)
    first = next(name for name, row in world.rows(rollout_id).items() if row.canary)
    world.run_until(lambda: world.nodes[first].phase is Phase.STAGING)
    world.nodes[first].give_way()
    world.run_until(lambda: world.states(rollout_id)[first] is LEFT)
    (second,) = (name for name, row in world.rows(rollout_id).items() if row.canary)
    assert second != first and world.rollout(rollout_id).canaries_soaked_at is None
    world.run_until(lambda: world.nodes[second].boots == 2)
    third = next(name for name in world.nodes if name not in (first, second))
    assert world.nodes[third].boots == 1
    ended = world.run(rollout_id, until=RolloutState.SUCCEEDED)
    row = world.rows(rollout_id)[third]
    assert ended.canaries_soaked_at is not None and row.moving_at is not None
    assert row.moving_at >= ended.canaries_soaked_at


@ON_SQLITE
def test_going_on_after_a_halt_forgives_and_takes_another_canary(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, replace(QUICK, failure_limit=Amount(count=0)))
    rollout_id = begin(world)
    first = next(name for name, row in world.rows(rollout_id).items() if row.canary)
    world.nodes[first].mood = Mood.FALLS_BACK
    world.run(rollout_id, until=RolloutState.HALTED)
    with pytest.raises(Invalid):
        service.resume(database, OPERATOR, rollout_id, "", world.now)
    service.resume(database, OPERATOR, rollout_id, "its disk was broken", world.now)
    assert [row.canary for name, row in world.rows(rollout_id).items() if name == first] == [False]
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert sorted(world.versions().values()) == ["1.0", "2.0", "2.0"]


def test_canaries_are_staged_first_whatever_the_others_draw(database: Database, settings: Settings) -> None:
    world = World(database, settings, 5, replace(QUICK, stage_jitter_s=3600.0))
    id = begin(world)
    with database.read() as conn:
        rows = conn.execute(select(schema.rollout_nodes).where(schema.rollout_nodes.c.rollout_id == id)).all()
    assert [row.stage_at for row in rows if row.canary] == [world.now]
    assert all(row.stage_at > world.now for row in rows if not row.canary)
