from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.config import Settings
from app.core.group_policy import Amount, OnFailure
from app.services import freezes
from app.services.fleet import set_policy
from app.store import groups, schema
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR, add_node, count_rows
from tests.web.console_kit import Browser


@pytest.fixture
def browser(database: Database, settings: Settings) -> Browser:
    browser = Browser(database, settings)
    with database.write() as change:
        add_node(change.conn, name="edge-1", labels={"role": "edge", "zone": "a"})
        add_node(change.conn, name="db-1", labels={"role": "db"})
    return browser


def make(browser: Browser, **values: str) -> str:
    """A group made by the form; its page."""
    typed = {"name": "edge", "selector": "role=edge", "reason": "first group", **values}
    answer = browser.fill("/groups/new", "/groups/new", **typed)
    assert answer.status_code == 303, answer.text
    return answer.location or ""


def test_without_groups_the_page_says_the_next_step(browser: Browser) -> None:
    text = browser.get("/groups").text
    assert "No group yet" in text
    assert "twinroot group add" in text


def test_a_group_is_made_with_its_policy(browser: Browser) -> None:
    page = make(
        browser,
        precedence="10",
        canaries="2",
        max_unavailable="10%",
        on_failure="roll-back",
        windows="mon-fri 22:00-04:00 Europe/Berlin",
        soak_s="30m",
    )
    with browser.db.read() as conn:
        group = groups.by_name(conn, "edge")
    assert group is not None
    assert page == f"/groups/{group.id}"
    assert (group.policy.canaries, group.policy.max_unavailable) == (Amount(count=2), Amount(share=0.1))
    assert (group.policy.on_failure, group.policy.timing.soak_s) == (OnFailure.ROLL_BACK, 1800.0)
    shown = browser.get(page).text
    assert "1 admitted" in shown
    assert "mon-fri 22:00-04:00 Europe/Berlin" in shown
    assert "Europe/Berlin" in shown
    assert shown.count("in ") >= 5  # five openings, each says when
    assert "edge" in browser.get("/groups").text


def test_the_five_openings_stand_in_three_zones(browser: Browser) -> None:
    page = make(browser, windows="daily 02:00-04:00 Asia/Kolkata")
    browser.client.set_cookie("twinroot_zone", "Europe/Berlin")
    shown = browser.get(page).text
    for zone in ("Europe/Berlin (yours)", "Asia/Kolkata", "UTC"):
        assert f'<th scope="col">{zone}</th>' in shown
    assert shown.count("02:00 to 04:00") == 5  # in the group's own zone
    assert shown.count("20:30 to 22:30") == 5  # the same in UTC


def test_what_is_open_stands_before_the_next_five(browser: Browser) -> None:
    then = datetime.fromtimestamp(NOW, ZoneInfo("UTC"))
    opens, closes = (f"{then + timedelta(hours=hours):%H}:00" for hours in (-2, 3))
    shown = browser.get(make(browser, windows=f"daily {opens}-{closes} UTC")).text
    assert shown.count("open now") == 1
    assert shown.count(f"{opens} to ") == 6
    always = browser.get(make(browser, name="always", windows="daily 00:00-00:00 UTC")).text
    assert "never closes: its windows leave no gap" in always


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("selector", "", "select"),
        ("name", "Not A Name", "lower-case"),
        ("canaries", "150%", "canaries"),
        ("windows", "sometimes", "no window"),
        ("max_per_domain", "2", "label"),
        ("precedence", "high", "whole number"),
    ],
)
def test_a_refused_form_keeps_what_was_typed(browser: Browser, field: str, value: str, says: str) -> None:
    typed = {"name": "edge", "selector": "role=edge", "reason": "kept for sure", field: value}
    answer = browser.fill("/groups/new", "/groups/new", **typed)
    assert answer.status_code == 422
    assert says in answer.text.partition("Nothing was changed.")[2].lower()
    assert "kept for sure" in answer.text
    assert count_rows(browser.db, schema.groups) == 0


def test_an_empty_duration_shows_the_fleets_in_grey(browser: Browser) -> None:
    set_policy(browser.db, OPERATOR, {"soak_s": 20.0}, "a demo", NOW)
    for form in ("/groups/new", make(browser, confirm_s="15s") + "/edit"):
        assert re.search(r'<input id="f-soak_s"[^>]* value=""[^>]* placeholder="20s"', browser.get(form).text), form


def test_a_change_touches_only_what_was_typed_and_says_who(browser: Browser) -> None:
    page = make(browser, canaries="3")
    answer = browser.fill(f"{page}/edit", "/edit", max_unavailable="4", reason="more at once")
    assert answer.status_code == 303
    with browser.db.read() as conn:
        group = groups.by_name(conn, "edge")
    assert group is not None
    assert (group.policy.canaries, group.policy.max_unavailable) == (Amount(count=3), Amount(count=4))
    answer = browser.fill(f"{page}/edit", "/edit", canaries="", reason="as by default")
    with browser.db.read() as conn:
        group = groups.by_name(conn, "edge")
    assert group is not None
    assert group.policy.canaries == Amount(count=1)
    assert count_rows(browser.db, schema.audit) >= 3


