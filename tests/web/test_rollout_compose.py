"""Composing a rollout: which nodes, where to, under which policy. What is typed is kept, and nothing starts."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from app.core.group_policy import Amount
from app.core.rollouts import RolloutKind, RolloutState
from app.store import channels, images, rollout_nodes, rollouts
from app.store.database import Database
from app.store.rollouts import Rollout
from app.store.schema import nodes
from tests import rollout_kit
from tests import server_kit as kit
from tests.web.console_kit import Browser
from tests.web.seed import NEW

TO_NEW = f"version:{NEW}"


@pytest.fixture
def composer(seeded: Browser, database: Database) -> Browser:
    with database.write() as change:
        rollout_kit.add_group(change.conn, "web", policy={"max_unavailable": {"count": 4}, "timing": {"soak_s": 60.0}})
    return seeded


def newest(database: Database) -> Rollout:
    with database.read() as conn:
        [found] = rollouts.newest(conn, limit=1)
    return found


def test_a_group_is_drafted_and_nothing_starts(composer: Browser, database: Database) -> None:
    response = composer.fill("/rollouts/new?group=web", "/new", target=TO_NEW, reason="monthly update")
    made = newest(database)
    assert response.location == f"/rollouts/{made.number}"
    assert (made.state, made.group_name, made.version, made.actor) == (RolloutState.DRAFT, "web", NEW, "mb")
    assert made.policy.max_unavailable == Amount(count=4)
    assert composer.get(response.location).status_code == 200


def test_the_policy_is_the_groups_unless_changed_here(composer: Browser, database: Database) -> None:
    composer.fill(
        "/rollouts/new?group=web", "/new", target=TO_NEW, reason="x", canaries="5%", soak_s="2h", on_failure="roll-back"
    )
    policy = newest(database).policy
    assert policy.canaries == Amount(share=0.05)
    assert policy.timing.soak_s == 7200
    assert policy.on_failure == "roll-back"
    assert policy.max_unavailable == Amount(count=4), "what was not changed stays the group's"


def test_nodes_of_a_filter_are_chosen_one_by_one(composer: Browser, database: Database) -> None:
    path = "/rollouts/new?q=label%3Arole%3Ddb+not+admission%3Apending"
    composer.fill(path, "/new", target=TO_NEW, reason="only the databases")
    made = newest(database)
    assert made.group_id is None
    with database.read() as conn:
        chosen = {row.name.partition("-")[0] for row in rollout_nodes.all_of(conn, made.id)}
    assert chosen == {"db"}


def test_a_reboot_needs_no_version(composer: Browser, database: Database) -> None:
    composer.fill("/rollouts/new?group=web", "/new", kind="reboot", reason="microcode")
    assert newest(database).kind is RolloutKind.REBOOT


def test_where_to_is_preset_by_the_link_that_led_here(composer: Browser, database: Database) -> None:
    assert composer.form(f"/rollouts/new?group=web&target={TO_NEW}", "/new").values["target"] == TO_NEW
    assert TO_NEW.replace(":", "%3A") in composer.get(f"/rollouts/new?target={TO_NEW}").text
    assert composer.form(f"/rollouts/new?group=web&version={NEW}", "/new").values["target"] == TO_NEW
    with database.read() as conn:
        [image] = images.of_version(conn, NEW)
        [stable] = [channel for channel in channels.all_channels(conn) if channel.name == "stable"]
    assert composer.form(f"/rollouts/new?group=web&image={image.id}", "/new").values["target"] == TO_NEW
    assert (
        composer.form(f"/rollouts/new?group=web&channel={stable.id}", "/new").values["target"] == f"channel:{stable.id}"
    )


def test_where_to_is_preset_only_where_it_leads_somewhere_else(composer: Browser, database: Database) -> None:
    """A group follows stable, which points at NEW: once all its nodes run that, a person has to choose."""
    with database.write() as change:
        [stable] = [channel for channel in channels.all_channels(change.conn) if channel.name == "stable"]
        rollout_kit.add_group(change.conn, "db", selector="role=db", channel_id=stable.id)
    path = "/rollouts/new?group=db"
    assert composer.form(path, "/new").values["target"] == f"channel:{stable.id}"
    with database.write() as change:
        change.conn.execute(update(nodes).values(version=NEW))
    assert composer.form(path, "/new").values["target"] == ""


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"reason": ""}, "Say why"),
        ({"target": ""}, "Choose where to"),
        ({"target": "version:0.0.0"}, "There is no image of version"),
        ({"canaries": "many"}, "is not a number of nodes"),
        ({"canaries": "200%"}, "at most 1 (100 %)"),
        ({"soak_s": "soon"}, "is no duration"),
    ],
)
def test_what_cannot_be_used_is_said_and_what_was_typed_is_kept(
    composer: Browser, database: Database, typed: dict[str, str], said: str
) -> None:
    values = {"target": TO_NEW, "reason": "because <it> must", "failure_limit": "7"} | typed
    response = composer.fill("/rollouts/new?group=web", "/new", **values)
    assert response.status_code == 422
    assert said in response.text
    assert 'value="7"' in response.text
    assert "reason" in typed or "because &lt;it&gt; must" in response.text
    assert kit.count_rows(database, rollout_kit.schema.rollouts) == 0


@pytest.mark.parametrize(
    ("q", "said"), [("health:nonsense", "is no health"), ("name:nobody", "No node fits"), ('"open', "not closed")]
)
def test_a_filter_that_leads_nowhere_is_said_where_it_was_typed(composer: Browser, q: str, said: str) -> None:
    page = composer.get("/rollouts/new", query_string={"q": q})
    assert page.status_code == 200
    assert said in page.text


def test_an_unknown_group_is_not_found(composer: Browser) -> None:
    assert composer.get("/rollouts/new?group=nobody").status_code == 404


def test_sent_twice_it_drafts_once(composer: Browser, database: Database) -> None:
    form = composer.form("/rollouts/new?group=web", "/new")
    for _ in range(2):
        assert composer.submit("/rollouts/new", form, target=TO_NEW, reason="once").status_code == 303
    assert kit.count_rows(database, rollout_kit.schema.rollouts) == 1


def test_without_groups_the_next_step_is_shown(seeded: Browser) -> None:
    page = seeded.get("/rollouts/new").text
    assert "twinroot group add web" in page
