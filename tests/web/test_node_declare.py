"""What operators say of nodes and let pass, and the chain on the page, as a browser without JavaScript sees it."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from app.services.service_watch import ServiceWatch
from app.store import declared, schema
from tests import rollout_kit
from tests import server_kit as kit
from tests.server_kit import NOW, count_rows
from tests.web.console_kit import Browser


@pytest.fixture
def node_id(browser: Browser) -> str:
    """web-01 in group web, whose placement nobody knows."""
    with browser.db.write() as change:
        rollout_kit.add_group(change.conn)
        return kit.add_node(
            change.conn, "web-01", labels={"role": "web"}, placement_known=False, slots=kit.two_slots("1.0", "0.9")
        )


def standing(browser: Browser, node_id: str) -> declared.Standing:
    with browser.db.read() as conn:
        return declared.standing(conn, node_id)


def say(browser: Browser, node_id: str, verb: str, **values: str) -> int:
    return browser.fill(f"/nodes/{node_id}/{verb}", f"/{verb}", **values).status_code


def operations(browser: Browser) -> list[tuple[str, bool]]:
    columns = schema.operations.c
    with browser.db.read() as conn:
        return [tuple(row) for row in conn.execute(select(columns.kind, columns.override_floor))]  # type: ignore[misc]


def test_what_runs_is_declared_shown_and_withdrawn(browser: Browser, node_id: str) -> None:
    page = f"/nodes/{node_id}"
    assert f"{page}/declare" in browser.get(page).text
    assert say(browser, node_id, "declare", declared="shop/db 2\nbackup\n", reason="inventory") == 303
    assert standing(browser, node_id).runs == (("shop", "db", 2), ("", "backup", 1))
    text = browser.get(page).text
    assert "mb declared: shop/db 2, backup 1" in text
    assert "shop/db 2\nbackup 1" in browser.get(f"{page}/declare").text, "what was declared can be corrected"
    assert say(browser, node_id, "withdraw-declaration") == 303
    assert standing(browser, node_id).runs is None
    assert "Nothing is declared of it." in browser.get(f"{page}/withdraw-declaration").text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"declared": "", "reason": "x"}, "tick that no service runs on it"),
        ({"declared": "shop/db two", "reason": "x"}, "does not end in a number of replicas"),
        ({"declared": "shop/db 1\nshop/db 2", "reason": "x"}, "is named twice"),
        ({"declared": "shop/db 1", "reason": "x", "nothing": "yes"}, "Either services are named"),
        ({"declared": "shop/db 1", "reason": ""}, "Say why"),
    ],
)
def test_a_wrong_declaration_keeps_what_was_typed(
    browser: Browser, node_id: str, values: dict[str, str], said: str
) -> None:
    answer = browser.fill(f"/nodes/{node_id}/declare", "/declare", **values)
    assert answer.status_code == 422
    assert said in answer.text
    assert values["declared"] in answer.text
    assert standing(browser, node_id).runs is None


def test_that_nothing_runs_is_said_on_purpose(browser: Browser, node_id: str) -> None:
    assert say(browser, node_id, "declare", nothing="yes", reason="a spare") == 303
    assert standing(browser, node_id).runs == ()
    assert "no service runs on it" in browser.get(f"/nodes/{node_id}").text


def test_a_node_that_says_itself_what_runs_is_not_declared(browser: Browser) -> None:
    with browser.db.write() as change:
        id = kit.add_node(change.conn)
    assert f"/nodes/{id}/declare" not in browser.get(f"/nodes/{id}").text
    text = browser.get(f"/nodes/{id}/declare").text
    assert "It says itself what runs on it" in text
    assert "<textarea" not in text


def test_lost_and_found(browser: Browser, node_id: str) -> None:
    assert say(browser, node_id, "lost", reason="") == 422
    assert say(browser, node_id, "lost", reason="fire in the rack") == 303
    assert standing(browser, node_id).lost_reason == "fire in the rack"
    text = browser.get(f"/nodes/{node_id}").text
    assert "Declared lost" in text
    assert f"/nodes/{node_id}/lost" not in text
    assert "declared lost already" in browser.get(f"/nodes/{node_id}/lost").text
    assert say(browser, node_id, "found") == 303
    assert standing(browser, node_id).lost_at is None
    with browser.db.read() as conn:
        actions = list(conn.execute(select(schema.audit.c.action).order_by(schema.audit.c.id)).scalars())
    assert actions[-2:] == ["node.lost", "node.lost"]


@pytest.fixture
def ledger(browser: Browser) -> str:
    """A node with the only replica of shop/ledger."""
    with browser.db.write() as change:
        id = kit.add_node(change.conn, "db-01", slots=kit.two_slots("1.0", "0.9", passive_good=True))
        kit.add_container(change.conn, id, "ledger", scope="shop")
    ServiceWatch().step(browser.db, NOW)
    return id


@pytest.mark.parametrize(("action", "kind"), [("reboot", "reboot"), ("rollback", "rollback")])
def test_floors_are_overridden_by_name_and_with_a_reason(browser: Browser, ledger: str, action: str, kind: str) -> None:
    text = browser.get(f"/nodes/{ledger}/{action}").text
    assert "shop/ledger</a> has 0 of 1, its floor is 1" in text
    refused = browser.fill(f"/nodes/{ledger}/{action}", f"/{action}", override_floor="yes", reason="")
    assert (refused.status_code, count_rows(browser.db, schema.operations)) == (422, 0)
    assert 'name="override_floor" value="yes" checked' in refused.text, "what was ticked stays ticked"
    assert say(browser, ledger, action, override_floor="yes", reason="announced") == 303
    assert operations(browser) == [(kind, True)]


def test_an_update_that_keeps_the_floors(browser: Browser, ledger: str) -> None:
    with browser.db.write() as change:
        image = kit.add_image(change.conn, "2.0")
    assert say(browser, ledger, "update", image_id=image) == 303
    assert operations(browser) == [("activate", False)]


def test_where_no_service_falls_there_is_nothing_to_override(browser: Browser) -> None:
    with browser.db.write() as change:
        spare = kit.add_node(change.conn, "spare-01")
    assert "override_floor" not in browser.get(f"/nodes/{spare}/reboot").text


def test_where_nobody_knows_what_runs_it_is_said_and_can_be_overridden(browser: Browser, node_id: str) -> None:
    text = browser.get(f"/nodes/{node_id}/reboot").text
    assert "Nobody knows what runs on it." in text and f"/nodes/{node_id}/declare" in text
    assert say(browser, node_id, "reboot", override_floor="yes", reason="announced") == 303
    assert operations(browser) == [("reboot", True)]


def test_a_refused_cancel_offers_no_button(browser: Browser, node_id: str) -> None:
    with browser.db.write() as change:
        operation = kit.add_operation(change.conn, node_id)
        change.conn.execute(update(schema.nodes).values(desired_operation_id=operation))
    path = f"/nodes/{node_id}/cancel"
    form = browser.form(path, "/cancel")
    with browser.db.write() as change:
        change.conn.execute(update(schema.operations).values(phase="rebooting"))
    answer = browser.submit(path, form)
    assert answer.status_code == 409
    assert "Not done; nothing was changed." in answer.text
    assert "Cancel it" not in answer.text


def test_the_page_shows_the_chain_with_what_helps_and_where_to_look(browser: Browser, node_id: str) -> None:
    hold = {"code": "service-floor", "text": "shop/db has 2 healthy replicas, its floor is 2", "subject": "shop/db"}
    with browser.db.write() as change:
        rollout = rollout_kit.add_rollout(change.conn)
        rollout_kit.add_rollout_node(change.conn, rollout, node_id, hold=hold, wave=3)
    text = browser.get(f"/nodes/{node_id}").text
    assert 'href="/service?scope=shop&amp;name=db"' in text
    assert "Helps: another replica." in text
    assert "wave 3" in text
    assert "“web” decides channel, windows and soak" in text


def test_how_an_operation_ended_colours_its_mark(browser: Browser, node_id: str) -> None:
    with browser.db.write() as change:
        for result in ("succeeded", "fell-back"):
            operation = kit.add_operation(change.conn, node_id, state="ended", result=result)
            values = {"node_id": node_id, "at": NOW, "kind": "operation-ended", "text": f"Update {result}"}
            change.conn.execute(schema.events.insert().values(**values, operation_id=operation))
    text = browser.get(f"/nodes/{node_id}").text
    assert '<i class="ok"></i><span>Update succeeded' in text
    assert '<i class="bad"></i><span>Update fell-back' in text
