"""Which pages offer to roll back: the rest of what was sent back in part, never what is a way back itself."""

from __future__ import annotations

import pytest

from app.config import Settings
from app.store.database import Database
from tests import rollout_kit
from tests.rollout_kit import add_rollout_node
from tests.server_kit import NOW, add_node, digest_of
from tests.web.console_kit import Browser


@pytest.fixture
def browser(database: Database, settings: Settings) -> Browser:
    return Browser(database, settings)


def ended(browser: Browser, **versions: str) -> tuple[str, str]:
    """An ended update of nodes that run these versions now, and the reverse of a part of it; their paths."""
    with browser.db.write() as change:
        conn = change.conn
        there = rollout_kit.add_rollout(conn, state="succeeded", ended_at=NOW)
        back = rollout_kit.add_rollout(conn, state="succeeded", kind="rollback", source_id=there, ended_at=NOW)
        for name, version in versions.items():
            node_id = add_node(conn, name, version=version, booted_digest=digest_of(version))
            add_rollout_node(conn, there, node_id, state="done", ended_at=NOW)
        change.touch("rollouts")
    return f"/rollouts/{there}", f"/rollouts/{back}"


def offers(browser: Browser, path: str) -> bool:
    return "/reverse" in browser.get(path).text


def test_the_rest_of_a_rollout_that_was_sent_back_in_part_can_be_rolled_back(browser: Browser) -> None:
    part, back = ended(browser, canary="1.0", other="2.0")
    whole, _ = ended(browser, first="1.0", second="1.0")
    assert (offers(browser, part), offers(browser, whole)) == (True, False)
    assert not offers(browser, back)
    assert "leads back" in browser.get(f"{back}/reverse").text
