"""The list of nodes in real Chromium: suggestions by keyboard, rows that hold still, saved views in a dialog."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import update

from app.store import schema
from app.web import assets
from tests import server_kit as kit
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


def join(fleet: Running, *names: str) -> None:
    with fleet.db.write() as change:
        for name in names:
            kit.add_node(change.conn, name, last_seen_at=time.time())
        change.touch("nodes")


def names(page: Page) -> list[str]:
    return page.locator("#list td.name").all_inner_texts()


def test_a_filter_is_written_with_suggestions(reader: Visitor) -> None:
    page = live(reader.page("/nodes"))
    field = page.get_by_role("combobox", name="Filter")
    field.click()
    expect(field).to_have_attribute("aria-expanded", "false")
    page.keyboard.type("slot:A not hea")
    option = page.get_by_role("option").first
    expect(option).to_contain_text("health:")
    expect(field).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    expect(option).to_have_attribute("aria-selected", "true")
    expect(field).to_have_attribute("aria-activedescendant", option.get_attribute("id") or "")
    page.keyboard.press("Enter")
    expect(field).to_have_value("slot:A not health:")
    degraded = page.get_by_role("option", name="health:degraded")
    expect(degraded).to_contain_text("nodes")
    if AXE.is_file():
        assert axe_findings(page) == []
    page.keyboard.press("Escape")
    expect(degraded).to_be_hidden()
    page.keyboard.type('"heal')
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option", name="health:healthy")).to_be_visible()
    page.get_by_role("option", name="health:healthy").click()
    expect(field).to_have_value("slot:A not health:healthy ")
    expect(field).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/nodes?q=slot%3AA+not+health%3Ahealthy*")
    assert "cache-lon-02" in names(page)


def test_new_rows_wait_until_they_are_asked_for(reader: Visitor, fleet: Running) -> None:
    page = live(reader.page("/nodes"))
    before = names(page)
    row = page.locator("#list td.name a").nth(3)
    row.focus()
    place = row.bounding_box()
    join(fleet, "aaa-first", "bbb-second", "cache-zz")
    pill = page.get_by_role("button", name="3 new")
    expect(pill).to_be_visible()
    assert names(page) == before
    assert row.bounding_box() == place
    expect(row).to_be_focused()
    id = fleet.node("web-eu-west-1c-01")
    fleet.rename(id, "web-renamed")  # rows that are there change in their places
    expect(page.locator(f"#{id} td.name")).to_have_text("web-renamed")
    expect(pill).to_be_visible()
    assert len(names(page)) == len(before)
    if AXE.is_file():
        assert axe_findings(page) == []
    pill.click()
    expect(page.get_by_role("link", name="aaa-first")).to_be_visible()
    expect(pill).to_be_hidden()
    there = ["web-renamed" if name == "web-eu-west-1c-01" else name for name in before]
    assert names(page) == sorted([*there, "aaa-first", "bbb-second", "cache-zz"])
    fleet.rename(id, "web-eu-west-1c-01")


def test_rows_below_all_others_come_at_once(reader: Visitor, fleet: Running) -> None:
    page = live(reader.page("/nodes"))
    join(fleet, "zzz-last")
    expect(page.get_by_role("link", name="zzz-last")).to_be_visible()
    expect(page.locator("#held")).to_be_hidden()


def test_rows_that_went_stay_where_they_were_until_asked(reader: Visitor, fleet: Running) -> None:
    page = live(reader.page("/nodes?q=state:healthy"))
    before = names(page)
    id = fleet.node(before[1])
    with fleet.db.write() as change:
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == id).values(health_state="unhealthy"))
        change.touch("nodes")
    expect(page.locator(f"#{id}")).to_have_class("gone")
    assert names(page) == before
    if AXE.is_file():
        assert axe_findings(page) == []
    page.get_by_role("button", name="1 gone").click()
    expect(page.locator(f"#{id}")).to_have_count(0)
    expect(page.locator("#held")).to_be_hidden()
    assert names(page) == [name for name in before if name != before[1]]


def test_rows_that_new_ones_moved_to_the_next_page_are_not_gone(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path, 60) as full, visitor(browser, full.url, full.link()) as reader:
        page = live(reader.page("/nodes"))
        before = names(page)
        join(full, "aaa-first", "aaa-second")
        expect(page.locator("#held button")).to_have_text("2 new")
        assert names(page) == before
        expect(page.locator("tr.gone")).to_have_count(0)
        page.locator("#held button").click()
        expect(page.get_by_role("link", name="aaa-second")).to_be_visible()
        assert names(page) == ["aaa-first", "aaa-second", *before[:-2]]


def test_a_view_is_named_in_a_dialog(reader: Visitor) -> None:
    page = live(reader.page("/nodes?q=state:degraded&columns=labels"))
    page.get_by_role("link", name="save this view").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("Behind on " + "everything " * 4)
    if AXE.is_file():
        assert axe_findings(page) == []
    dialog.get_by_role("button", name="Save").click()
    chip = page.get_by_role("link", name="★ Behind on everything")
    expect(chip).to_have_attribute("aria-current", "page")
    page.goto(page.url.partition("?")[0])
    chip.click()
    page.wait_for_url("**columns=labels")
    page.get_by_role("button", name="Remove the view").click()
    expect(page.get_by_role("link", name="save this view")).to_be_visible()
    expect(chip).to_have_count(0)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_menus_fit_and_axe_finds_nothing(browser: Browser, fleet: Running, scheme: str, width: int) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not there: run scripts/vendor")
    size = {"width": width, "height": 900}
    with visitor(browser, fleet.url, fleet.link(), color_scheme=scheme, viewport=size) as reader:
        page = live(reader.page("/nodes?columns=os,labels,seen&q=state:healthy"))
        for menu in ("Columns", "Export"):
            page.locator("summary", has_text=menu).click()
            box = page.locator("details[open] .menu-body").bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert axe_findings(page) == []
        page.locator("summary", has_text="Columns").click()
        page.get_by_role("button", name="compact").click()
        expect(page.locator("html")).to_have_attribute("data-density", "compact")
        assert axe_findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
