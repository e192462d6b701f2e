"""Saved views, columns and density without JavaScript."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from sqlalchemy import select

from app.store import schema
from app.store.database import Database
from tests.web.console_kit import Browser
from tests.web.test_pages import part

FILTERED = "/nodes?q=state%3Adegraded&sort=-seen&columns=state%2Clabels"


def chips(browser: Browser, path: str = "/nodes") -> dict[str, str]:
    """Name → address of the saved views on the page."""
    page = browser.get(path).text
    return {unescape(name): unescape(url) for url, name in re.findall(r'href="([^"]*)"[^>]*>★ ([^<]*)<', page)}


def audited(db: Database) -> list[Any]:
    with db.read() as conn:
        wanted = select(schema.audit).where(schema.audit.c.action.startswith("view."))
        return list(conn.execute(wanted.order_by(schema.audit.c.id)))


def save(browser: Browser, path: str, name: str) -> Any:
    form = path.replace("/nodes?", "/nodes/views/new?")
    assert unescape(browser.get(path).text).count(f'href="{form}"') == 1
    return browser.fill(form, "/nodes/views/new", name=name)


def headings(browser: Browser, path: str) -> list[str]:
    head = browser.get(path).text.partition("<thead>")[2].partition("</thead>")[0]
    cells = re.findall(r"<th[^>]*>(.*?)</th>", head)
    return [re.sub(r"<[^>]+>|[↑↓]", "", cell).strip() for cell in cells]


def test_a_view_is_saved_shown_and_removed(seeded: Browser) -> None:
    answer = save(seeded, FILTERED, "  Degraded,  lately ")
    assert (answer.status_code, answer.location) == (303, FILTERED)
    assert chips(seeded) == {"Degraded, lately": FILTERED}
    shown = seeded.get(FILTERED)
    assert "save this view" not in shown.text
    assert seeded.fill(FILTERED, "/remove").location == FILTERED
    assert chips(seeded) == {}
    assert "save this view" in seeded.get(FILTERED).text
    saved, removed = audited(seeded.db)
    assert (saved.action, saved.actor_name, saved.before) == ("view.save", "mb", None)
    assert saved.after == {"name": "Degraded, lately", "address": FILTERED.partition("?")[2]}
    assert (removed.action, removed.before, removed.after) == ("view.remove", saved.after, None)
    assert removed.object == saved.object


def test_a_saved_view_appears_though_the_page_was_kept(seeded: Browser) -> None:
    etag = seeded.get("/nodes").headers["ETag"]
    save(seeded, FILTERED, "mine")
    assert seeded.get("/nodes", headers={"If-None-Match": etag}).status_code == 200


def test_the_same_name_is_replaced(seeded: Browser) -> None:
    save(seeded, FILTERED, "mine")
    save(seeded, "/nodes?q=slot%3AB", "mine")
    assert chips(seeded) == {"mine": "/nodes?q=slot%3AB"}
    first, second = audited(seeded.db)
    assert second.object == first.object
    assert second.before == first.after


def test_views_are_each_persons_own(seeded: Browser) -> None:
    save(seeded, FILTERED, "mine")
    action = seeded.form(FILTERED, "/remove").action
    other = Browser(seeded.db, seeded.settings, name="ada")
    assert chips(other) == {}
    assert "mine" not in other.get(FILTERED, headers=part("list")).text
    save(other, "/nodes?q=slot%3AB", "mine")
    form = other.form("/nodes?q=slot%3AB", "/remove")
    form.action = action
    assert other.submit("/nodes", form).status_code == 404
    assert chips(seeded) == {"mine": FILTERED}


def test_a_name_that_cannot_be_one_is_refused(seeded: Browser) -> None:
    for name in ("", "x" * 61, "a\u202eb"):
        answer = save(seeded, FILTERED, name)
        assert answer.status_code == 422
        assert "A name needs 1 to 60" in answer.text
    assert audited(seeded.db) == []


def test_only_what_a_view_knows_is_kept_of_an_address(seeded: Browser) -> None:
    form = seeded.form("/nodes/views/new?q=slot%3AB", "/nodes/views/new")
    answer = seeded.submit("/nodes", form, name="x", address="q=slot%3AB&after=zzz&evil=1&sort=nothing&columns=pink")
    assert answer.location == "/nodes?q=slot%3AB"
    assert chips(seeded) == {"x": "/nodes?q=slot%3AB"}


def test_there_is_an_end_to_views(seeded: Browser) -> None:
    for number in range(50):
        assert save(seeded, f"/nodes?q=x{number}", f"view {number}").status_code == 303
    assert save(seeded, "/nodes?q=one+more", "one more").status_code == 422
    assert save(seeded, "/nodes?q=instead", "view 7").status_code == 303


def test_columns_are_chosen_in_the_address(seeded: Browser) -> None:
    usual = ["Node", "State", "Slots", "Version", "Channel", "Phase", "Why it waits", "Containers", "Zone", "Seen"]
    assert headings(seeded, "/nodes") == usual
    assert headings(seeded, "/nodes?columns=labels,state,pink") == ["Node", "State", "Labels"]
    assert headings(seeded, "/nodes?columns=name&columns=os&columns=seen") == ["Node", "OS", "Seen"]
    assert headings(seeded, "/nodes?columns=name") == ["Node"]
    assert headings(seeded, "/nodes?columns=pink") == usual


def test_the_choice_stays_wherever_the_list_leads(seeded: Browser) -> None:
    page = unescape(seeded.get(FILTERED).text)
    listing = page.partition('aria-label="Facets"')[2]
    links = re.findall(r'href="(/nodes\?[^"]*)"', listing)
    assert links
    assert all("columns=state%2Clabels" in link for link in links)
    (form,) = [each for each in seeded.forms(FILTERED) if each.method == "get" and each.values.get("q") is not None
               and each.values.get("columns") == "state,labels"]  # fmt: skip
    assert form.values["sort"] == "-seen"


def test_the_fragment_has_the_chosen_columns(seeded: Browser) -> None:
    text = seeded.get("/nodes?columns=labels", headers=part("list")).text
    assert "role=" in text
    assert ">Version<" not in text


def test_density_is_kept_and_nothing_else_changes(seeded: Browser) -> None:
    def chosen() -> tuple[str, ...]:
        page = seeded.get("/nodes").text
        return tuple(re.findall(r'data-(?:theme|density|keys)="(\w+)"', page))

    assert chosen() == ("system", "comfortable", "on")
    menu = [form for form in seeded.forms("/nodes") if form.action == "/preferences"]
    for form, name, value in ((menu[0], "theme", "dark"), (menu[1], "density", "compact")):
        form.values[name] = value
        assert seeded.submit("/nodes", form).location == "/nodes"
    assert chosen() == ("dark", "compact", "on")
    seeded.fill("/preferences", "/preferences")
    assert chosen()[1] == "compact"
    form = menu[1]
    form.values["density"] = "tight"
    assert seeded.submit("/nodes", form).status_code == 422
