"""The console's scripts in real Chromium: live pages, keys, palette, dialogs, drafts; axe-core on every page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import delete

from app.store import schema
from app.web import assets
from tests.e2e.browser_kit import AXE, Visitor, axe_findings, launched, missing, visitor
from tests.web.running_kit import Running, live, running

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(not assets.has_vendor(), reason="front-end packages are not there: run scripts/vendor"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as made:
        yield made


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("fleet"), 14) as made:
        yield made


@pytest.fixture
def reader(browser: Browser, fleet: Running) -> Iterator[Visitor]:
    with visitor(browser, fleet.url, fleet.link()) as made:
        yield made


def test_a_change_appears_without_losing_place_or_typed_text(reader: Visitor, fleet: Running) -> None:
    id = fleet.node("web-eu-west-1c-01")
    page = live(reader.page("/nodes"))
    page.locator("#filter").fill("typed, not sent")
    row = page.locator(f"#{id} td.name a")
    row.focus()
    fleet.rename(id, "web-renamed")
    expect(row).to_have_text("web-renamed")
    expect(row).to_be_focused()
    expect(page.locator("#filter")).to_have_value("typed, not sent")
    fleet.rename(id, "web-eu-west-1c-01")


def test_what_the_reader_opened_stays_open(reader: Visitor, fleet: Running) -> None:
    id = fleet.node("queue-eu-west-1b-01")
    page = live(reader.page(f"/nodes/{id}"))
    details = page.locator("details.output").first
    details.locator("summary").click()
    fleet.rename(id, "queue-renamed")
    expect(page.locator("h1")).to_have_text("queue-renamed")
    expect(details).to_have_attribute("open", "")
    fleet.rename(id, "queue-eu-west-1b-01")


def test_updates_can_be_paused(reader: Visitor, fleet: Running) -> None:
    id = fleet.node("db-eu-west-1b-03")
    other = live(reader.page(f"/nodes/{id}"))
    page = live(reader.page(f"/nodes/{id}"))
    page.keyboard.press("p")
    expect(page.locator("#live-state")).to_have_text("paused")
    fleet.rename(id, "db-renamed")
    other.bring_to_front()
    expect(other.locator("h1")).to_have_text("db-renamed")
    page.bring_to_front()
    expect(page.locator("h1")).to_have_text("db-eu-west-1b-03")
    page.locator("#live-state").click()
    expect(page.locator("h1")).to_have_text("db-renamed")
    fleet.rename(id, "db-eu-west-1b-03")


def test_keys(reader: Visitor) -> None:
    page = live(reader.page("/"))
    page.keyboard.press("g")
    page.keyboard.press("n")
    page.wait_for_url("**/nodes")
    page.keyboard.press("/")
    expect(page.locator("#filter")).to_be_focused()
    page.keyboard.type("state:degraded j?")
    expect(page.locator("#filter")).to_have_value("state:degraded j?")
    page.locator("h1").click()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(page.locator("tbody tr").nth(0).locator("td.name a")).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator("tbody tr").nth(1).locator("td.name a")).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys-help")).to_be_hidden()


def test_single_keys_can_be_switched_off(reader: Visitor) -> None:
    page = reader.page("/preferences?back=/nodes")
    page.get_by_label("single keys").uncheck()
    page.get_by_role("button", name="Save").click()
    page.wait_for_url("**/nodes")
    live(page)
    page.keyboard.press("?")
    page.keyboard.press("/")
    expect(page.locator("#keys-help")).to_be_hidden()
    expect(page.locator("#filter")).not_to_be_focused()
    page.keyboard.press("Control+k")
    expect(page.locator("#palette")).to_be_visible()


def test_the_palette_goes_to_a_node(reader: Visitor, fleet: Running) -> None:
    page = live(reader.page("/"))
    page.keyboard.press("Control+k")
    expect(page.get_by_role("option", name="Fleet")).to_be_visible()
    page.keyboard.type("no such thing")
    expect(page.locator("#palette [role=status]")).to_contain_text("Nothing found")
    page.keyboard.press("Control+a")
    page.keyboard.type("cache-lon-02")
    expect(page.locator("#palette [role=status]")).to_be_empty()
    expect(page.get_by_role("option")).to_have_count(1)
    assert axe_findings(page) == []
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/nodes/{fleet.node('cache-lon-02')}")


def test_an_action_is_a_dialog_and_a_refusal_keeps_what_was_typed(reader: Visitor, fleet: Running) -> None:
    page = live(reader.page(f"/nodes/{fleet.node('web-eu-west-1c-03')}"))
    page.get_by_role("link", name="Pin", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert axe_findings(page) == []
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("link", name="Pin", exact=True).click()
    dialog.get_by_label("Reason").fill("typed with care")
    dialog.get_by_label("To").select_option(label="beta")
    dialog.get_by_label("Until").fill("2001-01-01T00:00")
    with reader.expecting("422"):
        dialog.get_by_role("button", name="Pin").click()
        expect(page.get_by_text("The pin would be over already.")).to_be_visible()
    expect(page.get_by_label("Reason")).to_have_value("typed with care")


def test_an_expired_sign_in_says_so_and_loses_nothing(browser: Browser, fleet: Running) -> None:
    id = fleet.node("web-eu-west-1c-03")
    with visitor(browser, fleet.url, fleet.link()) as reader:
        page = reader.page(f"/nodes/{id}/rename")
        page.get_by_label("Reason").fill("typed with care")
        with fleet.db.write() as change:
            change.conn.execute(delete(schema.sessions))
        with reader.expecting("401"):
            page.get_by_role("button", name="Rename").click()
            expect(page.get_by_role("heading", name="Sign in again")).to_be_visible()
        expect(page.get_by_text("typed with care")).to_be_visible()
        page.goto(fleet.link())
        page.goto(f"{fleet.url}/nodes/{id}/rename")
        expect(page.get_by_label("Reason")).to_have_value("typed with care")
        page.get_by_role("button", name="Rename").click()
        page.wait_for_url(f"**/nodes/{id}")
        page.goto(f"{fleet.url}/nodes/{id}/rename")
        expect(page.get_by_label("Reason")).to_have_value("")


def test_an_answer_that_never_loaded_whole_loses_nothing(browser: Browser, fleet: Running) -> None:
    id = fleet.node("web-eu-west-1c-03")
    with visitor(browser, fleet.url, fleet.link()) as reader:
        page = reader.page(f"/nodes/{id}/rename")
        page.get_by_label("Reason").fill("typed with care")
        with fleet.db.write() as change:
            change.conn.execute(delete(schema.sessions))
        page.route("**/static/app.js*", lambda route: route.abort())
        with reader.expecting("401", "ERR_FAILED"):
            page.get_by_role("button", name="Rename").click()
            expect(page.get_by_role("heading", name="Sign in again")).to_be_visible()
            page.unroute_all()
            page.goto(fleet.link())
        page.goto(f"{fleet.url}/nodes/{id}/rename")
        expect(page.get_by_label("Reason")).to_have_value("typed with care")


def test_a_page_left_open_past_the_sign_in_leads_back(browser: Browser, fleet: Running) -> None:
    id = fleet.node("web-eu-west-1c-03")
    with visitor(browser, fleet.url, fleet.link()) as reader:
        page = live(reader.page(f"/nodes/{id}"))
        with fleet.db.write() as change:
            change.conn.execute(delete(schema.sessions))
        with reader.expecting("401"):
            fleet.rename(id, "web-eu-west-1c-03")
            link = page.get_by_role("link", name="Sign in again")
            expect(link).to_be_visible()
        assert link.get_attribute("href") == f"/sign-in?next={'%2Fnodes%2F' + id}"


def test_without_the_gateway_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path, 3) as alone, visitor(browser, alone.url, alone.link()) as reader:
        page = live(reader.page("/"))
        alone.stop_gateway()
        with reader.expecting("WebSocket", "ERR_CONNECTION_REFUSED"):
            expect(page.locator("#stale")).to_contain_text("Not live since", timeout=15_000)
            expect(page.locator("#live-state")).to_have_text("not live")


def test_arrow_keys_on_the_heat_map(reader: Visitor) -> None:
    page = live(reader.page("/"))
    cells = page.locator("[data-cells]").first.locator("a")
    cells.nth(0).focus()
    page.keyboard.press("ArrowRight")
    expect(cells.nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(cells.last).to_be_focused()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing(browser: Browser, fleet: Running, scheme: str, width: int) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not there: run scripts/vendor")
    names = ("web-eu-west-1c-01", "db-eu-west-1c-01", "queue-eu-west-1b-01", "cache-lon-02", "web-eu-west-1a-02")
    paths = ["/", "/?color=version", "/?color=phase", "/nodes", "/nodes?q=colour:red", "/nodes?q=name:x", "/events"]
    paths += ["/preferences", *(f"/nodes/{fleet.node(name)}" for name in names)]
    paths += [f"/nodes/{fleet.node('cache-lon-02')}/{action}" for action in ("update", "retire", "relabel", "rollback")]
    size = {"width": width, "height": 900}
    with visitor(browser, fleet.url, fleet.link(), color_scheme=scheme, viewport=size) as reader:
        page = reader.page("/")
        found = []
        for path in paths:
            page.goto(fleet.url + path)
            found += axe_findings(page)
        assert found == []


@pytest.mark.parametrize("width", [1440, 390])
def test_no_page_is_wider_than_the_screen(browser: Browser, fleet: Running, width: int) -> None:
    size = {"width": width, "height": 900}
    with visitor(browser, fleet.url, fleet.link(), viewport=size) as reader:
        page = reader.page("/")
        id = fleet.node("web-eu-west-1c-03")
        fleet.rename(id, "a-" + "very-long-name" * 8)
        for path in ("/", "/nodes", f"/nodes/{id}", f"/nodes/{id}/retire", "/events"):
            page.goto(fleet.url + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        fleet.rename(id, "web-eu-west-1c-03")
