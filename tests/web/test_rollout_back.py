"""Which pages offer to roll back: the rest of what was sent back in part, never what is a way back itself."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import Connection, select

from app.config import Settings
from app.store import schema
from app.store.database import Change, Database
from tests import rollout_kit
from tests.rollout_kit import add_rollout_node
from tests.server_kit import NOW, add_image, add_node, add_operation, digest_of, two_slots
from tests.web.console_kit import Browser


@pytest.fixture
def browser(database: Database, settings: Settings) -> Browser:
    return Browser(database, settings)


def target(conn: Connection) -> str:
    """The image of 2.0."""
    known = conn.execute(select(schema.images.c.id).where(schema.images.c.version == "2.0")).scalar()
    return known or add_image(conn, "2.0")


def ended(browser: Browser, state: str = "succeeded", **versions: str) -> tuple[str, str]:
    """An ended update of nodes that run these versions now, and the reverse of a part of it; their paths."""
    with browser.db.write() as change:
        conn = change.conn
        there = rollout_kit.add_rollout(conn, state=state, targets=[target(conn)], ended_at=NOW)
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


@pytest.mark.parametrize("state", ["aborted", "succeeded"])
def test_one_whose_nodes_all_run_something_else_says_so_and_offers_no_way_back(browser: Browser, state: str) -> None:
    """They went back with their group, or on: what it led to runs nowhere."""
    with browser.db.write() as change:
        image = target(change.conn)
        rollout_id = rollout_kit.add_rollout(change.conn, state=state, targets=[image], ended_at=NOW)
        for name, version in {"back": "1.0", "on": "3.0"}.items():
            node_id = add_node(change.conn, name, version=version, booted_digest=digest_of(version))
            add_rollout_node(change.conn, rollout_id, node_id, state="done", wave=2, ended_at=NOW)
    path = f"/rollouts/{rollout_id}"
    assert not offers(browser, path)
    assert "2 of the nodes that are done here run another version by now" in browser.get(path).text
    asked = browser.get(f"{path}/reverse").text
    assert "Not possible now." in asked and "runs what it led to" in asked and "<option" not in asked


def test_what_is_offered_is_what_still_runs_it(browser: Browser) -> None:
    path, _ = ended(browser, "aborted", canary="1.0", other="2.0", third="3.0")
    page = browser.get(path).text
    assert "2 of the nodes that are done here run another version by now" in page
    assert offers(browser, path)
    asked = browser.get(f"{path}/reverse").text
    assert re.search(r"Back to <b[^>]*>1\.0</b>: 1 node\b", asked)
    whole, _ = ended(browser, first="2.0", second="2.0")
    assert "another version by now" not in browser.get(whole).text


def moved_forth(change: Change, name: str) -> str:
    """A node of group web that an update brought to 2.0."""
    now = {"version": "2.0", "booted_digest": digest_of("2.0"), "slots": two_slots("2.0", "1.0", passive_good=True)}
    node_id = add_node(change.conn, name, labels={"role": "web"}, **now)
    add_operation(change.conn, node_id, state="ended", phase="idle", result="succeeded", ended_at=NOW)
    return node_id


def test_a_group_is_rolled_back_from_its_page(browser: Browser) -> None:
    """It says before what goes back to what, what stops and who stays; afterwards there is nothing to roll back."""
    with browser.db.write() as change:
        group_id = rollout_kit.add_group(change.conn)
        number = running(change, group_id)
        moved_forth(change, "web-1")
        add_node(change.conn, "web-2", labels={"role": "web"})
        change.touch("groups", "rollouts")
    page = f"/groups/{group_id}"
    assert f"{page}/roll-back" in browser.get(page).text
    asked = browser.get(f"{page}/roll-back").text
    assert f"rollout {number}</a> to" in asked and "1 node, from the slot that is still there" in asked
    assert "1 stays, web-2: no update is known" in asked
    refused = browser.fill(f"{page}/roll-back", f"{page}/roll-back", reason="")
    assert refused.status_code == 422 and "Say why" in refused.text
    assert 'name="override_floor"' in asked
    done = browser.fill(f"{page}/roll-back", f"{page}/roll-back", reason="bad week", override_floor="yes")
    assert done.status_code == 303
    made = browser.get(done.location or "").text
    assert "bad week" in made and "web-1" in browser.get(f"{done.location}/nodes").text
    with browser.db.read() as conn:
        every = conn.execute(select(schema.rollouts)).all()
    assert all(row.override_floor for row in every) and len(every) == 2
    states = {row.number: row.state for row in every}
    assert states.pop(number) == "rolling-back" and list(states.values()) == ["running"]
    again = browser.get(f"{page}/roll-back").text
    assert "Nothing to roll back." in again and "already" in again and "<form" not in again.split("dialog-title")[1]


def running(change: Change, group_id: str) -> int:
    rollout_id = rollout_kit.add_rollout(change.conn, group_id=group_id)
    query = select(schema.rollouts.c.number).where(schema.rollouts.c.id == rollout_id)
    return change.conn.execute(query).scalar_one()
