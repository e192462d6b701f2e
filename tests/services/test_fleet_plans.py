"""Whoever watches rollouts shares one plan; what a start writes down of its plan counts waves as its nodes do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import func, select, update

from app.config import Settings
from app.core.plan import Plan
from app.core.planner import plan
from app.core.rollouts import RolloutNodeState
from app.core.snapshot import MoveTimes, Snapshot
from app.services import freezes
from app.services.fleet_plans import PACE_S, FleetPlans
from app.services.rollout_preview import preview
from app.services.rollout_spec import RolloutSpec
from app.services.rollout_start import start
from app.services.rollouts import draft, roll_back
from app.store.database import Database
from app.store.schema import rollout_nodes
from tests import server_kit as kit
from tests.services.rollout_world import QUICK, World
from tests.services.test_rollout_breaks import WIDE
from tests.services.test_rollouts import ON_SQLITE, begin

pytestmark = ON_SQLITE


class Counted:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self, snapshot: Snapshot) -> Plan:
        self.times += 1
        return plan(snapshot)


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    return World(database, settings, 3, QUICK)


def test_a_fleet_that_did_not_change_is_not_planned_again(world: World) -> None:
    rollout_id = begin(world)
    counted = Counted()
    plans = FleetPlans(counted)
    seen = preview(world.db, rollout_id, world.now, plans)
    assert seen.waves() and seen.estimate.high_s > 0
    preview(world.db, rollout_id, world.now + 2 * PACE_S, plans)
    assert counted.times == 1
    preview(world.db, rollout_id, world.now + 20 * PACE_S, plans)
    assert counted.times == 2, "time alone changes it in the end"


def test_a_rollout_that_is_sent_back_is_planned_anew_at_once(world: World) -> None:
    """Before that its plan said of nodes that wait that they never move; they left."""
    rollout_id = begin(world)
    counted = Counted()
    plans = FleetPlans(counted)
    assert preview(world.db, rollout_id, world.now, plans).candidates
    roll_back(world.db, kit.OPERATOR, rollout_id, "it is slow", world.now)
    assert not preview(world.db, rollout_id, world.now + 1, plans).candidates
    preview(world.db, rollout_id, world.now + 2, plans)
    assert counted.times == 2


def test_a_fleet_that_changes_is_planned_at_a_pace_for_all_rollouts_together(world: World) -> None:
    first, counted = begin(world), Counted()
    plans = FleetPlans(counted)
    for _ in range(3):
        world.tick(5.0)
        preview(world.db, first, world.now, plans)
    assert counted.times == 1
    world.tick(PACE_S)
    preview(world.db, first, world.now, plans)
    assert counted.times == 2
    plans.get(world.db, world.now - 3600.0)
    assert counted.times == 3, "the clock was set back"


def test_what_a_person_decides_is_seen_at_once(world: World) -> None:
    rollout_id = begin(world)
    plans = FleetPlans()
    preview(world.db, rollout_id, world.now, plans)
    freeze_id = freezes.freeze(
        world.db, kit.OPERATOR, group_id=None, reason="holidays", now=world.now + 1, ends_at=None
    )
    assert "frozen" in preview(world.db, rollout_id, world.now + 1, plans).estimate.never
    freezes.lift(world.db, kit.OPERATOR, freeze_id, "over", world.now + 2)
    assert not preview(world.db, rollout_id, world.now + 3, plans).estimate.never


def test_the_worst_moment_names_the_wave_that_its_nodes_have(world: World) -> None:
    """The other carrier is in another group, so that the one in this rollout is the moment."""
    ahead, other = (world.join(name, {"role": "db"}) for name in ("ahead", "other"))
    with world.db.write() as change:
        for node in (world.nodes["n1"], other):
            kit.add_container(change.conn, node.id, f"shop-{node.name}", scope="shop", service="cart", replicas=2)
    begin(world, group_id=None, node_ids=(ahead.id,), policy=replace(WIDE, stage_jitter_s=0.0))
    rollout_id = begin(world)
    forecast = world.rollout(rollout_id).forecast
    assert forecast is not None
    (worst,) = forecast["worst"]
    row = world.rows(rollout_id)["n1"]
    assert (worst["name"], worst["wave"]) == ("cart", row.wave) and row.wave > 0


def test_who_is_in_no_wave_of_the_plan_makes_none_more(world: World) -> None:
    """One was left out, one is held: they stand with the last wave, as those who join later do."""
    held, out = world.nodes["n2"], world.join("out")
    with world.db.write() as change:
        kit.add_container(change.conn, held.id, "ledger", scope="shop", service="ledger")
    spec = RolloutSpec(group_id=world.group_id, version="2.0", reason="monthly", left_out=(out.id,))
    rollout_id = draft(world.db, kit.OPERATOR, spec, world.now)
    start(world.db, kit.OPERATOR, rollout_id, "go", world.now, start_anyway=True)
    rows, forecast = world.rows(rollout_id), world.rollout(rollout_id).forecast
    assert forecast is not None and forecast["impossible"]
    planned = [rows[name].wave for name in ("n0", "n1")]
    assert [rows[name].wave for name in ("n2", "out")] == [max(planned)] * 2 and max(planned) == 1


def test_the_range_is_counted_with_the_nodes_that_moved(world: World) -> None:
    """Before that its policy's deadlines are the most; the plan says which."""
    rollout_id = begin(world)
    before = preview(world.db, rollout_id, world.now).estimate
    assert before.moved is None
    took = {"state": RolloutNodeState.MOVING.value, "moving_at": world.now, "confirmed_at": world.now + 12.0}
    with world.db.write() as change:
        mine = rollout_nodes.c.rollout_id == rollout_id
        first = select(func.min(rollout_nodes.c.node_id)).where(mine).scalar_subquery()
        change.conn.execute(update(rollout_nodes).where(mine, rollout_nodes.c.node_id == first).values(took))
    after = preview(world.db, rollout_id, world.now).estimate
    assert after.moved == MoveTimes(1, 12.0, 12.0)
    assert after.high_s < before.high_s
