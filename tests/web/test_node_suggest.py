"""Suggestions in the filter: each number is what the list has, on both databases."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from sqlalchemy import update

from app.services import groups
from app.services.groups import Wish
from app.store import schema
from tests import server_kit as kit
from tests.web.console_kit import Browser


def suggested(browser: Browser, text: str) -> list[dict[str, Any]]:
    """With the cursor at `|`, else at the end."""
    at = text.index("|") if "|" in text else len(text)
    answer = browser.get(f"/nodes/suggest?q={quote(text.replace('|', ''))}&at={at}")
    assert answer.status_code == 200
    found: list[dict[str, Any]] = answer.get_json()
    return found


def terms(browser: Browser, text: str) -> list[str]:
    return [each["term"] for each in suggested(browser, text)]


def listed(browser: Browser, text: str) -> int:
    found = re.search(r"data-announce>([\d,]+) node", browser.get(f"/nodes?q={quote(text)}").text)
    assert found, text
    return int(found.group(1).replace(",", ""))


COUNTED = (
    "state:", "health:", "connection:", "admission:", "phase:", "slot:", "version:", "version:<", "version:>=",
    "channel:", "os:", "arch:", "driver:", "name:web", "service:e", "label:", "label:zone=", "label:role=", "pinned:",
    "trial:", "conflict:", "failed:", "seen:>", "degr", "state:degraded label:zone=", "label:zone=lon state:",
)  # fmt: skip


def test_numbers_are_those_of_the_list(seeded: Browser) -> None:
    for text in COUNTED:
        found = [each for each in suggested(seeded, text) if each["count"] is not None]
        assert found, text
        for each in found[:3]:
            assert listed(seeded, each["text"].strip()) == int(each["count"]), each


def test_the_same_numbers_with_not(seeded: Browser) -> None:
    plain = {each["term"]: each["count"] for each in suggested(seeded, "slot:A state:")}
    negated = suggested(seeded, "slot:A not state:")
    assert {each["term"]: each["count"] for each in negated} == plain
    assert all(each["text"].startswith("slot:A not state:") for each in negated)


def test_fields_then_values(seeded: Browser) -> None:
    assert terms(seeded, "")[:3] == ["state:", "health:", "version:"]
    assert terms(seeded, "st")[0] == "state:"
    assert "phase:staged" in terms(seeded, "st")
    assert "state:on-trial" in terms(seeded, "tri")
    assert terms(seeded, "colour:") == []


def test_values_with_signs_of_the_language_are_quoted(browser: Browser) -> None:
    with browser.db.write() as change:
        kit.add_node(change.conn, "two words", labels={"room": 'hall "B"', "zone": "a,b"})
    (name,) = suggested(browser, 'name:"two')
    assert name["term"] == 'name:"two words"'
    assert listed(browser, name["text"]) == 1
    (room,) = suggested(browser, "label:room=")
    assert listed(browser, room["text"]) == 1
    (zone,) = suggested(browser, "not label:zone=a")
    assert zone["text"] == 'not label:zone="a,b" '
    assert listed(browser, zone["text"]) == 0


def test_groups_are_offered_with_their_nodes(seeded: Browser) -> None:
    for name, selector in (("edge", "zone=lon"), ("empty", "no-such-label"), ("everything", "*")):
        groups.create(seeded.db, kit.OPERATOR, Wish(name, selector), "why", kit.NOW)
    assert terms(seeded, "group:e") == ["group:edge", "group:empty", "group:everything"]
    for each in suggested(seeded, "slot:A group:"):
        assert listed(seeded, each["text"]) == int(each["count"]), each
    assert terms(seeded, "group:edge,emp") == ["group:edge,empty"]


def test_retired_nodes_are_offered_where_they_are_asked_for(seeded: Browser) -> None:
    with seeded.db.write() as change:
        one = change.conn.execute(schema.nodes.select().limit(1)).one().id
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == one).values(admission="retired"))
    (retired,) = suggested(seeded, "state:ret")
    assert retired["count"] == "1"
    assert listed(seeded, retired["text"]) == 1


def test_a_word_that_is_whole_is_not_suggested_again(seeded: Browser) -> None:
    assert "state:degraded" not in terms(seeded, "state:degraded")


def test_a_strange_cursor(browser: Browser) -> None:
    for at in ("", "x", "-1", "99999999999"):
        assert browser.get(f"/nodes/suggest?q=state:deg&at={at}").status_code == 200


def test_a_filter_beyond_all_measure_gets_no_answer(browser: Browser) -> None:
    assert suggested(browser, "x" * 2_000) == []


def test_only_signed_in(browser: Browser) -> None:
    stranger = Browser(browser.db, browser.settings, name="")
    assert stranger.get("/nodes/suggest?q=").status_code == 303
