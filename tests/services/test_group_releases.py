"""What a group holds back is not let go unseen: by removing it, by narrowing its selector, by other labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.config import Settings
from app.core.errors import NotPossible
from app.core.group_policy import GroupPolicy
from app.core.policy_json import policy_to_builtins
from app.core.rollouts import RolloutNodeState
from app.services import freezes, groups, nodes
from app.services import rollouts as service
from app.services.groups import Wish
from app.services.rollout_spec import RolloutSpec
from app.services.rollout_start import start
from app.store import nodes as rows
from app.store.database import Database
from tests.rollout_kit import add_group
from tests.server_kit import NOW, OPERATOR
from tests.services.rollout_world import World
from tests.services.test_rollout_selectors import WIDE, shut_window
from tests.services.test_rollouts import ON_SQLITE
from wire.messages import Phase

pytestmark = ON_SQLITE

Take = Callable[[World, str], None]


def remove(world: World, group_id: str) -> None:
    groups.remove(world.db, OPERATOR, group_id, "merged", world.now)


def narrow(world: World, group_id: str) -> None:
    groups.change(world.db, OPERATOR, group_id, Wish(selector="zone=b,rack=1"), "racks", world.now)


def relabel(world: World, group_id: str) -> None:
    nodes.relabel(world.db, OPERATOR, world.nodes["n0"].id, {"role": "web"}, "moved", world.now)


TAKES = pytest.mark.parametrize("take", [remove, narrow, relabel])


def two_groups(db: Database, settings: Settings, policy: GroupPolicy) -> tuple[World, str]:
    """n0 is in web, and in zb, which decides and has this policy; n1 only in web."""
    world = World(db, settings, 0, WIDE)
    world.join("n0", {"role": "web", "zone": "b"})
    world.join("n1")
    with db.write() as change:
        group_id = add_group(
            change.conn, name="zb", selector="zone=b", precedence=50, policy=policy_to_builtins(policy)
        )
        change.touch("groups")
    return world, group_id


def rollout_of_web(world: World) -> None:
    spec = RolloutSpec(group_id=world.group_id, version="2.0", reason="monthly")
    rollout_id = service.draft(world.db, OPERATOR, spec, world.now)
    start(world.db, OPERATOR, rollout_id, "go", world.now, start_anyway=True)


def order_of_ana(world: World) -> None:
    nodes.update(world.db, OPERATOR, world.nodes["n0"].id, world.images["2.0"], "driver", world.now)


def stays(world: World) -> None:
    for _ in range(12):
        world.tick()
    assert world.versions()["n0"] == "1.0"


@TAKES
@pytest.mark.parametrize(("move", "by"), [(rollout_of_web, "rollout 1"), (order_of_ana, "the order of mb")])
def test_who_waits_for_a_window_is_not_freed_of_it(
    database: Database, settings: Settings, take: Take, move: Callable[[World], None], by: str
) -> None:
    world, group_id = two_groups(database, settings, replace(WIDE, windows=(shut_window(),)))
    move(world)
    world.tick()
    with pytest.raises(NotPossible, match=f"n0 waits for {by}, and the windows of group zb would not bind") as refused:
        take(world, group_id)
    assert refused.value.code == "released"
    stays(world)
    groups.change(database, OPERATOR, group_id, Wish(policy={"windows": None}), "no windows here", world.now)
    take(world, group_id)  # who has taken the windows away has said so


@TAKES
def test_who_waits_for_a_freeze_is_not_freed_of_it(database: Database, settings: Settings, take: Take) -> None:
    world, group_id = two_groups(database, settings, WIDE)
    freeze_id = freezes.freeze(database, OPERATOR, group_id=group_id, reason="sale", now=world.now)
    rollout_of_web(world)
    world.tick()
    with pytest.raises(NotPossible, match=r"frozen by mb: “sale”|n0 waits for rollout 1, and the freeze of group zb"):
        take(world, group_id)
    stays(world)
    freezes.lift(database, OPERATOR, freeze_id, "sale is over", world.now)
    take(world, group_id)
    world.run_until(lambda: set(world.versions().values()) == {"2.0"})


@TAKES
def test_where_nothing_waits_nothing_is_refused(database: Database, settings: Settings, take: Take) -> None:
    world, group_id = two_groups(database, settings, replace(WIDE, windows=(shut_window(),)))
    take(world, group_id)
    with database.read() as conn:
        node = rows.get(conn, world.nodes["n0"].id)
        assert node is not None
        assert [group.name for group in groups.groups_of_node(conn, node)] == ["web"]


def test_an_image_that_is_too_young_stays_so(database: Database, settings: Settings) -> None:
    world, group_id = two_groups(database, settings, replace(WIDE, minimum_age_s=3e7))
    rollout_of_web(world)
    with pytest.raises(NotPossible, match="the minimum age of images in group zb"):
        remove(world, group_id)


def other_group(world: World, selector: str, policy: GroupPolicy) -> str:
    """Of a higher precedence than web."""
    with world.db.write() as change:
        group_id = add_group(
            change.conn, name="fast", selector=selector, precedence=60, policy=policy_to_builtins(policy)
        )
        change.touch("groups")
    return group_id


def add_label(world: World, group_id: str) -> None:
    labels = {"role": "web", "fast": "yes"}
    nodes.relabel(world.db, OPERATOR, world.nodes["n0"].id, labels, "for billing", world.now)


def widen(world: World, group_id: str) -> None:
    groups.change(world.db, OPERATOR, group_id, Wish(selector="role=web"), "all", world.now)


@pytest.mark.parametrize("take", [add_label, widen])
def test_another_group_that_decides_from_now_on_frees_nobody(
    database: Database, settings: Settings, take: Take
) -> None:
    """The group with the windows still takes the node, but they are its windows no more."""
    world = World(database, settings, 1, replace(WIDE, windows=(shut_window(),)))
    group_id = other_group(world, "fast=yes", WIDE)
    rollout_of_web(world)
    world.tick()
    with pytest.raises(NotPossible, match="n0 waits for rollout 1, and the windows of group web would not bind it"):
        take(world, group_id)
    stays(world)
    groups.change(database, OPERATOR, group_id, Wish(policy={"windows": windows_of(world)}), "too", world.now)
    take(world, group_id)  # the same windows: it is bound as before
    stays(world)


def windows_of(world: World) -> Any:
    return policy_to_builtins(replace(WIDE, windows=(shut_window(),)))["windows"]


@pytest.mark.parametrize("starts_s", [0.0, 3600.0])
def test_a_group_with_a_freeze_is_not_removed(database: Database, settings: Settings, starts_s: float) -> None:
    world = World(database, settings, 0, WIDE)
    freezes.freeze(database, OPERATOR, group_id=world.group_id, reason="sale", now=NOW, starts_at=NOW + starts_s)
    with pytest.raises(NotPossible, match=r"frozen by mb: “sale”\. Lift that freeze first") as refused:
        remove(world, world.group_id)
    assert refused.value.code == "frozen"
    with database.read() as conn:
        assert len(freezes.standing(conn, world.group_id, NOW)) == 1


def test_who_holds_an_unused_lease_is_not_freed_of_a_freeze(database: Database, settings: Settings) -> None:
    """It has not armed: what it asks for again is held by the freeze."""
    world = World(database, settings, 2, WIDE)
    node = world.nodes["n0"]
    spec = RolloutSpec(node_ids=(node.id, world.nodes["n1"].id), version="2.0", reason="monthly")
    rollout_id = service.draft(world.db, OPERATOR, spec, world.now)
    start(world.db, OPERATOR, rollout_id, "go", world.now)
    world.run_until(lambda: world.states(rollout_id)["n0"] is RolloutNodeState.MOVING and node.phase is Phase.STAGED)
    freezes.freeze(database, OPERATOR, group_id=world.group_id, reason="sale", now=world.now)
    with pytest.raises(NotPossible, match="n0 waits for rollout 1, and the freeze of group web"):
        nodes.relabel(world.db, OPERATOR, node.id, {"role": "db"}, "moved", world.now)
    world.run_until(lambda: node.phase is Phase.REBOOTING)
    nodes.relabel(world.db, OPERATOR, node.id, {"role": "db"}, "moved", world.now)  # nothing could hold it any more
