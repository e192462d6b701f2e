"""Pages at the widths of phones, tablets and laptops, with names as long as people make them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import update

from app.services.joining import create_token
from app.store import schema
from app.web import assets
from app.web.filters import unbroken
from tests.e2e.browser_kit import Visitor, launched, missing, visitor
from tests.server_kit import OPERATOR
from tests.web.rollout_seed import FORECAST, seed_rollouts
from tests.web.running_kit import Running, running

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(not assets.has_vendor(), reason="front-end packages are not there: run scripts/vendor"),
]

Fleet = tuple[Running, dict[str, int]]
WIDTHS = (360, 390, 720, 768, 901, 1024, 1119, 1440)
LONG = {
    "scope": "very-long-compose-project-name-of-payments",
    "name": "customer-notification-preferences-synchroniser",
    "healthy_now": 12, "left": 11, "wave": 12, "floor": 11,
}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as made:
        yield made


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Forty nodes with long names, a rollout in each state whose worst moments name a long service."""
    with running(tmp_path_factory.mktemp("fleet"), 40) as made:
        numbers = seed_rollouts(made.db, time.time())
        note = "for the racks of the new hall"
        create_token(made.db, OPERATOR, note=note, expires_at=time.time() + 9000, now=time.time())
        with made.db.write() as change:
            nodes = schema.nodes.c
            change.conn.execute(update(schema.nodes).values(name="worker-eu-central-production-" + nodes.name))
            worst = [*FORECAST["worst"], LONG]
            change.conn.execute(update(schema.rollouts).values(forecast=FORECAST | {"worst": worst}))
            change.touch("fleet", "nodes", "rollouts")
        yield made, numbers


@pytest.fixture
def reader(browser: Browser, fleet: Fleet) -> Iterator[Visitor]:
    with visitor(browser, fleet[0].url, fleet[0].link()) as made:
        yield made


def at_width(page: Page, width: int) -> Page:
    page.set_viewport_size({"width": width, "height": 900})
    return page


def test_no_page_scrolls_sideways(reader: Visitor, fleet: Fleet) -> None:
    made, numbers = fleet
    rollouts = [f"/rollouts/{numbers[state]}" for state in ("running", "halted", "draft")]
    lists = [f"{path}/nodes" for path in rollouts]
    others = ["/nodes", "/services", "/attention", "/events", "/joining", "/rollouts"]
    page, wide = reader.page("/"), []
    for path in ("/", *others, *rollouts, *lists):
        page.goto(made.url + path)
        for width in WIDTHS:
            taken = at_width(page, width).evaluate("document.documentElement.scrollWidth")
            wide += [f"{path} at {width}: {taken}"] if taken > width else []
    assert wide == []


def test_worst_moments_show_all_columns_and_whole_names(reader: Visitor, fleet: Fleet) -> None:
    page = reader.page(f"/rollouts/{fleet[1]['running']}")
    for width in WIDTHS:
        box, cut = at_width(page, width).evaluate(
            """() => {
                const right = document.querySelector(".worst-box, .scroll:has(.worst)").getBoundingClientRect().right;
                const cells = [...document.querySelectorAll(".worst td")].filter(cell => cell.offsetParent);
                const over = cell => cell.getBoundingClientRect().right > right + 1;
                return [right, cells.filter(cell => over(cell) || cell.scrollWidth > cell.clientWidth + 1)
                    .map(cell => cell.textContent)];
            }"""
        )
        assert cut == [], f"at {width}, up to {box}"
        names = page.locator(".worst td.name").all_inner_texts()
        assert "shop/checkout" in names, f"at {width}: words stay whole"


