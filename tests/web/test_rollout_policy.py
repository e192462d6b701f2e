"""A draft whose group has changed says what differs, and Start follows the group."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from app.core.group_policy import Amount
from app.core.rollouts import RolloutState
from app.store import rollouts, schema
from app.store.database import Database
from app.store.rollouts import Rollout
from tests import rollout_kit
from tests import server_kit as kit
from tests.web.console_kit import Browser

POLICY: dict[str, Any] = {"max_unavailable": {"count": 2}, "domain_label": "zone", "health_gate": False}


@pytest.fixture
def group(browser: Browser, database: Database) -> str:
    with database.write() as change:
        gateway = kit.add_gateway(change.conn)
        kit.add_image(change.conn, "2.0")
        for _ in range(3):
            kit.add_node(change.conn, labels={"role": "web", "zone": "a"}, gateway_id=gateway)
        return rollout_kit.add_group(change.conn, policy=POLICY)


def draft(browser: Browser, **typed: str) -> str:
    response = browser.fill("/rollouts/new?group=web", "/new", target="version:2.0", reason="monthly", **typed)
    assert response.status_code == 303
    return str(response.location)


def set_group(database: Database, **policy: Any) -> None:
    with database.write() as change:
        change.conn.execute(update(schema.groups).values(policy=policy))
        change.touch("groups")


def stored(database: Database) -> Rollout:
    with database.read() as conn:
        [found] = rollouts.newest(conn, limit=1)
    return found


def test_only_what_was_typed_otherwise_is_the_rollouts_own(browser: Browser, database: Database, group: str) -> None:
    draft(browser, canaries="2")
    assert stored(database).overrides == {"canaries": {"count": 2}}


def test_what_binds_as_the_group_has_it_is_stated_and_not_offered(
    browser: Browser, database: Database, group: str
) -> None:
    set_group(database, **POLICY | {"max_per_domain": 3, "minimum_age_s": 3600})
    page = browser.get("/rollouts/new?group=web").text
    assert "per zone: at most 3 at once; windows: always open; age of an image: at least 1 h" in page
    assert 'name="domain_label"' not in page and 'name="max_per_domain"' not in page
    form = browser.form("/rollouts/new?group=web", "/new")
    sent = form.values | {"target": "version:2.0", "reason": "monthly", "max_per_domain": "1"}
    refused = browser.client.post("/rollouts/new", data=sent)
    assert refused.status_code == 422 and "max_per_domain binds as the group has it" in refused.text


def test_what_the_group_lets_be_missing_binds_beside_the_rollouts_own(
    browser: Browser, database: Database, group: str
) -> None:
    """Three nodes of which the group lets two be missing: whatever is typed for the rollout, no more go."""
    composed = browser.get("/rollouts/new?group=web").text
    assert "missing at once: at most 2 nodes, whatever the cause" in composed and "the stricter one binds" in composed
    path = draft(browser, max_unavailable="100%")
    page = browser.get(path).text
    assert "Group web binds: at most 2 of 3 nodes missing at once." in page
    assert "<dd>at most 3 of this rollout’s 3 nodes (100 %), from the lease to the end of the soak</dd>" in page
    assert "<dt>Missing at once</dt><dd>group web: at most 2 of 3 nodes, whatever the cause</dd>" in page
    browser.fill(f"{path}/start", "/start", confirm="web")
    set_group(database, **POLICY | {"max_unavailable": {"count": 1}, "max_per_domain": 1})
    running = browser.get(path).text
    assert "<dd>at most 100 % of this rollout, from the lease" in running
    assert "<dd>group web: at most 1 node, whatever the cause</dd>" in running, "as the group has it now"
    assert "<dt>Per zone</dt><dd>at most 1 at once</dd>" in running


def test_a_draft_shows_what_its_group_changed_since(browser: Browser, database: Database, group: str) -> None:
    path = draft(browser, canaries="2")
    assert "has changed since" not in browser.get(path).text
    set_group(database, **POLICY | {"max_unavailable": {"count": 1}, "canaries": {"count": 3}})
    page = browser.get(path).text
    assert "The group has changed since this was drafted." in page
    assert 'Most missing at once: <b>1</b> <span class="muted">instead of 2</span>' in page
    assert "instead of 1" not in page, "its own canaries stay"
    browser.fill(f"{path}/start", "/start", confirm="web")
    started = stored(database)
    assert started.state is RolloutState.RUNNING
    assert (started.policy.max_unavailable, started.policy.canaries) == (Amount(count=1), Amount(count=2))


def test_what_does_not_fit_any_more_is_said_and_not_started(browser: Browser, database: Database, group: str) -> None:
    path = draft(browser)
    with database.write() as change:  # by a version that let a rollout have this of its own
        change.conn.execute(update(schema.rollouts).values(overrides={"one_domain_after_another": True}))
    set_group(database, max_unavailable={"count": 2})
    page = browser.get(path).text
    assert "It cannot be started." in page and f'href="{path}/start"' not in page
    refused = browser.fill(f"{path}/start", "/start", confirm="web")
    assert refused.status_code == 409 and "does not fit" in refused.text
    assert stored(database).state is RolloutState.DRAFT
