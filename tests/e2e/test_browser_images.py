"""Images in real Chromium: uploaded through the form, promoted, and run by a node that follows the channel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from sim.fleet import ARCH, OS, DemoImage, write_image
from tests.e2e.browser_kit import axe_findings, launch, missing, visitor
from tests.e2e.kit import Fleet, names_of

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing())]

LONG_MS = 40_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


def test_an_image_is_uploaded_promoted_and_run(browser: Browser, fleet: Fleet, tmp_path: Path) -> None:
    node = fleet.node()
    file = write_image(DemoImage("5.0.0", "from a browser"), tmp_path)
    fleet.plane.run("image", "sign", "--key", fleet.folder / "image-key", *names_of("5.0.0"), file)
    with visitor(browser, fleet.plane.url, fleet.plane.login_link()) as operator:
        watching = operator.page("/images")
        page = operator.page("/images/upload")
        page.get_by_label("Image file").set_input_files(file)
        for label, value in (("OS name", OS), ("Architecture", ARCH), ("Version", "5.0.0")):
            page.get_by_label(label).fill(value)
        page.get_by_label("Signature").fill(file.with_name(file.name + ".sig").read_text())
        page.get_by_label("Notes").fill("By hand, through the form.")
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_role("heading", name="5.0.0")).to_be_visible()
        expect(page.get_by_text("By hand, through the form.")).to_be_visible()
        expect(watching.get_by_text("5.0.0").first).to_be_visible(timeout=LONG_MS)

        page.get_by_role("link", name="Promote to stable").click()
        page.get_by_label("Reason").fill("it is the newest")
        page.get_by_role("button", name="Promote").click()
        expect(watching.locator("tr", has_text="stable").first).to_contain_text("5.0.0", timeout=LONG_MS)

        page.goto(f"{operator.url}/nodes/{fleet.id_of(node)}")
        page.get_by_role("link", name="Update", exact=True).click()
        dialog = page.locator("#panel-dialog")
        dialog.get_by_label("5.0.0").check()
        dialog.get_by_label("Reason").fill("follows stable")
        dialog.locator("button.primary").click()
        booted = page.locator(".slots .slot", has_text="booted").first
        expect(booted).to_contain_text("5.0.0", timeout=LONG_MS)
        expect(booted).to_contain_text("confirmed good", timeout=LONG_MS)


def test_axe_finds_nothing_on_the_pages_of_things_and_on_every_form(browser: Browser, fleet: Fleet) -> None:
    node, image = fleet.id_of(fleet.nodes[0] if fleet.nodes else fleet.node()), fleet.ledger.image_id("1.1.0")
    with visitor(browser, fleet.plane.url, fleet.plane.login_link()) as operator:
        page = operator.page("/joining/new")
        page.get_by_role("button", name="Make the token").click()
        findings = axe_findings(page)
        page.goto(f"{operator.url}/images")
        channel = page.get_by_role("link", name="stable").first.get_attribute("href")
        actions = ("rollback", "cancel", "rescue", "unpin", "approve", "rename", "follow", "settle-conflict")
        paths = [f"/images/{image}", f"/images/{image}/sign", str(channel), f"{channel}/promote?image={image}"]
        paths += [f"/nodes/{node}/{action}" for action in actions]
        paths += ["/nodes/views/new?q=health:healthy", "/nodes/none", "/sign-in", "/sign-in/spent"]
        with operator.expecting("401", "404"):
            for path in paths:
                page.goto(operator.url + path)
                findings += axe_findings(page)
        assert findings == []