def test_names_are_cut_in_their_middle_and_stay_whole_for_the_rest(reader: Visitor, fleet: Fleet) -> None:
    """What tells machines apart stands at the end of their names."""
    page = at_width(reader.page(f"/rollouts/{fleet[1]['running']}"), 390)
    for link in page.locator(".flips a").all():
        name, tail = link.get_attribute("aria-label") or "", link.locator(".mid > :last-child")
        assert link.inner_text() == name, "as it is copied"
        edge, box = link.bounding_box(), tail.bounding_box()
        assert edge is not None and box is not None and box["width"] > 30
        assert box["x"] + box["width"] <= edge["x"] + edge["width"] + 1, "its end is in view"
    heads = page.locator(".flips .mid > :first-child").evaluate_all(
        "all => all.map(e => e.scrollWidth > e.clientWidth)"
    )
    assert any(heads), "this is a width at which names do not fit"


def test_cells_of_a_wave_leave_no_orphan_on_a_phone(reader: Visitor, fleet: Fleet) -> None:
    """And each can still be hit: 24 pixels from the next."""
    page = reader.page(f"/rollouts/{fleet[1]['running']}")
    for width, cells, lines in ((390, 12, [12]), (360, 12, [12]), (390, 14, [7, 7]), (360, 26, [9, 9, 8])):
        found = at_width(page, width).evaluate(
            """cells => {
                const wave = document.querySelectorAll(".wave .cells")[1], lines = {};
                while (wave.children.length < cells) wave.append(wave.firstElementChild.cloneNode());
                for (const cell of wave.children) {
                    const box = cell.getBoundingClientRect();
                    (lines[Math.round(box.top)] ??= []).push(box.left);
                }
                return Object.values(lines);
            }""",
            cells,
        )
        page.reload()
        pitches = [after - before for line in found for before, after in pairwise(line)]
        assert all(pitch >= 23.9 for pitch in pitches)
        assert [len(line) for line in found] == lines, width


def test_freeze_has_its_word_at_every_width(reader: Visitor, fleet: Fleet) -> None:
    page = reader.page("/")
    for width in WIDTHS:
        freeze = at_width(page, width).get_by_role("banner").get_by_text("Freeze", exact=True)
        box = freeze.bounding_box()
        assert box is not None and box["width"] >= 40 and box["height"] >= 24, width
        assert box["x"] + box["width"] <= width


def test_lists_on_a_phone_keep_their_columns_in_view(reader: Visitor, fleet: Fleet) -> None:
    """The kind of an event beside its node, the kinds that need a person one below the other."""
    page = at_width(reader.page("/events"), 390)
    for row in page.locator("tbody tr").all():
        time_box, kind = row.locator("time").bounding_box(), row.locator(".tag").bounding_box()
        assert time_box is not None and kind is not None
        assert abs(time_box["y"] - kind["y"]) < 12, row.inner_text()
        assert kind["x"] + kind["width"] <= 390 - 16, row.inner_text()
    page.goto(fleet[0].url + "/attention")
    for facet in page.locator(".facets > *").all():
        box = facet.bounding_box()
        assert box is not None and box["x"] + box["width"] <= 390 - 16, facet.inner_text()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("2 min – 3 h 3 min", ["2\u00a0min\u00a0–", "3\u00a0h\u00a03\u00a0min"]),
        ("1 d 17 h", ["1\u00a0d\u00a017\u00a0h"]),
        ("10.4 a minute", ["10.4", "a\u00a0minute"]),
        ("43 an hour", ["43", "an\u00a0hour"]),
        ("at least 12 min", ["at", "least", "12\u00a0min"]),
    ],
)
def test_quantities_break_between_their_parts_alone(text: str, lines: list[str]) -> None:
    assert unbroken(text).split(" ") == lines


def test_the_fleet_on_a_phone_begins_with_people_rollouts_and_the_map(reader: Visitor) -> None:
    page = at_width(reader.page("/"), 390)
    tops = {
        heading: page.get_by_role("heading", name=heading, exact=True).first.bounding_box()
        for heading in ("Needs a person", "Rollouts", "Nodes", "Running", "Latest events", "Versions")
    }
    places = [box["y"] for box in tops.values() if box is not None]
    assert len(places) == len(tops) and places == sorted(places), tops
