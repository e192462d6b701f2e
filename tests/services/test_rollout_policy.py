"""Start freezes the policy: its group's as it is then, with what the rollout has of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import delete, update

from app.config import Settings
from app.core.errors import Invalid, NotPossible
from app.core.group_policy import Amount, Follow, GroupPolicy
from app.core.policy_json import policy_to_builtins, with_changes
from app.core.rollouts import RolloutState
from app.services import following
from app.services import rollouts as service
from app.services.rollout_preview import preview
from app.services.rollout_spec import RolloutSpec
from app.services.rollout_start import start
from app.store import channels, rollouts, schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import OPERATOR
from tests.services.rollout_world import QUICK, World
from tests.services.test_rollout_breaks import Between
from tests.services.test_rollouts import ON_SQLITE

pytestmark = ON_SQLITE

ZONED = {"domain_label": "zone"}
OWN = {"canaries": {"count": 2}, "timing": {"soak_s": 33.0}}


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    return World(database, settings, 3)


def draft(world: World, **given: Any) -> str:
    spec = RolloutSpec(**({"group_id": world.group_id, "version": "2.0", "reason": "monthly"} | given))
    return service.draft(world.db, OPERATOR, spec, world.now)


def set_group(world: World, policy: GroupPolicy, **columns: Any) -> None:
    with world.db.write() as change:
        values = {"policy": policy_to_builtins(policy), **columns}
        change.conn.execute(update(schema.groups).where(schema.groups.c.id == world.group_id).values(**values))
        change.touch("groups")


def test_the_groups_policy_of_the_start_counts_and_what_is_the_rollouts_own(world: World) -> None:
    rollout_id = draft(world, overrides=OWN)
    set_group(world, replace(QUICK, canaries=Amount(count=3), max_unavailable=Amount(count=1), failure_least=7))
    before = preview(world.db, rollout_id, world.now)
    assert before.drafted is not None and before.drafted.policy.max_unavailable == QUICK.max_unavailable
    start(world.db, OPERATOR, rollout_id, "go", world.now)
    policy = world.rollout(rollout_id).policy
    assert policy == before.rollout.policy
    assert (policy.max_unavailable, policy.failure_least) == (Amount(count=1), 7), "the group's"
    assert (policy.canaries, policy.timing.soak_s) == (Amount(count=2), 33.0), "its own"
    assert policy.timing.confirm_s == QUICK.timing.confirm_s
    set_group(world, QUICK)
    assert world.rollout(rollout_id).policy == policy, "frozen"


def test_a_whole_policy_of_its_own_follows_no_group(world: World) -> None:
    own = replace(QUICK, canaries=Amount(count=2))
    rollout_id = draft(world, policy=own)
    set_group(world, replace(QUICK, failure_least=7))
    start(world.db, OPERATOR, rollout_id, "go", world.now)
    assert world.rollout(rollout_id).policy == own


@pytest.mark.parametrize(
    "given",
    [
        {"domain_label": "zone", "max_per_domain": 1},
        {"domain_label": "zone", "one_domain_after_another": True},
        {"windows": [{"days": ["mon"], "opens": "01:00", "closes": "02:00", "zone": "UTC"}]},
        {"minimum_age_s": 3600.0},
        {"health_gate": False},
        {"absent_after_s": 60.0},
        {"follow": "at-once"},
    ],
)
def test_what_binds_as_the_group_has_it_is_refused_for_one_rollout(world: World, given: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        draft(world, overrides=given)
    assert refused.value.field in given and "in the group" in refused.value.text
    with world.db.read() as conn:
        assert rollouts.newest(conn, limit=1) == []


def test_what_does_not_fit_the_group_any_more_is_said_and_starts_nothing(world: World) -> None:
    set_group(world, with_changes(QUICK, ZONED))
    rollout_id = draft(world)
    with world.db.write() as change:  # by a version that let a rollout have this of its own
        change.conn.execute(update(schema.rollouts).values(overrides={"one_domain_after_another": True}))
    set_group(world, QUICK)
    assert "domain" in preview(world.db, rollout_id, world.now).invalid
    with pytest.raises(NotPossible, match="has changed"):
        start(world.db, OPERATOR, rollout_id, "go", world.now)
    assert world.rollout(rollout_id).state is RolloutState.DRAFT


def test_a_group_that_changes_in_the_moment_of_the_start_is_looked_at_again(world: World) -> None:
    rollout_id = draft(world)
    between = Between(world.db, lambda: set_group(world, replace(QUICK, failure_least=7)))
    with pytest.raises(NotPossible, match="look at the plan again"):
        start(between, OPERATOR, rollout_id, "go", world.now)
    assert world.rollout(rollout_id).state is RolloutState.DRAFT


def test_the_nodes_that_the_group_selects_at_the_start_are_taken(world: World) -> None:
    rollout_id = draft(world)
    world.join("special", {"role": "special"})
    set_group(world, QUICK, selector="role=special")
    start(world.db, OPERATOR, rollout_id, "go", world.now)
    assert list(world.rows(rollout_id)) == ["special"]
    assert world.rollout(rollout_id).selector == "role=special"


def test_of_a_group_that_is_gone_it_keeps_what_it_was_drafted_with(world: World) -> None:
    rollout_id = draft(world, overrides=OWN)
    with world.db.write() as change:
        change.conn.execute(delete(schema.groups))
        change.touch("groups")
    drafted = world.rollout(rollout_id).policy
    start(world.db, OPERATOR, rollout_id, "go", world.now)
    assert world.rollout(rollout_id).policy == drafted and drafted.canaries == Amount(count=2)


def test_a_group_that_does_not_follow_at_once_any_more_starts_nothing(world: World) -> None:
    with world.db.write() as change:
        stable = kit.add_channel(change.conn, "stable", world.images["2.0"])
        change.conn.execute(update(schema.groups).values(channel_id=stable))
    set_group(world, replace(QUICK, follow=Follow.AT_ONCE))
    with world.db.write() as change:
        found = channels.get(change.conn, stable)
        assert found is not None
        (rollout_id,) = following.draft_for(change, OPERATOR, found, "tuesday", world.now)
    set_group(world, QUICK)
    assert following.start_drafts(world.db, world.now) == 0
    set_group(world, replace(QUICK, follow=Follow.AT_ONCE))
    assert following.start_drafts(world.db, world.now) == 1
    assert world.rollout(rollout_id).state is RolloutState.RUNNING
