"""What needs a person: the list, its counts, and taking, putting aside, giving back, without JavaScript."""

from __future__ import annotations

import re
from html import unescape

import pytest
from werkzeug.test import TestResponse

from app.store import attention_marks
from tests import rollout_kit
from tests import server_kit as kit
from tests.server_kit import NOW
from tests.web.console_kit import Browser

NODE = "node_00000000000000000000000000"


@pytest.fixture
def needing(browser: Browser) -> Browser:
    """A halted rollout, one node that waits for approval, thirty that are long offline."""
    with browser.db.write() as change:
        conn = change.conn
        rollout_kit.add_rollout(conn, state="halted", state_text="Halted: 3 nodes failed", moved_at=NOW - 60)
        kit.add_node(conn, "new", id=NODE, admission="pending")
        for number in range(30):
            kit.add_node(conn, f"away-{number:02d}", connection="offline", last_seen_at=NOW - 7200 - number)
    return browser


def mark(
    browser: Browser, verb: str, kind: str = "pending", subject: str = f"node:{NODE}", **values: str
) -> TestResponse:
    return browser.fill(f"/attention/{verb}?kind={kind}&subject={subject}", f"/attention/{verb}", **values)


def kept(browser: Browser) -> attention_marks.Mark | None:
    with browser.db.read() as conn:
        return attention_marks.get(conn, "pending", f"node:{NODE}")


def facets(text: str) -> dict[str, tuple[int, str]]:
    """Words of each facet → its count and address."""
    found = re.findall(r'<a class="tag[^"]*" href="([^"]+)"[^>]*>([^<]+) <b>([\d,]+)</b>', text)
    return {words: (int(count), unescape(href)) for href, words, count in found}


def total(text: str) -> int:
    found = re.search(r"data-announce>([\d,]+) entr", text)
    return int(found[1]) if found else 0


def test_nothing_needs_a_person(browser: Browser) -> None:
    assert "Nothing needs a person" in browser.get("/attention").text


def test_counts_partition_and_equal_the_lists_they_lead_to(needing: Browser) -> None:
    mark(needing, "take")
    text = needing.get("/attention").text
    assert total(text) == 32
    found = facets(text)
    kinds = ["Halted rollouts", "Nodes that wait for approval", "Nodes offline for more than an hour"]
    assert [words for words in found if words in kinds] == kinds, "the most urgent first"
    for part in (kinds, ["nobody has it", "mb"]):
        assert sum(found[words][0] for words in part) == 32
        for words in part:
            count, href = found[words]
            assert total(needing.get(href).text) == count, words
    assert "10 more" in text, "twenty of a kind, the others on its own page"
    assert needing.get("/attention?kind=offline").text.count("is offline") == 30


def test_taking_shows_who_has_it(needing: Browser) -> None:
    answer = mark(needing, "take", reason="on it")
    assert (answer.status_code, answer.location) == (303, "/attention")
    assert "mb has it" in needing.get("/attention").text
    assert "“on it”" in needing.get("/").text, "and on the fleet's page"
    other = Browser(needing.db, needing.settings, "ana")
    refused = mark(other, "take")
    assert refused.status_code == 409
    assert "mb has it already" in refused.text
    assert mark(other, "release").status_code == 303
    assert kept(needing) is None


def test_what_is_put_aside_leaves_the_list_and_the_fleet_and_returns(needing: Browser) -> None:
    assert mark(needing, "snooze", hours="1", reason="they come tomorrow").status_code == 303
    assert "waits for approval" not in needing.get("/attention").text
    assert "waits for approval" not in needing.get("/").text.partition("Latest events")[2].partition("Versions")[0]
    aside = needing.get("/attention?aside=yes").text
    assert "they come tomorrow" in aside
    assert re.search(r"put aside, returns <time[^>]*>in 1 h</time>", aside) and ">Bring back</a>" in aside
    dialog = needing.get(f"/attention/release?kind=pending&subject=node:{NODE}").text
    assert "Bring it back" in dialog and "Give" not in dialog
    assert total(aside) == facets(needing.get("/attention").text)["put aside"][0] == 1
    needing.now += 3601
    assert "waits for approval" in needing.get("/attention").text


def test_until_a_moment_in_the_readers_zone(needing: Browser) -> None:
    assert mark(needing, "snooze", until="2025-06-16T06:00").status_code == 303
    found = kept(needing)
    assert found is not None
    assert found.snoozed_until == 1_750_053_600.0


@pytest.mark.parametrize(("until", "said"), [("soon", "is no time such as"), ("2020-01-01T00:00", "next thirty days")])
def test_a_wrong_moment_keeps_what_was_typed(needing: Browser, until: str, said: str) -> None:
    answer = mark(needing, "snooze", until=until, reason="lunch")
    assert answer.status_code == 422
    assert said in answer.text
    assert f'value="{until}"' in answer.text
    assert 'value="lunch"' in answer.text
    assert kept(needing) is None


def test_what_is_over_cannot_be_taken(needing: Browser) -> None:
    path = f"/attention/take?kind=pending&subject=node:{NODE}"
    form = needing.form(path, "/attention/take")
    with needing.db.write() as change:
        change.conn.exec_driver_sql("UPDATE nodes SET admission = 'admitted'")
    assert needing.submit(path, form).status_code == 404
    assert needing.get(path).status_code == 404


def test_it_is_found_by_name(needing: Browser) -> None:
    assert needing.get("/go?q=needs").location == "/attention"


def test_more_nodes_than_are_listed_are_counted_and_linked(browser: Browser) -> None:
    with browser.db.write() as change:
        for _ in range(503):
            kit.add_node(change.conn, connection="offline", last_seen_at=NOW - 7200)
    text = browser.get("/attention").text
    assert total(text) == 500
    assert "3 more are offline" in text
    assert "/nodes?q=state%3Aoffline%20seen%3A%3E1h" in text
    assert "500+" in browser.get("/").text


def test_a_lost_zone_leads_to_the_nodes_that_are_gone(browser: Browser) -> None:
    with browser.db.write() as change:
        for place in range(8):
            zone, online = ("rack 7", "offline") if place < 3 else ("b", "online")
            kit.add_node(change.conn, labels={"zone": zone}, connection=online, last_seen_at=NOW - 60)
    text = browser.get("/attention").text
    assert "Many nodes lost at once" in text
    [(href, name)] = re.findall(r'<a class="strong" href="([^"]+)">([^<]*rack 7)</a> 3 of 3 nodes went silent', text)
    assert name == "zone rack 7"
    assert re.search(r"\b3 nodes", browser.get(unescape(href)).text)
