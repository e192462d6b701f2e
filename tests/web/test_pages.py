"""Every page without JavaScript: it shows the truth, its fragment is its block, its counts equal its lists."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import Connection, event

from app.config import Settings
from app.store.database import Database
from app.web import node_exports
from tests import server_kit as kit
from tests.server_kit import NOW
from tests.web.console_kit import Browser
from tests.web.seed import seed

LIVE = re.compile(r'id="([a-z-]+)" data-topics="([^"]*)" data-revisions="([^"]*)" data-etag="([^"]*)" hx-get="([^"]*)"')


def part(block: str) -> dict[str, str]:
    """Headers as htmx 4 sends them for a live element."""
    return {"HX-Request": "true", "HX-Request-Type": "partial", "HX-Target": f"div#{block}"}


def live_parts(text: str) -> list[tuple[str, str, str, str, str]]:
    """Of the page itself: the banner of freezes stands on all pages, with an address of its own."""
    parts = [tuple(unescape(value) for value in found) for found in LIVE.findall(text)]
    return [found for found in parts if found[0] != "freeze-banner"]  # type: ignore[misc]


@contextmanager
def statements(db: Database) -> Iterator[list[str]]:
    """SQL that is run meanwhile, without the SELECTs of sessions and revisions that every request makes."""
    seen: list[str] = []

    def note(_c: Connection, _cursor: object, text: str, *_rest: object) -> None:
        if "FROM sessions" not in text and "FROM revisions" not in text and not text.startswith("BEGIN"):
            seen.append(text)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


def ids(db: Database) -> list[str]:
    from app.store.schema import nodes

    with db.read() as conn:
        return list(conn.execute(nodes.select().with_only_columns(nodes.c.id).order_by(nodes.c.id)).scalars())


def test_every_page_and_its_fragments(seeded: Browser) -> None:
    pages = [
        "/",
        "/?group=role&color=version",
        "/?color=phase",
        "/nodes",
        "/nodes?q=state:degraded&sort=-seen",
        "/events",
    ]
    pages += [f"/nodes/{id}" for id in ids(seeded.db)[:12]]
    for path in pages:
        page = seeded.get(path)
        assert page.status_code == 200, path
        parts = live_parts(page.text)
        assert parts, path
        for block, _topics, _revisions, etag, url in parts:
            assert url == path
            fragment = seeded.get(path, headers=part(block))
            assert fragment.status_code == 200
            assert fragment.headers["ETag"] == etag
            assert fragment.text.strip() in page.text, f"{path}: the fragment {block} is not what the page shows"
            assert "<html" not in fragment.text


@pytest.mark.parametrize("path", ["/freezes", "/freezes/new"])
def test_freezes_belong_to_no_entry_of_the_navigation(browser: Browser, path: str) -> None:
    navigation = browser.get(path).text.partition('<nav aria-label="Main">')[2].partition("</nav>")[0]
    assert "/groups" in navigation and "aria-current" not in navigation


def test_empty_pages_say_what_to_do(browser: Browser) -> None:
    for path in ("/", "/nodes"):
        assert "twinroot join-token create" in browser.get(path).text
    assert "will be listed here" in browser.get("/events").text


def test_unchanged_is_304_before_any_other_query(seeded: Browser) -> None:
    node = ids(seeded.db)[0]
    for path in ("/", "/nodes", f"/nodes/{node}", "/events"):
        (block, _, _, etag, _), *_ = live_parts(seeded.get(path).text)
        with statements(seeded.db) as seen:
            answer = seeded.get(path, headers=part(block) | {"If-None-Match": etag})
        assert answer.status_code == 304
        assert answer.data == b""
        assert seen == []


def test_a_change_is_seen_and_only_where_it_happened(seeded: Browser) -> None:
    first, second = ids(seeded.db)[:2]
    etags = {id: live_parts(seeded.get(f"/nodes/{id}").text)[0][3] for id in (first, second)}
    with seeded.db.write() as change:
        change.touch(f"node:{first}")
    answers = {
        id: seeded.get(f"/nodes/{id}", headers=part("node") | {"If-None-Match": etag}).status_code
        for id, etag in etags.items()
    }
    assert answers == {first: 200, second: 304}


def test_fragments_are_rendered_once_for_all_readers(seeded: Browser) -> None:
    other = Browser(seeded.db, seeded.settings, "other")
    other.app = seeded.app
    other.client = seeded.app.test_client()
    seeded.get("/nodes", headers=part("list"))
    with statements(seeded.db) as seen:
        assert seeded.get("/nodes", headers=part("list")).status_code == 200
    assert seen == []


def test_a_paced_fragment_says_how_old_it_is(seeded: Browser) -> None:
    first = seeded.get("/nodes", headers=part("list"))
    with seeded.db.write() as change:
        change.touch("nodes")
    again = seeded.get("/nodes", headers=part("list"))
    assert again.headers["ETag"] == first.headers["ETag"], "not rendered again within its pace"
    seeded.now += 2
    later = seeded.get("/nodes", headers=part("list"))
    assert later.headers["ETag"] != first.headers["ETag"]
    assert int(live_parts(later.text)[0][2]) == int(live_parts(first.text)[0][2]) + 1


def test_large_fragments_are_packed(seeded: Browser) -> None:
    plain = seeded.get("/nodes", headers=part("list"))
    packed = seeded.get("/nodes", headers=part("list") | {"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.data) < len(plain.data) / 3
    assert "Accept-Encoding" in packed.headers["Vary"]


def shown_total(browser: Browser, url: str) -> int:
    found = re.search(r"data-announce>([\d,]+) node", browser.get(url).text)
    assert found, url
    return int(found[1].replace(",", ""))


def test_counts_partition_and_equal_the_lists_they_link_to(seeded: Browser) -> None:
    text = seeded.get("/").text
    counts = [
        (unescape(url), int(number))
        for url, number in re.findall(r'<a href="(/nodes\?q=state[^"]*)" class="[^"]*"><b>(\d+)<', text)
    ]
    assert len(counts) >= 5
    assert sum(number for _, number in counts) == 40
    for url, number in counts:
        assert shown_total(seeded, url) == number, url


@pytest.mark.parametrize("color", ["health", "version", "phase"])
def test_the_legend_counts_every_cell(seeded: Browser, color: str) -> None:
    text = seeded.get(f"/?color={color}").text
    legend = text[text.index('class="legend"') :]
    entries = re.findall(
        r'<a href="(/nodes[^"]*)">.*?<span class="muted">(\d+)</span></a>', legend[: legend.index("</div>")]
    )
    assert (
        sum(int(number) for _, number in entries) == 40 == len(re.findall(r'<a href="/nodes/node_\w+" class="c-', text))
    )
    for url, number in entries:
        assert shown_total(seeded, unescape(url)) == int(number), url


def test_facets_equal_the_lists_they_link_to(seeded: Browser) -> None:
    for base in ("/nodes", "/nodes?q=not+state:offline+version:<4152"):
        facets = re.findall(r'<a class="tag" href="([^"]*)">[^<]* <b>(\d+)</b></a>', seeded.get(base).text)
        assert len(facets) > 5
        for url, number in facets:
            assert shown_total(seeded, unescape(url)) == int(number), url


def test_facets_follow_labels(seeded: Browser) -> None:
    from app.services import nodes

    assert "label:zone=mars" not in seeded.get("/nodes").text
    nodes.relabel(seeded.db, kit.OPERATOR, ids(seeded.db)[0], {"zone": "mars"}, "moved", NOW)
    assert "label:zone=mars <b>1</b>" in seeded.get("/nodes").text


def test_a_filter_that_cannot_be_read_keeps_its_text(seeded: Browser) -> None:
    page = seeded.get("/nodes?q=colour:red+web")
    assert page.status_code == 200
    assert "There is no field “colour”" in page.text
    assert 'value="colour:red web"' in page.text
    assert seeded.get("/nodes.csv?q=colour:red").status_code == 422


def test_pages_of_the_list_lead_through_all_nodes(browser: Browser) -> None:
    seed(browser.db, 120, NOW)
    seen: list[str] = []
    url: str | None = "/nodes?sort=-version"
    while url:
        text = browser.get(url).text
        seen += re.findall(r'<tr id="(node_\w+)"', text)
        found = re.search(r'href="([^"]*)" rel="next"', text)
        url = unescape(found[1]) if found else None
    assert len(seen) == len(set(seen)) == 120
    back = re.search(r'href="([^"]*)" rel="prev"', text)
    assert back
    assert re.findall(r'<tr id="(node_\w+)"', browser.get(unescape(back[1])).text) == seen[50:100]


def test_a_foreign_place_in_the_list_is_the_first_page(seeded: Browser) -> None:
    first = re.findall(r'<tr id="(node_\w+)"', seeded.get("/nodes?sort=seen").text)
    for after in ("WzEsMl0", "%01", "x" * 500, "WyJhIiwgImIiXQ"):
        page = seeded.get(f"/nodes?sort=seen&after={after}")
        assert re.findall(r'<tr id="(node_\w+)"', page.text) == first


def test_exports_are_exactly_the_view(seeded: Browser) -> None:
    query = "q=not+state:offline&sort=-version"
    rows = list(csv.DictReader(io.StringIO(seeded.get(f"/nodes.csv?{query}").text)))
    values = json.loads(seeded.get(f"/nodes.json?{query}").text)
    shown = re.findall(r'<tr id="(node_\w+)"', seeded.get(f"/nodes?{query}").text)
    assert [row["id"] for row in rows] == [value["id"] for value in values] == shown
    assert set(values[0]) == {*node_exports.COLUMNS, "labels"}
    assert json.loads(seeded.get("/nodes.json?q=name:nobody").text) == []


def test_exports_hand_no_formula_to_a_spreadsheet(browser: Browser) -> None:
    with browser.db.write() as change:
        kit.add_node(change.conn, name='=HYPERLINK("http://x")')
    (row,) = csv.DictReader(io.StringIO(browser.get("/nodes.csv").text))
    assert row["name"].startswith("'=")


@pytest.mark.parametrize(
    ("booted", "passive", "words"),
    [
        ({}, {}, ["version unknown", "empty"]),
        ({"good": True}, {"good": True}, ["version unknown", "version unknown"]),
        ({"version": "1.0"}, {"good": False}, ["1.0", "empty"]),
    ],
)
def test_a_slot_whose_version_nobody_knows_is_not_called_empty(
    browser: Browser, booted: dict[str, object], passive: dict[str, object], words: list[str]
) -> None:
    slots = [kit.slot("A", None, booted=True, next_boot=True) | booted, kit.slot("B", None) | passive]
    with browser.db.write() as change:
        node_id = kit.add_node(change.conn, slots=slots)
    assert re.findall(r"<b>([^<]*)</b>\n<dl>", browser.get(f"/nodes/{node_id}").text) == words


def queries_of(browser: Browser, path: str) -> int:
    with statements(browser.db) as seen:
        assert browser.get(path).status_code == 200
    return len(seen)


def test_more_nodes_ask_no_more_queries(database: Database, settings: Settings) -> None:
    browser = Browser(database, settings)
    seed(database, 15, NOW)
    paths = ("/", "/nodes", "/events", "/nodes?q=version:<4152+channel:stable")
    few = [queries_of(browser, path) for path in paths]
    with database.write() as change:
        for _ in range(100):
            kit.add_node(change.conn, labels={"zone": "z"})
        change.touch("nodes", "fleet")
    assert [queries_of(browser, path) for path in paths] == few


def test_names_are_escaped_everywhere(browser: Browser) -> None:
    bad = '<img src=x onerror="alert(1)">\'&'
    with browser.db.write() as change:
        id = kit.add_node(change.conn, name=bad, version=bad, labels={"zone": bad}, health_state="unhealthy")
        kit.add_container(change.conn, id, bad)
        from app.store import events

        events.append(change.conn, node_id=id, at=NOW, kind="boot", text=bad)
    for path in (
        "/",
        "/?color=version",
        "/nodes",
        f"/nodes/{id}",
        "/events",
        f"/nodes/{id}/retire",
        "/nodes?q=" + "%3Cimg",
    ):
        text = browser.get(path).text
        assert "<img" not in text, path
    assert "&lt;img" in browser.get("/").text


def test_events_by_node_and_kind_and_older(seeded: Browser) -> None:
    name = re.search(r'<td class="name"><a href="/nodes/\w+" aria-label="([^"]+)"', seeded.get("/events").text)
    assert name
    page = seeded.get(f"/events?node={name[1]}&kind=joined").text
    assert page.count('<tr id="e-') == 1
    assert "No node has this name" in seeded.get("/events?node=nobody").text
    older = re.search(r'href="([^"]*)" rel="next"', seeded.get("/events").text)
    assert older
    assert seeded.get(unescape(older[1])).text.count('<tr id="e-') > 10


def test_a_node_that_is_not_there(browser: Browser) -> None:
    page = browser.get("/nodes/node_nobody")
    assert page.status_code == 404
    assert "There is no node “node_nobody”" in page.text


def test_times_are_in_the_readers_zone(seeded: Browser) -> None:
    seeded.client.set_cookie("twinroot_zone", "Asia/Tokyo")
    assert " JST" in seeded.get("/events").text
    form = seeded.form("/preferences", "/preferences")
    assert seeded.submit("/preferences", form, time_zone="Europe/Berlin").status_code == 303
    assert re.search(" CES?T", seeded.get("/events").text)
    seeded.client.set_cookie("twinroot_zone", "../../etc/passwd")
    assert seeded.get("/events").status_code == 200


def test_a_filtered_list_leads_to_a_rollout_and_to_what_would_happen(seeded: Browser) -> None:
    assert "/rollouts/new?q=" not in seeded.get("/nodes").text, "a rollout of everything is not one click away"
    text = seeded.get("/nodes?q=label:zone=lon+not+pinned:yes").text
    for path in ("/rollouts/new?q=", "/services/what-if?q="):
        (address,) = re.findall(rf'href="({re.escape(path)}[^"]*)"', text)
        assert parse_qs(urlsplit(unescape(address)).query)["q"] == ["label:zone=lon not pinned:yes"]
        assert seeded.get(unescape(address)).status_code == 200
    assert "/rollouts/new?q=" not in seeded.get("/nodes?q=seen:soon").text, "nobody knows whom it means"