def test_the_map_of_the_fleet_by_the_groups_that_decide(browser: Browser) -> None:
    """Each count equals the list that it links to, also where a node is in several groups."""
    assert ">group</a>" not in browser.get("/").text, "there is none"
    make(browser, name="all", selector="*")
    make(browser, name="edge-a", selector="role=edge", precedence="5")
    with browser.db.write() as change:
        add_node(change.conn, name="new-1", admission="pending", admitted_at=None)
    page = browser.get("/?group=@group").text
    assert ">group</a>" in page
    zones = re.findall(r'<h3><a[^>]* href="(/nodes[^"]*)">([^<]+)</a></h3><span[^>]*>(\d+) node', page)
    assert {(name, number) for _, name, number in zones} == {("all", "1"), ("edge-a", "1"), ("no group", "1")}
    for href, name, number in zones:
        listed = re.findall(r'class="name"><a href="/nodes/[^"]+" aria-label="([^"]+)"', browser.get(href).text)
        assert (len(listed), listed) == (int(number), [{"all": "db-1", "edge-a": "edge-1"}.get(name, "new-1")])


def test_removing_a_group_wants_its_name(browser: Browser) -> None:
    page = make(browser)
    assert browser.fill(f"{page}/remove", "/remove", typed_name="egde", reason="gone").status_code == 422
    assert browser.fill(f"{page}/remove", "/remove", typed_name="edge", reason="gone").status_code == 303
    assert count_rows(browser.db, schema.groups) == 0
    assert browser.get(page).status_code == 404


def test_a_freeze_is_on_every_page_until_it_is_lifted(browser: Browser) -> None:
    page = make(browser)
    group_id = page.rpartition("/")[2]
    assert "is frozen" not in browser.get("/").text
    answer = browser.fill("/freezes/new", "/freezes/new", group=group_id, reason="sale week")
    assert answer.status_code == 303
    for path in ("/", "/nodes", "/groups", page, "/images", "/events", "/joining"):
        assert "sale week" in browser.get(path).text, path
    with browser.db.read() as conn:
        (freeze_id,) = conn.execute(schema.freezes.select()).scalars()
    answer = browser.fill(f"/freezes/{freeze_id}/lift", "/lift", reason="over")
    assert answer.status_code == 303
    assert "is frozen" not in browser.get("/nodes").text
    assert "lifted" in browser.get("/freezes").text


def test_a_second_freeze_of_the_same_is_refused_and_leads_to_the_first(browser: Browser) -> None:
    page = make(browser)
    group_id = page.rpartition("/")[2]
    stale = browser.form("/freezes/new", "/freezes/new")  # in another tab
    assert browser.fill("/freezes/new", "/freezes/new", reason="sale week").status_code == 303
    answer = browser.submit("/freezes/new", stale, reason="quarter end")
    assert (answer.status_code, count_rows(browser.db, schema.freezes)) == (409, 1)
    assert "is frozen already, by mb: “sale week”" in answer.text
    assert "quarter end" in answer.text  # what was typed is kept
    [to_end] = re.findall(r'href="(/freezes/freeze_\w+/end)"', answer.text)
    assert browser.fill("/freezes/new", "/freezes/new", group=group_id, reason="another scope").status_code == 303

    browser.client.set_cookie("twinroot_zone", "Europe/Berlin")
    end = datetime.fromtimestamp(NOW + 7200, ZoneInfo("Europe/Berlin"))
    assert browser.fill(to_end, "/end", ends_at="2001-01-01T10:00", reason="x").status_code == 422
    assert browser.fill(to_end, "/end", ends_at=f"{end:%Y-%m-%dT%H:%M}", reason="x").status_code == 303
    assert f"{end:%Y-%m-%dT%H:%M}" in browser.get(to_end).text
    with browser.db.read() as conn:
        [found] = freezes.standing(conn, None, NOW)
    assert found.ends_at is not None and abs(found.ends_at - (NOW + 7200)) < 60
    assert browser.fill(to_end, "/end", ends_at="", reason="no end").status_code == 303


def test_a_freeze_has_an_end_in_the_readers_zone(browser: Browser) -> None:
    browser.client.set_cookie("twinroot_zone", "Europe/Berlin")
    bad = browser.fill("/freezes/new", "/freezes/new", ends_at="tomorrow", reason="x")
    assert (bad.status_code, count_rows(browser.db, schema.freezes)) == (422, 0)
    past = browser.fill("/freezes/new", "/freezes/new", ends_at="2001-01-01T10:00", reason="x")
    assert past.status_code == 422

    end = datetime.fromtimestamp(NOW + 86_400, ZoneInfo("Europe/Berlin"))
    good = browser.fill("/freezes/new", "/freezes/new", ends_at=f"{end:%Y-%m-%dT%H:%M}", reason="x")
    assert good.status_code == 303
    with browser.db.read() as conn:
        (row,) = conn.execute(schema.freezes.select())
    assert abs(row.ends_at - (NOW + 86_400)) < 60
