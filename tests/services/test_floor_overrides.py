"""Ways back that floors or an unknown placement hold, and the operator who lets them go: by the node, by the rollout,
while they are under way. Nothing lets itself go, and each is in the audit log with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from app.config import Settings
from app.core.errors import Invalid, NotPossible
from app.core.group_policy import Amount, OnFailure
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import admission_renew, floor_overrides, nodes
from app.services import rollouts as service
from app.services.rollout_reverse import reverse, reverse_group
from app.store import nodes as rows
from app.store import schema
from app.store import services as service_rows
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR
from tests.services.rollout_world import QUICK, World
from tests.services.test_rollout_breaks import offline
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import Phase

pytestmark = ON_SQLITE

WIDE = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=4), failure_limit=Amount(count=9))
SITS = 6
"""Ticks after which whoever may go has gone."""


def run_service(world: World, *names: str) -> None:
    """A replica of web/db on each, and all of them are expected: the floor is one less."""
    with world.db.write() as change:
        for name in names:
            kit.add_container(change.conn, world.nodes[name].id, "db", scope="web")
        service_rows.raise_peaks(change.conn, int(NOW // 86_400), {("web", "db"): len(names)})
        change.touch("services")


def dies(world: World, name: str) -> None:
    world.nodes[name].silent = True
    offline(world, [name])


def updated(world: World) -> str:
    """All nodes run 2.0, three of them serve, and one of these has died."""
    run_service(world, "n0", "n1", "n2")
    rollout_id = begin(world)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    dies(world, "n2")
    world.tick()
    return rollout_id


def sit(world: World) -> None:
    for _ in range(SITS):
        world.tick()


def overrides(world: World) -> list[tuple[str, str, str, Any]]:
    """Audit entries that let something go below floors: (action, actor, reason, what it is now)."""
    with world.db.read() as conn:
        rows = conn.execute(select(schema.audit).order_by(schema.audit.c.id)).all()
    return [
        (row.action, row.actor_name, row.reason, row.after["override_floor"])
        for row in rows
        if (row.after or {}).get("override_floor")
    ]


def holds(world: World, rollout_id: str) -> dict[str, str]:
    return {name: row.hold["code"] for name, row in world.rows(rollout_id).items() if row.hold is not None}


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    return World(database, settings, 4, WIDE)


def test_a_node_that_is_going_back_is_let_go_by_its_open_order(world: World) -> None:
    back = reverse(world.db, OPERATOR, updated(world), "latency doubled", world.now)
    sit(world)
    assert world.versions() == {"n0": "2.0", "n1": "2.0", "n2": "2.0", "n3": "1.0"}
    assert holds(world, back) == {"n0": "service-floor", "n1": "service-floor", "n2": "offline"}
    node, order = world.nodes["n0"], world.rows(back)["n0"].operation_id
    with pytest.raises(NotPossible, match=r"going back to 1\.0 already"):
        nodes.roll_back(world.db, OPERATOR, node.id, "again", world.now)
    with pytest.raises(Invalid):
        nodes.roll_back(world.db, OPERATOR, node.id, "", world.now, override_floor=True)
    assert overrides(world) == []
    assert nodes.roll_back(world.db, OPERATOR, node.id, "users wait", world.now, override_floor=True) == order
    with pytest.raises(NotPossible, match="already"):
        nodes.roll_back(world.db, OPERATOR, node.id, "twice", world.now, override_floor=True)
    world.run_until(lambda: world.states(back)["n0"] is RolloutNodeState.DONE, ticks=12)
    assert world.versions()["n0"] == "1.0"
    assert world.versions()["n1"] == "2.0", "nobody let that one go"
    assert overrides(world) == [("node.rollback", OPERATOR.name, "users wait", True)]
    assert "changed" in world.kinds(back)


def goes_back(world: World, rollout_id: str, name: str) -> bool:
    with world.db.read() as conn:
        found = world.rows(rollout_id)[name]
        query = select(schema.operations.c.override_floor).where(schema.operations.c.id == found.operation_id)
        return bool(conn.execute(query).scalar_one())


@pytest.mark.parametrize("how", ["reverse", "wave", "group"])
def test_what_is_rolled_back_is_let_go_below_floors_with_it(world: World, how: str) -> None:
    rollout_id = updated(world)
    ways: dict[str, Callable[[], str]] = {
        "reverse": lambda: reverse(world.db, OPERATOR, rollout_id, "bad", world.now, override_floor=True),
        "wave": lambda: reverse(world.db, OPERATOR, rollout_id, "bad", world.now, wave=1, override_floor=True),
        "group": lambda: reverse_group(world.db, OPERATOR, world.group_id, "bad", world.now, override_floor=True),
    }
    back = ways[how]()
    sit(world)
    sent = {name for name, row in world.rows(back).items() if row.operation_id is not None}
    assert {name for name, version in world.versions().items() if version == "1.0"} == sent
    assert {"n0", "n1"} & sent and all(goes_back(world, back, name) for name in sent)
    assert overrides(world) == [("rollout.override-floor", OPERATOR.name, "bad", True)]


def test_a_whole_rollout_is_let_go_when_it_is_rolled_back(world: World) -> None:
    run_service(world, "n0", "n1", "n2")
    rollout_id = begin(world)
    world.run_until(lambda: all(world.nodes[name].version == "2.0" for name in ("n0", "n1")))
    world.run_until(lambda: list(world.states(rollout_id).values()).count(RolloutNodeState.DONE) >= 3)
    service.pause(world.db, OPERATOR, rollout_id, "", world.now)
    dies(world, "n2")
    sit(world)
    with pytest.raises(NotPossible, match="does not lead back"):
        floor_overrides.override_rollout(world.db, OPERATOR, rollout_id, "too early", world.now)
    with pytest.raises(Invalid):
        service.roll_back(world.db, OPERATOR, rollout_id, "", world.now, override_floor=True)
    service.roll_back(world.db, OPERATOR, rollout_id, "it burns", world.now, override_floor=True)
    sit(world)
    assert {world.versions()[name] for name in ("n0", "n1")} == {"1.0"}
    assert overrides(world) == [("rollout.override-floor", OPERATOR.name, "it burns", True)]


def test_a_group_lets_also_those_go_that_its_running_update_moved(world: World) -> None:
    run_service(world, "n0", "n1", "n2")
    rollout_id = begin(world)
    world.run_until(lambda: {world.nodes[name].version for name in ("n0", "n1")} == {"2.0"})
    world.run_until(lambda: RolloutNodeState.MOVING not in world.states(rollout_id).values())
    dies(world, "n2")
    world.tick()
    reverse_group(world.db, OPERATOR, world.group_id, "bad", world.now, override_floor=True)
    sit(world)
    assert {world.versions()[name] for name in ("n0", "n1")} == {"1.0"}
    assert len(overrides(world)) >= 1


def breaks_the_engine(world: World) -> None:
    """2.0 is unhealthy in its soak, and nobody can see any more what runs on who booted it."""
    for node in world.nodes.values():
        if node.version == "2.0":
            node.healthy = node.phase is not Phase.SOAKING and node.healthy
            known = {"placement_known": False, "placement_reason": "the engine does not answer"}
            with world.db.write() as change:
                change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node.id).values(**known))
                change.touch(f"node:{node.id}")


def test_an_automatic_way_back_waits_where_nobody_knows_what_runs(database: Database, settings: Settings) -> None:
    """Rule 3, until somebody declares what runs there, or lets the rollout go (rule 7)."""
    policy = replace(WIDE, on_failure=OnFailure.ROLL_BACK, failure_limit=Amount(count=0))
    world = World(database, settings, 3, policy)
    run_service(world, "n0", "n1", "n2")
    rollout_id = begin(world)
    for _ in range(40):
        world.tick()
        breaks_the_engine(world)
    assert world.rollout(rollout_id).state is RolloutState.ROLLING_BACK
    stuck = {name for name, version in world.versions().items() if version == "2.0"}
    assert stuck and {holds(world, rollout_id)[name] for name in stuck} == {"placement-unknown"}
    assert overrides(world) == []
    floor_overrides.override_rollout(world.db, OPERATOR, rollout_id, "the engine is gone anyhow", world.now)
    with pytest.raises(NotPossible, match="so already"):
        floor_overrides.override_rollout(world.db, OPERATOR, rollout_id, "again", world.now)
    world.run(rollout_id, until=RolloutState.ROLLED_BACK, ticks=30)
    assert set(world.versions().values()) == {"1.0"}
    assert overrides(world) == [("rollout.override-floor", OPERATOR.name, "the engine is gone anyhow", True)]
    with pytest.raises(NotPossible, match="has ended"):
        floor_overrides.override_rollout(world.db, OPERATOR, rollout_id, "late", world.now)


def test_an_order_that_leads_forth_is_not_let_go(world: World) -> None:
    run_service(world, "n0", "n1", "n2")
    rollout_id = begin(world)
    dies(world, "n2")
    sit(world)
    assert holds(world, rollout_id)["n0"] == "service-floor"
    node_id = world.nodes["n0"].id
    assert floor_overrides.override_way_back(world.db, OPERATOR, node_id, "really", world.now) is None
    sit(world)
    assert {world.versions()[name] for name in ("n0", "n1")} == {"1.0"} and overrides(world) == []


def test_a_node_that_downloads_its_way_back_is_let_go_as_well(world: World) -> None:
    rollout_id = updated(world)
    world.overwrite("n0", "3.0")
    back = reverse(world.db, OPERATOR, rollout_id, "latency doubled", world.now)
    sit(world)
    assert holds(world, back)["n0"] == "service-floor"
    node, order = world.nodes["n0"], world.rows(back)["n0"].operation_id
    assert nodes.roll_back(world.db, OPERATOR, node.id, "users wait", world.now, override_floor=True) == order
    world.run_until(lambda: node.version == "1.0", ticks=12)
    assert world.versions()["n1"] == "2.0"
    assert overrides(world) == [("node.rollback", OPERATOR.name, "users wait", True)]


def leased(world: World, name: str) -> bool:
    """It holds a lease, and has not begun under it."""
    held = select(schema.leases.c.id).where(
        schema.leases.c.node_id == world.nodes[name].id, schema.leases.c.ended_at.is_(None)
    )
    with world.db.read() as conn:
        return conn.execute(held).first() is not None and world.nodes[name].phase is Phase.STAGED


@pytest.mark.parametrize("dead", [True, False])
def test_a_node_whose_renewal_a_floor_holds_is_let_go(world: World, dead: bool) -> None:
    """Its agent asks again for the lease of its way back, and another replica has died meanwhile."""
    run_service(world, "n0", "n1", "n2")
    world.run(begin(world), until=RolloutState.SUCCEEDED)
    reverse_group(world.db, OPERATOR, world.group_id, "latency doubled", world.now)
    node = world.nodes["n0"]
    world.run_until(lambda: leased(world, "n0"))
    if dead:
        dies(world, "n2")
        assert node.operation is not None
        node._ask(node.operation)
        world._say(node)
        world.tick()
        sit(world)
        assert node.version == "2.0" and leased(world, "n0")
        with world.db.read() as conn:
            found = rows.get(conn, node.id)
            assert found is not None and floor_overrides.held_way_back(conn, found) is not None
        order = nodes.roll_back(world.db, OPERATOR, node.id, "users wait", world.now, override_floor=True)
        assert found.operation is not None and order == found.operation.id
        world.run_until(lambda: node.version == "1.0", ticks=12)
        assert overrides(world) == [("node.rollback", OPERATOR.name, "users wait", True)]
    else:
        with pytest.raises(NotPossible, match="no floor holds it"):
            nodes.roll_back(world.db, OPERATOR, node.id, "users wait", world.now, override_floor=True)


def test_a_renewed_lease_is_held_by_nothing_any_more(world: World) -> None:
    run_service(world, "n0", "n1", "n2")
    world.run(begin(world), until=RolloutState.SUCCEEDED)
    reverse_group(world.db, OPERATOR, world.group_id, "latency doubled", world.now)
    node = world.nodes["n0"]
    world.run_until(lambda: leased(world, "n0"))
    with world.db.write() as change:
        said = {"code": "service-floor", "text": "asked again", "retry_s": 5.0, "nonce": "nonce-of-before"}
        change.conn.execute(update(schema.operations).where(schema.operations.c.node_id == node.id).values(hold=said))
    assert node.operation is not None
    node._ask(node.operation)
    world._say(node)
    with world.db.read() as conn:
        asked = rows.get(conn, node.id)
    assert asked is not None and asked.operation is not None
    admission_renew.renew(world.db, [asked.operation.id], world.now)
    with world.db.read() as conn:
        found = rows.get(conn, node.id)
    assert found is not None and found.operation is not None and found.operation.holds_lease
    assert found.operation.hold is None
