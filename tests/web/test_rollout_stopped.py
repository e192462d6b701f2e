"""Rollouts that do not run, or lead back: what is offered would work, and what nodes wait for is why they wait."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import update

from app.store import images, rollouts, schema
from tests import rollout_kit
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR
from tests.web.console_kit import Browser

AS_DOWNLOADS = "They are ordered as downloads become free"


def rollout(browser: Browser, state: str, *rows: dict[str, Any], **given: Any) -> tuple[int, list[str]]:
    """Its number, and its nodes."""
    with browser.db.write() as change:
        conn = change.conn
        image = kit.add_image(conn, "2.0", id="img_2.0")
        id = rollout_kit.add_rollout(conn, state=state, targets=[image], version="2.0", started_at=NOW, **given)
        nodes = [kit.add_node(conn) for _ in rows]
        for node_id, row in zip(nodes, rows, strict=True):
            rollout_kit.add_rollout_node(conn, id, node_id, **row)
        found = rollouts.get(conn, id)
        assert found is not None
        return found.number, nodes


def text_of(browser: Browser, number: int) -> str:
    return re.sub(r"\s+", " ", browser.get(f"/rollouts/{number}").text)


@pytest.mark.parametrize("state", ["paused", "halted"])
def test_what_stopped_is_why_nodes_wait(browser: Browser, state: str) -> None:
    number, _ = rollout(browser, state, {"state": "waiting"}, state_text="it is late")
    page = text_of(browser, number)
    ways = "resumes it, rolls it back or aborts it"
    assert f"The rollout is {state}: no node is ordered or let go until somebody {ways}." in page
    assert AS_DOWNLOADS not in page
    assert f'href="/rollouts/{number}/resume"' in page


@pytest.mark.parametrize("state", ["paused", "halted"])
def test_what_is_told_of_then_is_not_that_it_stopped(browser: Browser, state: str) -> None:
    """Nodes that ask are answered that it does not run: that is said once, and not as a reason of before."""
    asks = {"state": "ordered", "hold": {"code": "not-running", "text": f"waits for rollout 1: it is {state}"}}
    floor = {"state": "ordered", "hold": {"code": "service-floor", "text": "waits for shop/db", "subject": "shop/db"}}
    number, nodes = rollout(browser, state, asks, asks, floor, state_text="it is late")
    page = text_of(browser, number)
    assert "Rollout does not run" not in page and f"waits for rollout 1: it is {state}" not in page
    before = page.partition("As it was when it stopped:")[2]
    assert "waits for shop/db" in before and "1 node" in before
    with browser.db.write() as change:
        rows = schema.rollout_nodes
        change.conn.execute(update(rows).where(rows.c.node_id == nodes[2]).values(hold=asks["hold"]))
    assert "As it was when it stopped" not in text_of(browser, number)


@pytest.mark.parametrize("state", ["paused", "halted"])
def test_one_whose_version_is_withdrawn_offers_no_resume(browser: Browser, state: str) -> None:
    number, _ = rollout(browser, state, {"state": "waiting"}, state_text="it is late")
    with browser.db.write() as change:
        images.withdraw(change.conn, "img_2.0", OPERATOR.name, "it leaks", NOW)
    page = text_of(browser, number)
    assert f'href="/rollouts/{number}/resume"' not in page and "Goes on with the same version" not in page
    assert "2.0 is withdrawn: the rollout cannot go on." in page
    assert "until somebody rolls it back or aborts it." in page and f'href="/rollouts/{number}/abort"' in page
    asked = browser.get(f"/rollouts/{number}/resume").text
    assert "Not possible now." in asked and "2.0 is withdrawn" in asked


def test_a_halted_way_back_or_reboot_offers_no_roll_back(browser: Browser) -> None:
    number, _ = rollout(browser, "halted", {"state": "waiting"}, kind="reboot", state_text="it is late")
    page = text_of(browser, number)
    assert "/roll-back" not in page and f'href="/rollouts/{number}/resume"' in page


def test_what_helps_most_is_not_said_to_help_most_nodes(browser: Browser) -> None:
    floor = {"state": "ordered", "hold": {"code": "service-floor", "text": "waits for shop/db", "subject": "shop/db"}}
    budget = {"state": "ordered", "hold": {"code": "group-budget", "text": "waits for the budget", "subject": ""}}
    number, _ = rollout(browser, "running", floor, floor, *[budget] * 5, {"state": "waiting"})
    page = text_of(browser, number)
    assert "Helps most: <b>another replica (shop/db)</b>, for 2 of 8 nodes." in page and "8 have not moved" in page


def test_nodes_that_are_to_go_back_and_have_not_armed_wait(browser: Browser) -> None:
    """And their slots do not flip; whose do says since when it is in its phase, not since when all go back."""
    back = {"state": "done", "ended_at": NOW - 900, "back_at": NOW - 600}
    number, nodes = rollout(browser, "rolling-back", back, back, back, state_text="Rolled back")
    floor = {"code": "service-floor", "text": "shop/db is at its floor"}
    with browser.db.write() as change:
        conn = change.conn
        found = rollouts.by_number(conn, number)
        assert found is not None
        for node_id, phase, hold, at in zip(
            nodes, ("staged", "staged", "soaking"), (floor, None, None), (NOW - 500, NOW - 500, NOW - 7), strict=True
        ):
            of = {"rollout_id": found.id, "phase": phase, "hold": hold, "phase_at": at}
            id = kit.add_operation(conn, node_id, "rollback", **of)
            where = schema.nodes.c.id == node_id
            conn.execute(update(schema.nodes).where(where).values(desired_operation_id=id, phase=phase))
    page = text_of(browser, number)
    assert "No node waits." not in page and "2 wait to go back" in page
    assert "<b>1</b> shop/db is at its floor" in page
    flips = re.findall(r">(staged|soaking) <time[^>]*>([^<]+)</time>", page)
    assert [phase for phase, _ in flips] == ["soaking"] and flips[0][1].startswith("7 s")


def test_many_slots_that_flip_are_counted_and_not_all_listed(browser: Browser) -> None:
    number, _ = rollout(browser, "running", *[{"state": "moving", "moving_at": NOW}] * 15)
    flips = text_of(browser, number).partition("<h2>Slots flipping</h2>")[2].partition("</section>")[0]
    assert flips.count("<li ") == 12 and "… and 3 more<" in flips
