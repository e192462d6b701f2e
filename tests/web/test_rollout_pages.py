"""Rollouts in the console: the list, one that runs, one that has stopped. Counts equal the lists they lead to."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import update

from app.config import Settings
from app.core.query import BadQuery, parse
from app.store import schema
from app.store.database import Database
from tests import rollout_kit
from tests import server_kit as kit
from tests.server_kit import NOW
from tests.web.console_kit import Browser
from tests.web.rollout_seed import seed_rollouts

Console = tuple[Browser, dict[str, int]]


@pytest.fixture
def console(seeded: Browser, database: Database) -> Console:
    """Forty nodes, and a rollout in each state."""
    return seeded, seed_rollouts(database, NOW)


def test_the_list_shows_what_is_under_way_first(console: Console) -> None:
    browser, numbers = console
    page = browser.get("/rollouts").text
    order = [int(number) for number in re.findall(r'href="/rollouts/(\d+)"', page)]
    states = ("halted", "rolling-back", "running", "paused", "draft", "aborted", "rolled-back", "succeeded")
    assert order == [numbers[state] for state in states]
    assert "4 of 41 nodes failed" in page, "a halted one says why"


def test_it_says_how_many_of_its_nodes_a_newer_rollout_has(browser: Browser, database: Database) -> None:
    with database.write() as change:
        older, newer = (rollout_kit.add_rollout(change.conn, started_at=NOW) for _ in range(2))
        hold = {"code": "other-rollout", "text": "is with rollout 2", "subject": newer}
        for place, state in enumerate(("waiting", "ordered", "done")):
            node = kit.add_node(change.conn, f"web-{place}")
            rollout_kit.add_rollout_node(change.conn, older, node, state="left", hold=hold)
            rollout_kit.add_rollout_node(change.conn, newer, node, state=state)
    paths = sorted(set(re.findall(r'href="(/rollouts/\d+)"', browser.get("/rollouts").text)))
    said = [re.findall(r"Of its nodes: [^<]*", browser.get(path).text) for path in paths]
    assert said == [
        [f"Of its nodes: 2 with rollout {paths[1].rpartition('/')[2]}. Those that are not moved there come in again."],
        [],
    ]


def test_words_of_one_and_of_a_halt_are_said_once(browser: Browser, database: Database) -> None:
    with database.write() as change:
        id = rollout_kit.add_rollout(
            change.conn, state="halted", state_text="Halted: canary web-1 failed", started_at=NOW
        )
        rollout_kit.add_rollout_node(change.conn, id, kit.add_node(change.conn))
    [path] = set(re.findall(r'href="(/rollouts/\d+)"', browser.get("/rollouts").text))
    page = re.sub(r"<[^>]+>|\s+", " ", browser.get(path).text)
    assert page.count("Halted") == 1 and "Canary web-1 failed" in page
    assert "1 has not moved" in page


def test_nodes_that_left_are_not_waited_for_in_the_list(browser: Browser, database: Database) -> None:
    with database.write() as change:
        for state in ("running", "aborted"):
            id = rollout_kit.add_rollout(change.conn, state=state, ended_at=NOW if state == "aborted" else None)
            for progress in ("done", "left", "left", "waiting"):
                node = kit.add_node(change.conn)
                rollout_kit.add_rollout_node(change.conn, id, node, state=progress)
    page = browser.get("/rollouts").text
    assert re.findall(r'data-label="nodes">([^<]*)<', page) == ["1 of 2", "1 of 4"]


def test_without_rollouts_the_next_step_is_shown(browser: Browser) -> None:
    page = browser.get("/rollouts").text
    assert "No rollout yet" in page
    assert 'href="/rollouts/new"' in page


def test_ended_ones_come_in_pages(browser: Browser, database: Database) -> None:
    with database.write() as change:
        for _ in range(31):
            rollout_kit.add_rollout(change.conn, state="succeeded", ended_at=NOW)
    first = browser.get("/rollouts").text
    [older] = re.findall(r'href="(/rollouts\?before=\d+)"', first)
    second = browser.get(older).text
    shown = [set(re.findall(r'href="/rollouts/(\d+)"', page)) for page in (first, second)]
    assert [len(each) for each in shown] == [30, 1]
    assert not shown[0] & shown[1]


@pytest.mark.parametrize(
    "state", ["running", "halted", "paused", "rolling-back", "rolled-back", "succeeded", "aborted"]
)
def test_every_count_equals_the_list_it_leads_to(console: Console, state: str) -> None:
    browser, numbers = console
    base = f"/rollouts/{numbers[state]}"
    page = browser.get(base).text
    tiles = re.findall(rf'<a href="({base}/nodes\?state=[a-z-]+)"><b>([\d,]+)</b>', page)
    assert sum(int(number) for _, number in tiles) == total(browser, f"{base}/nodes")
    holds = re.findall(rf'<a class="num" href="({base}/nodes\?hold=[^"]+)"[^>]*>([\d,]+)</a>', page)
    assert bool(holds) is (state in ("running", "halted", "paused", "rolling-back"))
    waves = re.findall(rf'<a class="small" href="({base}/nodes\?wave=[^"]+)">', page)
    assert sum(total(browser, href) for href in waves) == total(browser, f"{base}/nodes")
    for href, number in tiles + holds:
        assert total(browser, href) == int(number), href


def total(browser: Browser, href: str) -> int:
    found = re.search(r'</h1><span class="muted">([\d,]+) nodes?</span>', browser.get(href.replace("&amp;", "&")).text)
    assert found, href
    return int(found[1].replace(",", ""))


def test_a_halted_rollout_says_why_and_the_two_ways_on(console: Console) -> None:
    browser, numbers = console
    page = browser.get(f"/rollouts/{numbers['halted']}").text
    assert "Halted." in page
    assert "Failed to connect to localhost port 8443" in page, "what the failed check printed"
    for action in ("resume", "roll-back"):
        assert f'href="/rollouts/{numbers["halted"]}/{action}"' in page
    assert "/pause" not in page


def test_actions_are_those_that_the_state_allows(console: Console) -> None:
    browser, numbers = console
    offered = {
        state: set(
            re.findall(rf'href="/rollouts/{numbers[state]}/([a-z-]+)"', browser.get(f"/rollouts/{numbers[state]}").text)
        )
        - {"nodes", "replay", "allow-single"}
        for state in ("running", "paused", "rolling-back", "succeeded")
    }
    assert offered == {
        "running": {"pause", "abort", "roll-back"},
        "paused": {"resume", "abort", "roll-back"},
        "rolling-back": {"abort"},
        "succeeded": {"reverse"},
    }


def test_a_rollout_is_found_by_number_and_by_id(console: Console, database: Database) -> None:
    browser, numbers = console
    with database.read() as conn:
        query = schema.rollouts.select().where(schema.rollouts.c.number == numbers["running"])
        id = conn.execute(query).one().id
    assert browser.get(f"/rollouts/{id}").status_code == 200
    assert browser.get("/rollouts/999999").status_code == 404
    assert browser.get("/rollouts/99999999999999999999").status_code == 404


@pytest.mark.parametrize(
    "asked", ["state=nonsense", "wave=x-y", "hold=nothing", "from=-1", "from=99999999999999", "wave=0-"]
)
def test_a_list_shrugs_at_what_it_does_not_know(console: Console, asked: str) -> None:
    browser, numbers = console
    assert browser.get(f"/rollouts/{numbers['running']}/nodes?{asked}").status_code == 200


def test_many_nodes_are_drawn_as_bars(browser: Browser, database: Database) -> None:
    with database.write() as change:
        id = rollout_kit.add_rollout(change.conn)
        for place in range(601):
            state = "done" if place < 300 else "waiting"
            node = kit.add_node(change.conn, f"n{place}")
            rollout_kit.add_rollout_node(change.conn, id, node, wave=place, state=state)
        change.touch("rollouts")
    page = browser.get(f"/rollouts/{id}").text
    assert 'class="p-done" title' not in page
    assert page.count('<div class="wave">') == 24
    assert 'aria-label="Canaries: 1 done"' in page
    assert len(page) < 60_000


def test_names_are_escaped_in_cells(browser: Browser, database: Database) -> None:
    with database.write() as change:
        id = rollout_kit.add_rollout(change.conn, group_name="<b>web", reason='"><script>x</script>')
        rollout_kit.add_rollout_node(change.conn, id, kit.add_node(change.conn, '"><img src=x>'))
    page = browser.get(f"/rollouts/{id}").text
    assert "<img" not in page
    assert "<script>x" not in page
    assert "<b>web" not in page


def test_the_page_follows_its_rollout(console: Console, database: Database) -> None:
    browser, numbers = console
    path = f"/rollouts/{numbers['running']}"
    ask = {"HX-Request": "true", "HX-Request-Type": "partial", "HX-Target": "div#rollout"}
    first = browser.get(path, headers=ask)
    assert first.text.startswith('<div class="col" id="rollout"')
    again = browser.get(path, headers=ask | {"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    browser.now += 2
    with database.write() as change:
        where = schema.rollouts.c.number == numbers["running"]
        id = change.conn.execute(schema.rollouts.select().where(where)).one().id
        change.conn.execute(update(schema.rollouts).where(where).values(state="paused", state_text="Paused by kt"))
        change.touch(f"rollout:{id}")
    changed = browser.get(path, headers=ask | {"If-None-Match": first.headers["ETag"]})
    assert "Paused by kt" in changed.text


def test_what_is_live_names_its_topics(browser: Browser, settings: Settings, database: Database) -> None:
    with database.write() as change:
        id = rollout_kit.add_rollout(change.conn)
    assert f'data-topics="rollout:{id} operations"' in browser.get(f"/rollouts/{id}").text


def test_the_filter_of_nodes_knows_rollouts(console: Console) -> None:
    browser, numbers = console
    number = numbers["running"]
    base = f"/rollouts/{number}/nodes"
    for asked, same in (("", base), ("/done", f"{base}?state=done"), ("/staged", f"{base}?state=staged")):
        page = browser.get(f"/nodes?q=rollout%3A{number}{asked}").text
        found = re.search(r"data-announce>([\d,]+) node", page)
        assert found
        assert int(found[1]) == total(browser, same), asked
    terms = [each["term"] for each in browser.get("/nodes/suggest?q=rollout:&cursor=8").json]
    assert f"rollout:{number}" in terms
    assert "rollout:7/soaking" in [each["term"] for each in browser.get("/nodes/suggest?q=rollout:7/s&cursor=11").json]


@pytest.mark.parametrize("wrong", ["rollout:web", "rollout:7/nowhere", "rollout:7/", "rollout:9999999999"])
def test_a_rollout_that_cannot_be_meant_is_said(wrong: str) -> None:
    with pytest.raises(BadQuery, match=r"is no rollout. For example rollout:12"):
        parse(wrong)


def test_the_fleet_shows_what_is_under_way(console: Console) -> None:
    browser, numbers = console
    page = browser.get("/").text.partition('class="rollouts-brief"')[2].partition("</ul>")[0]
    shown = [int(number) for number in re.findall(r'class="strong" href="/rollouts/(\d+)"', page)]
    assert shown == [numbers[state] for state in ("halted", "rolling-back", "running", "paused")]


def test_a_node_names_the_rollout_that_it_is_in(console: Console, database: Database) -> None:
    browser, numbers = console
    with database.read() as conn:
        query = schema.nodes.select().where(schema.nodes.c.admission == "admitted")
        id = conn.execute(query.order_by(schema.nodes.c.id)).first().id
    newest = max(numbers[state] for state in ("running", "rolling-back", "paused", "halted"))
    assert f'href="/rollouts/{newest}"' in browser.get(f"/nodes/{id}").text


def test_what_helps_is_one_click_away(console: Console) -> None:
    browser, numbers = console
    base = f"/rollouts/{numbers['running']}"
    assert f'href="{base}/allow-single?scope=shop&amp;name=ledger"' in browser.get(base).text
    waiting = browser.get(f"{base}/nodes?state=staged").text
    assert waiting.count(f'href="{base}/leave-out?node=') == total(browser, f"{base}/nodes?state=staged")
    assert "leave-out" not in browser.get(f"/rollouts/{numbers['succeeded']}/nodes").text


def test_watching_shows_the_rate_the_last_movement_the_range_the_limit_left_and_slots(console: Console) -> None:
    browser, numbers = console
    page = re.sub(r"\s+", " ", browser.get(f"/rollouts/{numbers['running']}").text)
    done = len(re.findall(r'class="p-done" title', page))
    assert done > 10, "waves fill"
    assert re.search(r">(\d+) an hour</b><span>rate of the last hour<", page)
    assert re.search(r"last movement <time[^>]*>40 s ago</time>", page)
    assert re.search(r"(for the others|no end in sight)</span>", page), "its range is not that of all"
    assert ">to the end</span>" not in page
    assert "It never ends unless" in page, "nodes of the seed are offline"
    assert '<p class="across small">' in page, "phones do not hide it"
    assert re.search(r"<h2>Failure limit</h2><span[^>]*>\d failed, \d more may<", page)
    flips = page.partition("<h2>Slots flipping</h2>")[2].partition("</ul>")[0]
    assert flips.count('class="twin"') == flips.count("<li ") > 0
    assert "Helps most:" in page or "Helps:" in page


def test_it_says_that_it_waits_for_a_slip_to_be_mended(browser: Browser, database: Database) -> None:
    with database.write() as change:
        rollout_id = rollout_kit.add_rollout(change.conn, started_at=NOW)
        hold = {"code": "other-group", "text": "is not of the group", "subject": ""}
        left = {"state": "left", "hold": hold, "added_at": NOW - 600, "ended_at": NOW - 30}
        rollout_kit.add_rollout_node(change.conn, rollout_id, kit.add_node(change.conn, "web-1"), **left)
    [path] = set(re.findall(r'href="(/rollouts/\d+)"', browser.get("/rollouts").text))
    words = (
        "1 node left its group: it ends in 4 min at the earliest, so that a slip in a selector or label can be mended"
    )
    page = re.sub(r"<[^>]+>|\s+", " ", browser.get(path).text)
    assert page.count(words) == 2, "in the outlook, and where it says why nodes wait"
    assert f"No node waits. {words}." in page
