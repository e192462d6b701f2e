"""A draft under a freeze without an end can be started: it stages and waits, and the page says for what."""

from __future__ import annotations

import pytest

from app.core.rollouts import RolloutState
from app.services import rollout_steps
from app.services.freezes import freeze
from app.store import rollouts, schema
from app.store.database import Database
from tests import rollout_kit
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR
from tests.web.console_kit import Browser


@pytest.fixture
def path(browser: Browser, database: Database) -> str:
    """Address of a draft for two nodes while the whole fleet is frozen."""
    with database.write() as change:
        gateway = kit.add_gateway(change.conn)
        kit.add_image(change.conn, "2.0")
        for _ in range(2):
            kit.add_node(change.conn, labels={"role": "web"}, gateway_id=gateway)
        rollout_kit.add_group(change.conn, policy={"stage_jitter_s": 0.0})
    freeze(database, OPERATOR, group_id=None, reason="quarter end", now=NOW)
    response = browser.fill("/rollouts/new?group=web", "/new", target="version:2.0", reason="monthly")
    return str(response.location)


def test_it_says_under_which_freeze_it_waits_and_can_be_started(
    browser: Browser, database: Database, path: str
) -> None:
    page = browser.get(path).text
    assert "A freeze without an end holds 2 nodes." in page
    assert "The whole fleet is frozen by mb: “quarter end”. Started now, they are staged and wait" in page
    assert "impossible" not in page and f'href="{path}/start"' in page
    dialog = browser.get(f"{path}/start").text
    assert "2 nodes will be staged and wait until somebody lifts a freeze" in dialog
    assert "held for good" not in dialog and "can never move" not in dialog
    assert browser.fill(f"{path}/start", "/start", confirm="web").location == path
    with database.read() as conn:
        [started] = rollouts.newest(conn, limit=1)
    assert started.state is RolloutState.RUNNING
    rollout_steps.run_all(database, NOW)
    assert kit.count_rows(database, schema.operations) == 2, "both are ordered, and stage"
