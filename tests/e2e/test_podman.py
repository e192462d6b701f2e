"""A node with a real Podman: what runs on it is on its page, and what stops there stops on the page within a second."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.e2e.browser_kit import launch, missing, visitor
from tests.e2e.kit import Fleet
from tests.podman_machine import PodmanMachine

SHOP = {"com.docker.compose.project": "shop"}
CONTAINERS = {
    "shop-web-1": {**SHOP, "com.docker.compose.service": "web"},
    "shop-web-2": {**SHOP, "com.docker.compose.service": "web"},
    "queue": {"twinroot.service": "queue", "twinroot.scope": "jobs"},
}

pytestmark = pytest.mark.root

WAIT_MS = 40_000
"""Until an engine that hangs is taken for one: on a busy machine well below that."""


@pytest.fixture(scope="module")
def podman() -> Iterator[PodmanMachine]:
    if reason := PodmanMachine.missing():
        pytest.skip(reason)
    with PodmanMachine() as machine:
        yield machine


def test_three_containers_of_two_services_and_one_that_stops(
    fleet: Fleet, podman: PodmanMachine, record_property: Callable[[str, object], None]
) -> None:
    for name, labels in CONTAINERS.items():
        podman.run(name, labels)
    node = fleet.node(runtimes=json.dumps([str(podman.socket)]))
    fleet.wait(node, lambda row: row["containers_running"] == 3)
    page = fleet.page(node)
    assert "shop/ web shop-web-1" in page and "shop/ web shop-web-2" in page and "jobs/ queue queue" in page
    assert "3 running" in page
    evidence = fleet.ledger.node(fleet.id_of(node))["evidence"]
    assert evidence == "agent with slots and placement"

    podman.stop("shop-web-2")
    stopped_at = time.monotonic()
    fleet.until(node, lambda: "2 running" in fleet.page(node), "the page shows it", every_s=0.02)
    delay_s = time.monotonic() - stopped_at
    record_property("container-to-page-s", round(delay_s, 2))
    assert delay_s < 3, f"the page showed it after {delay_s:.1f} s"

    podman.start("shop-web-2")
    fleet.until(node, lambda: "3 running" in fleet.page(node), "the page shows it again", every_s=0.02)


@pytest.mark.browser
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_an_open_page_follows_containers_and_an_engine_that_hangs(fleet: Fleet, podman: PodmanMachine) -> None:
    """Nobody reloads it; an engine that does not answer leaves the placement unknown, and never empty."""
    podman.run("cache-1", {"com.docker.compose.project": "store", "com.docker.compose.service": "cache"})
    node = fleet.node(runtimes=json.dumps([str(podman.socket)]))
    with sync_playwright() as playwright:
        browser = launch(playwright)
        with visitor(browser, fleet.plane.url, fleet.plane.login_link()) as operator:
            page = operator.page(f"/nodes/{fleet.id_of(node)}")
            row = page.locator("tr", has_text="cache-1")
            expect(row).to_contain_text("running", timeout=WAIT_MS)
            podman.stop("cache-1")
            expect(row).not_to_be_attached(timeout=WAIT_MS)  # nothing will start it again: it is placed no more
            podman.start("cache-1")
            expect(row).to_contain_text("running", timeout=WAIT_MS)

            podman.freeze_engine()
            try:
                expect(page.get_by_text("placement unknown")).to_be_visible(timeout=WAIT_MS)
                expect(page.get_by_text("Last known:")).to_be_visible()
                expect(row).to_be_visible()
            finally:
                podman.thaw_engine()
            expect(page.get_by_text("placement unknown")).not_to_be_visible(timeout=WAIT_MS)
            expect(row).to_contain_text("running")
        browser.close()
    podman.rm("cache-1")
