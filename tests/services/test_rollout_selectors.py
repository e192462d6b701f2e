"""A rollout of a group is about the group as it is now: who is not of it any more does not move by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select as sql_select
from sqlalchemy import update

from app.config import Settings
from app.core.group_policy import Amount, Window
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import freezes, groups, nodes, rollout_ending
from app.services import rollouts as service
from app.services.admission_apply import Chosen, apply
from app.services.admission_renew import renew
from app.services.groups import Wish
from app.services.node_views import read_setting
from app.services.rollout_spec import RolloutSpec
from app.services.rollout_start import start
from app.store import operations, schema
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR
from tests.services.rollout_world import QUICK, TICK_S, World
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import OperationKind

pytestmark = ON_SQLITE

WIDE = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=4))
DONE, LEFT, ORDERED = RolloutNodeState.DONE, RolloutNodeState.LEFT, RolloutNodeState.ORDERED


def shut_window() -> Window:
    opens = datetime.fromtimestamp(NOW, UTC) + timedelta(hours=6)
    closes = opens + timedelta(hours=1)
    return Window(frozenset(range(7)), f"{opens:%H:%M}", f"{closes:%H:%M}", "UTC")


def freeze(world: World) -> None:
    freezes.freeze(world.db, OPERATOR, group_id=world.group_id, reason="sale", now=world.now)


def waiting_world(db: Database, settings: Settings, *, frozen: bool) -> tuple[World, str]:
    """n0 and n2 in zone a, n1 and n3 in zone b; all of group web have staged, and wait for its window or its freeze."""
    world = World(db, settings, 0, WIDE if frozen else replace(WIDE, windows=(shut_window(),)))
    for number in range(4):
        world.join(f"n{number}", {"role": "web", "zone": "ab"[number % 2]})
    if frozen:
        freeze(world)
    spec = RolloutSpec(group_id=world.group_id, version="2.0", reason="monthly")
    rollout_id = service.draft(world.db, OPERATOR, spec, world.now)
    start(world.db, OPERATOR, rollout_id, "go", world.now, start_anyway=True)
    code = "freeze" if frozen else "window"
    world.run_until(lambda: {(row.hold or {}).get("code") for row in world.rows(rollout_id).values()} == {code})
    return world, rollout_id


def asking_world(db: Database, settings: Settings) -> tuple[World, str]:
    """As `waiting_world`, without window and freeze: all have staged and ask, and nobody has answered."""
    world = World(db, settings, 0, WIDE)
    for number in range(4):
        world.join(f"n{number}", {"role": "web", "zone": "ab"[number % 2]})
    rollout_id = begin(world)
    world.conduct()
    while not all(node.asked for node in world.nodes.values()):
        world.act()
    return world, rollout_id


def grant(world: World) -> None:
    world.admission.note({"*"})
    world.admission.tick(world.db, world.now)


def select(world: World, selector: str) -> None:
    groups.change(world.db, OPERATOR, world.group_id, Wish(selector=selector), "zones", world.now)


def relabel_zone_b(world: World) -> None:
    for name in ("n1", "n3"):
        nodes.relabel(world.db, OPERATOR, world.nodes[name].id, {"role": "lab"}, "moved", world.now)


def test_who_is_taken_out_of_the_group_leaves_and_passes_no_window(database: Database, settings: Settings) -> None:
    world, rollout_id = waiting_world(database, settings, frozen=False)
    select(world, "role=web,zone=a")
    for _ in range(12):
        world.tick()
    assert world.states(rollout_id) == {"n0": ORDERED, "n1": LEFT, "n2": ORDERED, "n3": LEFT}
    assert set(world.versions().values()) == {"1.0"}
    assert world.open_operations("n1") == 0  # it does not go on staging
    assert world.rows(rollout_id)["n1"].text == "it left the group, or the fleet"


@pytest.mark.parametrize(
    ("frozen", "take_out"),
    [(False, lambda world: select(world, "zone=a")), (False, relabel_zone_b), (True, relabel_zone_b)],
    ids=["window-selector", "window-labels", "freeze-labels"],
)
def test_admission_grants_them_nothing_before_they_have_left(
    database: Database, settings: Settings, frozen: bool, take_out: Callable[[World], None]
) -> None:
    world, rollout_id = waiting_world(database, settings, frozen=frozen)
    take_out(world)
    for _ in range(20):  # the step that takes them out looks only from time to time
        world.act()
        grant(world)
    assert set(world.versions().values()) == {"1.0"}
    world.conduct()
    assert {name for name, state in world.states(rollout_id).items() if state is LEFT} == {"n1", "n3"}


def test_what_a_plan_chose_before_a_node_left_the_group_is_not_granted(database: Database, settings: Settings) -> None:
    world, rollout_id = asking_world(database, settings)
    with database.read() as conn:
        seen = read_setting(conn, world.now)
    relabel_zone_b(world)
    chosen = [
        Chosen(row.operation_id or "", row.node_id, rollout_id, OperationKind.ACTIVATE, canary=False)
        for row in world.rows(rollout_id).values()
    ]
    granted = apply(database, seen, chosen, world.now).granted
    names = {row.operation_id: name for name, row in world.rows(rollout_id).items()}
    assert {names[operation_id] for operation_id in granted} == {"n0", "n2"}


def test_a_lease_is_called_back_from_who_is_not_of_the_group_any_more(database: Database, settings: Settings) -> None:
    world, rollout_id = asking_world(database, settings)
    grant(world)
    with database.read() as conn:
        assert len(operations.with_unused_leases(conn)) == 4
    relabel_zone_b(world)
    world.conduct()
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert world.versions() == {"n0": "2.0", "n1": "1.0", "n2": "2.0", "n3": "1.0"}
    assert world.states(rollout_id) == {"n0": DONE, "n1": LEFT, "n2": DONE, "n3": LEFT}


def test_a_lease_is_not_renewed_for_who_is_not_of_the_group_any_more(database: Database, settings: Settings) -> None:
    world, rollout_id = asking_world(database, settings)
    grant(world)
    relabel_zone_b(world)
    asking_anew = {row.operation_id or "": name for name, row in world.rows(rollout_id).items()}
    with database.write() as change:
        for operation_id in asking_anew:
            again = {"lease_nonce": f"again-{operation_id}", "lease_nonce_at": world.now, "lease_asked_at": world.now}
            change.conn.execute(update(schema.operations).where(schema.operations.c.id == operation_id).values(**again))
    renew(database, list(asking_anew), world.now)
    with database.read() as conn:
        rows = conn.execute(sql_select(schema.operations.c.id, schema.operations.c.hold)).all()
    held = {asking_anew[row.id] for row in rows if (row.hold or {}).get("code") == "other-group"}
    assert held == {"n1", "n3"}


def test_whom_a_wider_selector_brings_in_is_a_late_joiner(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, WIDE)
    world.join("db", {"role": "db"})
    rollout_id = begin(world)
    assert set(world.states(rollout_id)) == {"n0", "n1"}
    select(world, "*")
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"2.0"}
    assert world.states(rollout_id) == {"db": DONE, "n0": DONE, "n1": DONE}


def test_ways_back_go_on_for_who_is_not_of_the_group_any_more(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, replace(WIDE, max_unavailable=Amount(count=1)))
    rollout_id = begin(world)
    world.run_until(lambda: DONE in world.states(rollout_id).values())
    service.roll_back(database, OPERATOR, rollout_id, "slow pages", world.now)
    select(world, "role=other")
    world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    assert set(world.versions().values()) == {"1.0"}


def half_way(world: World) -> str:
    """A rollout that has moved one node at least, and whose others a slip in the selector has put out."""
    rollout_id = begin(world)
    world.run_until(lambda: DONE in world.states(rollout_id).values())
    select(world, "role=wbe")
    world.run_until(lambda: set(world.states(rollout_id).values()) == {DONE, LEFT})
    return rollout_id


def test_a_slip_in_the_selector_can_be_mended_before_the_rollout_ends(database: Database, settings: Settings) -> None:
    world = World(database, settings, 6, QUICK)
    rollout_id = half_way(world)
    for _ in range(5):
        world.tick()
    assert world.rollout(rollout_id).state is RolloutState.RUNNING
    select(world, "role=web")
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"2.0"}


def test_what_is_not_mended_ends_it_after_a_while(database: Database, settings: Settings) -> None:
    world = World(database, settings, 6, QUICK)
    rollout_id = half_way(world)
    left_at = max(row.ended_at or 0.0 for row in world.rows(rollout_id).values() if row.state is LEFT)
    with database.read() as conn:
        words = rollout_ending.mending_words(conn, world.rollout(rollout_id), left_at)
    assert words.endswith(
        "left its group: it ends in 5 min at the earliest, so that a slip in a selector or label can be mended"
    )
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert 0 <= world.now - left_at - rollout_ending.MENDING_S <= TICK_S
    with database.read() as conn:
        assert rollout_ending.mending_words(conn, world.rollout(rollout_id), world.now) == ""


def test_who_was_retired_is_not_waited_for(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, QUICK)
    rollout_id = begin(world)
    with database.write() as change:
        gone = update(schema.nodes).where(schema.nodes.c.id == world.nodes["n2"].id).values(admission="retired")
        change.conn.execute(gone)
        change.touch("nodes")
    world.nodes["n2"].silent = True
    world.run_until(lambda: set(world.states(rollout_id).values()) == {DONE, LEFT})
    with database.read() as conn:
        assert rollout_ending.mending_s(conn, world.rollout(rollout_id), world.now) == 0.0
