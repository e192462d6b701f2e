"""What a rollout may take although it is the only replica: for its own nodes, forth and back, by real names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.config import Settings
from app.core.errors import Invalid
from app.core.group_policy import Amount
from app.core.rollouts import RolloutState
from app.services import rollouts as service
from app.services.rollout_preview import preview
from app.services.rollout_reverse import reverse
from app.services.rollout_spec import RolloutSpec
from app.services.rollout_start import start
from app.services.service_watch import ServiceWatch
from app.store import rollouts
from app.store import services as rows
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR
from tests.services.rollout_world import QUICK, World
from tests.services.test_rollouts import ON_SQLITE

DB = ("shop", "db")
POLICY = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=3))


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    """Two nodes; one of them has the only replica of shop/db."""
    found = World(database, settings, 2, POLICY)
    with database.write() as change:
        kit.add_container(change.conn, found.nodes["n0"].id, "db", scope="shop")
    ServiceWatch().step(database, NOW)
    return found


def spec(world: World, *allowances: tuple[str, str]) -> RolloutSpec:
    return RolloutSpec(
        group_id=world.group_id, version="2.0", allowances=frozenset(allowances), reason="monthly", policy=POLICY
    )


@ON_SQLITE
def test_what_let_it_go_forth_lets_it_go_back(database: Database, world: World) -> None:
    rollout_id = service.draft(database, OPERATOR, spec(world, DB), world.now)
    start(database, OPERATOR, rollout_id, "go", world.now)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    back_id = reverse(database, OPERATOR, rollout_id, "it is slow", world.now)
    assert world.rollout(back_id).allowances == {DB}
    world.run(back_id, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"1.0"}


@ON_SQLITE
def test_a_rollout_that_is_rolled_back_half_way_keeps_what_it_may(database: Database, world: World) -> None:
    rollout_id = service.draft(database, OPERATOR, spec(world, DB), world.now)
    start(database, OPERATOR, rollout_id, "go", world.now)
    world.run_until(lambda: world.nodes["n0"].version == "2.0")
    service.roll_back(database, OPERATOR, rollout_id, "it is slow", world.now)
    world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    assert set(world.versions().values()) == {"1.0"}


@ON_SQLITE
def test_without_it_the_preview_names_the_single_replica(database: Database, world: World) -> None:
    assert [one.subject for one in preview(database, spec(world), world.now).plan.impossible] == ["shop/db"]
    assert preview(database, spec(world, DB), world.now).plan.impossible == ()


def test_a_name_that_nobody_knows_is_refused(database: Database, world: World) -> None:
    with pytest.raises(Invalid, match="There is no service “shop/bd”") as refused:
        service.draft(database, OPERATOR, spec(world, DB, ("shop", "bd")), NOW)
    assert refused.value.field == "allowances"
    rollout_id = service.draft(database, OPERATOR, spec(world), NOW)
    with pytest.raises(Invalid, match="There is no service “db”"):
        service.allow_single(database, OPERATOR, rollout_id, ("", "db"), "at night", NOW)
    with database.read() as conn:
        found = rollouts.get(conn, rollout_id)
    assert found is not None and found.allowances == frozenset()


def test_known_is_what_runs_or_ran_what_is_declared_and_what_somebody_spoke_of(database: Database) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn, "a")
        kit.add_container(change.conn, node_id, "web", scope="")
        kit.add_container(change.conn, node_id, "db", scope="shop")
        kit.add_node(change.conn, "b", placement_known=False, declared=[["shop", "queue", 1]])
        rows.raise_peaks(change.conn, 1, {("shop", "gone"): 2})
        asked = [("edge", "web"), ("", "web"), DB, ("shop", "queue"), ("shop", "gone"), ("core", "web"), ("edge", "db")]
        assert rows.known(change.conn, asked, ["edge"]) & set(asked) == set(asked[:5])
