"""Rollouts in real Chromium: dialogs, live waves, the replay's script; axe-core, and how soon a page can be used."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import select, update

from app.store import schema
from app.web import assets
from tests.e2e.browser_kit import Visitor, axe_findings, launched, missing, visitor
from tests.web.rollout_seed import seed_rollouts
from tests.web.running_kit import Running, live, running

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(not assets.has_vendor(), reason="front-end packages are not there: run scripts/vendor"),
]

Fleet = tuple[Running, dict[str, int]]
NODES = 200
INTERACTIVE_MS = 1000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as made:
        yield made


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two hundred nodes, and a rollout in each state."""
    with running(tmp_path_factory.mktemp("fleet"), NODES) as made:
        yield made, seed_rollouts(made.db, time.time())


@pytest.fixture
def reader(browser: Browser, fleet: Fleet) -> Iterator[Visitor]:
    with visitor(browser, fleet[0].url, fleet[0].link()) as made:
        yield made


def pages(numbers: dict[str, int]) -> list[str]:
    shown = [f"/rollouts/{numbers[state]}" for state in ("running", "halted", "rolled-back", "draft")]
    dialogs = [f"/rollouts/{numbers['running']}/{action}" for action in ("pause", "abort", "roll-back", "break-glass")]
    lists = [f"/rollouts/{numbers[state]}/nodes?wave=1" for state in ("running", "draft")]
    composing = ["/rollouts/new", "/rollouts/new?group=web", "/rollouts/new?q=nonsense:1"]
    others = [f"/rollouts/{numbers['draft']}/start", f"/rollouts/{numbers['succeeded']}/replay"]
    return ["/", "/rollouts", *shown, *dialogs, *lists, *composing, *others]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing(browser: Browser, fleet: Fleet, scheme: str, width: int) -> None:
    made, numbers = fleet
    size = {"width": width, "height": 900}
    with visitor(browser, made.url, made.link(), color_scheme=scheme, viewport=size) as seen:
        page = seen.page("/rollouts")
        findings = []
        for path in pages(numbers):
            answer = page.goto(made.url + path)
            assert answer is not None and answer.ok, path
            findings += axe_findings(page)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"
    assert findings == []


def test_pages_can_be_used_at_once(reader: Visitor, fleet: Fleet) -> None:
    numbers = fleet[1]
    page = reader.page("/rollouts")
    slow = {}
    for path in ("/rollouts", f"/rollouts/{numbers['running']}", f"/rollouts/{numbers['draft']}"):
        times = []
        for _ in range(3):  # another process of the machine may take one of them
            page.goto(reader.url + path)
            times.append(page.evaluate("performance.getEntriesByType('navigation')[0].domInteractive"))
        if min(times) > INTERACTIVE_MS:
            slow[path] = times
    assert not slow


def test_waves_fill_while_they_are_watched(reader: Visitor, fleet: Fleet) -> None:
    made, numbers = fleet
    page = live(reader.page(f"/rollouts/{numbers['running']}"))
    rows, c = schema.rollout_nodes, schema.rollout_nodes.c
    with made.db.write() as change:
        number = schema.rollouts.c.number == numbers["running"]
        id = change.conn.execute(select(schema.rollouts.c.id).where(number)).scalar_one()
        of_it = c.rollout_id == id, c.state == "ordered"
        node = change.conn.execute(select(c.node_id).where(*of_it).limit(1)).scalar_one()
        cell = page.locator(f".waves a[href='/nodes/{node}']")
        expect(cell).not_to_have_class("p-moving")
        change.conn.execute(update(rows).where(*of_it, c.node_id == node).values(state="moving", moving_at=time.time()))
        change.touch(f"rollout:{id}")
    expect(cell).to_have_class("p-moving")
    expect(page.locator(f"#flip-{node} .twin")).to_be_visible()


def test_cells_are_walked_by_arrow_keys(reader: Visitor, fleet: Fleet) -> None:
    page = reader.page(f"/rollouts/{fleet[1]['running']}")
    cells = page.locator(".wave").nth(1).locator(".cells a")
    cells.first.focus()
    page.keyboard.press("ArrowRight")
    expect(cells.nth(1)).to_be_focused()


def test_a_dialog_says_what_stops_and_does_it(reader: Visitor, fleet: Fleet) -> None:
    page = live(reader.page(f"/rollouts/{fleet[1]['paused']}"))
    page.get_by_role("link", name="Resume").click()
    dialog = page.locator("#panel-dialog")
    expect(dialog).to_contain_text("Goes on:")
    dialog.get_by_label("Reason").fill("the logs are fine")
    dialog.get_by_role("button", name="Resume").click()
    expect(page.locator(".state-now").first).to_have_text("running")
    page.get_by_role("link", name="Pause").click()
    expect(dialog).to_contain_text("Will still finish:")
    dialog.get_by_role("button", name="Pause").click()
    expect(page.locator(".state-now").first).to_have_text("paused")


def test_the_replay_plays_and_its_slider_leads_anywhere(reader: Visitor, fleet: Fleet) -> None:
    page = reader.page(f"/rollouts/{fleet[1]['succeeded']}/replay")
    expect(page.get_by_role("button", name="Show")).to_be_hidden()
    done = page.locator(".waves .p-done")
    expect(done).to_have_count(0)
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("End")
    expect(done.first).to_be_visible()
    assert page.url.endswith(f"at={slider.get_attribute('max')}")
    everything = done.count()
    page.get_by_role("button", name="Play").click()  # at the end it begins again
    expect(done).not_to_have_count(everything)
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("link", name="Later").click()
    expect(page.get_by_role("button", name="Play")).to_be_visible()


def test_the_replay_needs_no_script(browser: Browser, fleet: Fleet) -> None:
    made, numbers = fleet
    with visitor(browser, made.url, made.link(), java_script_enabled=False) as seen:
        page = seen.page(f"/rollouts/{numbers['succeeded']}/replay")
        page.get_by_role("link", name="Later").click()
        page.get_by_role("button", name="Show").click()
        assert "?at=" in page.url
        expect(page.locator("h1")).to_have_text("Replay")
