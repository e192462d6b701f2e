"""The console in real Chromium: the main job from joining to rolling back, watched by two browsers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.e2e.browser_kit import Visitor, axe_findings, launch, missing, visitor
from tests.e2e.conftest import Fleet

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing())]

LONG_MS = 40_000
"""A reboot, a trial and a soak of a test node take about ten seconds on an idle machine."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def operator(browser: Browser, fleet: Fleet) -> Iterator[Visitor]:
    with visitor(browser, fleet.plane.url, fleet.plane.login_link()) as made:
        yield made


def test_a_node_joins_and_comes_alive_on_an_open_page(operator: Visitor, fleet: Fleet) -> None:
    watching = operator.page("/nodes")
    expect(watching.locator("#live-state")).to_have_text("live")
    page = operator.page("/joining")
    page.get_by_role("link", name="New join token").click()
    page.get_by_label("at once").check()
    page.get_by_role("button", name="Make the token").click()
    command = page.locator("code", has_text="twinroot-agent join").inner_text()

    node = fleet.powered_off_node()
    joined = node.join(shlex.split(command))
    assert joined.returncode == 0, joined.stderr
    row = watching.locator("tr", has_text=node.name)
    expect(row).to_be_visible(timeout=LONG_MS)
    node.start()
    expect(row).to_contain_text("healthy", timeout=LONG_MS)
    expect(row).to_contain_text("1.0.0")
    expect(page.locator("tr", has_text=node.name)).to_contain_text("joined")


def test_update_flips_the_slots_on_two_browsers_and_roll_back_flips_them_again(
    browser: Browser, operator: Visitor, fleet: Fleet
) -> None:
    node = fleet.node()
    page = operator.page(f"/nodes/{fleet.id_of(node)}")
    with visitor(browser, fleet.plane.url, fleet.plane.login_link()) as other:
        elsewhere = other.page(f"/nodes/{fleet.id_of(node)}")
        booted, booted_elsewhere = booted_slot(page), booted_slot(elsewhere)
        expect(booted).to_contain_text("1.0.0")
        before = slot_name(booted)

        act(page, "Update", lambda dialog: dialog.get_by_label("1.1.0").check())
        for where in (booted, booted_elsewhere):
            expect(where).to_contain_text("1.1.0", timeout=LONG_MS)
            expect(where).to_contain_text("confirmed good", timeout=LONG_MS)
        assert slot_name(booted) != before
        for where in (page, elsewhere):
            expect(where.get_by_text("succeeded").first).to_be_visible(timeout=LONG_MS)

        act(page, "Roll back to 1.0.0")
        for where in (booted, booted_elsewhere):
            expect(where).to_contain_text("1.0.0", timeout=LONG_MS)
        assert slot_name(booted) == before
        expect(page.locator(".timeline")).to_contain_text("test: Roll back to 1.0.0")


def test_a_broken_image_falls_back_and_the_page_says_why(operator: Visitor, fleet: Fleet) -> None:
    node = fleet.node()
    page = operator.page(f"/nodes/{fleet.id_of(node)}")
    act(page, "Update", lambda dialog: dialog.get_by_label("1.2.0").check())
    expect(page.locator(".head")).to_contain_text("on trial", timeout=LONG_MS)
    expect(page.get_by_text("fell back").first).to_be_visible(timeout=LONG_MS)
    expect(booted_slot(page)).to_contain_text("1.0.0", timeout=LONG_MS)
    # What the failed check printed on the other slot is kept across the reboot.
    expect(page.locator("pre", has_text="web.service: connection refused").first).to_be_visible()
    expect(page.get_by_text("Will not try")).to_be_visible()


def test_pin_shows_on_the_node_and_in_the_list(operator: Visitor, fleet: Fleet) -> None:
    node = fleet.node()
    page = operator.page(f"/nodes/{fleet.id_of(node)}")
    act(page, "Pin", lambda dialog: dialog.get_by_label("To").select_option(label="1.0.0 (runs now)"))
    expect(page.locator(".head")).to_contain_text("pinned to version 1.0.0")
    page.goto(f"{operator.url}/nodes?q=pinned:yes")
    expect(page.locator("tr", has_text=node.name)).to_be_visible()
    expect(page.locator("tr", has_text=node.name)).to_contain_text("pinned")


def test_the_page_says_so_when_it_is_not_live_and_catches_up(operator: Visitor, fleet: Fleet) -> None:
    node = fleet.node()
    page = operator.page(f"/nodes/{fleet.id_of(node)}")
    expect(page.locator("#live-state")).to_have_text("live")
    # That nobody answers meanwhile is said on the browser's console too, by the socket and by a fetch under way.
    with operator.expecting("ERR_CONNECTION_REFUSED", "Failed to fetch", "ERR_EMPTY_RESPONSE", "WebSocket connection"):
        fleet.plane.stop()
        expect(page.locator("#live-state")).to_have_text("not live", timeout=LONG_MS)
        fleet.plane.start()
        expect(page.locator("#live-state")).to_have_text("live", timeout=LONG_MS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_on_any_page(browser: Browser, fleet: Fleet, scheme: str, width: int) -> None:
    node = fleet.node() if not fleet.nodes else fleet.nodes[0]
    id = fleet.id_of(node)
    with visitor(browser, fleet.plane.url, fleet.plane.login_link(), color_scheme=scheme) as made:
        paths = [
            "/",
            "/nodes",
            "/nodes?q=health:nonsense",
            f"/nodes/{id}",
            "/images",
            "/images/upload",
            "/images/register",
        ]
        paths += ["/channels/new", "/joining", "/joining/new", "/events", "/preferences"]
        paths += [f"/nodes/{id}/{action}" for action in ("update", "reboot", "pin", "retire", "relabel")]
        page = made.page("/")
        page.set_viewport_size({"width": width, "height": 844})
        findings = []
        for path in paths:
            answer = page.goto(made.url + path)
            assert answer is not None and answer.ok, path
            policy = answer.headers["content-security-policy"]
            assert "unsafe" not in policy and "default-src" in policy
            findings += axe_findings(page)
        assert findings == []


def test_everything_can_be_done_without_scripts(browser: Browser, fleet: Fleet) -> None:
    node = fleet.node()
    link = fleet.plane.login_link()
    with visitor(browser, fleet.plane.url, link, java_script_enabled=False) as made:
        page = made.page("/nodes")
        page.get_by_role("link", name=node.name).click()
        expect(booted_slot(page)).to_contain_text("1.0.0")
        page.get_by_role("link", name="Reboot").click()
        page.get_by_label("Reason").fill("without scripts")
        page.get_by_role("button", name="Reboot").click()
        expect(page.locator(".timeline")).to_contain_text("without scripts")


def booted_slot(page: Page):  # type: ignore[no-untyped-def]
    """The large drawing of the slot that is booted."""
    return page.locator(".slots .slot", has_text=re.compile("booted")).first


def slot_name(slot) -> str:  # type: ignore[no-untyped-def]
    name: str = slot.locator(".mono").first.inner_text()
    return name


def act(page: Page, action: str, fill=lambda dialog: None) -> None:  # type: ignore[no-untyped-def]
    """Click an action, fill its dialog in with a reason, and confirm."""
    page.get_by_role("link", name=action, exact=True).click()
    dialog = page.locator("#panel-dialog")
    expect(dialog).to_be_visible()
    fill(dialog)
    dialog.get_by_label("Reason").fill(f"test: {action}")
    dialog.locator("button.primary").click()
    expect(dialog).not_to_be_visible()
