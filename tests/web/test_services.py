from __future__ import annotations

import re

import pytest
from sqlalchemy import insert, select, update

from app.config import Settings
from app.services.service_watch import ServiceWatch
from app.store import schema
from app.store.database import Database
from tests.server_kit import NOW, add_container, add_node, count_rows
from tests.web.console_kit import Browser

DB = "/service?scope=shop&name=db"
LEDGER = "/service?scope=shop&name=ledger"


class Fleet:
    """shop/db on two nodes, shop/ledger on the first only, and an agent on every node."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.watch = ServiceWatch()
        with browser.db.write() as change:
            self.nodes = [add_node(change.conn, name=f"node-{number}", labels={"zone": "a"}) for number in (1, 2)]
            for node in self.nodes:
                add_container(change.conn, node, "db", scope="shop")
                add_container(change.conn, node, "exporter", per_node=True)
            add_container(change.conn, self.nodes[0], "ledger", scope="shop")
        self.look()

    def look(self) -> None:
        self.watch.step(self.browser.db, self.browser.now)


@pytest.fixture
def fleet(database: Database, settings: Settings) -> Fleet:
    return Fleet(Browser(database, settings))


def test_without_services_the_page_says_where_they_come_from(database: Database, settings: Settings) -> None:
    text = Browser(database, settings).get("/services").text
    assert "No service yet" in text
    assert "/joining" in text


def test_counts_of_the_list_partition(fleet: Fleet) -> None:
    text = fleet.browser.get("/services").text
    assert "3 services" in text
    assert "1 at the floor" in text  # the single ledger
    assert "1 with room" in text  # one of two db may go
    assert "1 on every node, no floor" in text
    assert "below the floor" not in text
    assert "name=db" not in fleet.browser.get("/services?q=ledger").text
    assert "No service matches" in fleet.browser.get("/services?q=nothing").text


def test_a_floor_is_set_with_a_reason_and_shown_with_its_author(fleet: Fleet) -> None:
    answer = fleet.browser.fill(f"{DB.replace('?', '/floor?')}", "/floor", floor="2", reason="quorum")
    assert (answer.status_code, answer.location) == (303, DB)
    text = fleet.browser.get(DB).text
    assert "mb" in text
    assert "“quorum”" in text
    assert "an operator said so" in text
    assert "2 at the floor" in fleet.browser.get("/services").text
    assert fleet.browser.fill(f"{DB.replace('?', '/clear?')}", "/clear", reason="as before").status_code == 303
    assert "1 at the floor" in fleet.browser.get("/services").text
    with fleet.browser.db.read() as conn:
        actions = conn.execute(select(schema.audit.c.action).order_by(schema.audit.c.id)).scalars().all()
    assert list(actions)[-2:] == ["service.floor", "service.clear"]


@pytest.mark.parametrize("floor", ["", "-1", "two", "9" * 10])
def test_a_floor_that_is_no_number_changes_nothing(fleet: Fleet, floor: str) -> None:
    answer = fleet.browser.fill(f"{DB.replace('?', '/floor?')}", "/floor", floor=floor, reason="kept text")
    assert answer.status_code == 422
    assert "is no number of replicas" in answer.text
    assert "kept text" in answer.text
    assert count_rows(fleet.browser.db, schema.services) == 0


def test_a_single_replica_may_be_allowed_to_move_and_forbidden_again(fleet: Fleet) -> None:
    assert "which never moves" in fleet.browser.get(LEDGER).text
    fleet.browser.fill(f"{LEDGER.replace('?', '/allow?')}", "/allow", reason="night is quiet")
    assert "which may move" in fleet.browser.get(LEDGER).text
    fleet.browser.fill(f"{LEDGER.replace('?', '/forbid?')}", "/forbid", reason="day")
    assert "which never moves" in fleet.browser.get(LEDGER).text


def test_what_if_names_the_services_that_would_fall(fleet: Fleet) -> None:
    text = fleet.browser.get("/services/what-if?q=node-1").text
    assert "1 service falls below the floor" in text  # ledger; db keeps one of two, its floor
    text = fleet.browser.get("/services/what-if?q=label:zone=a").text
    assert "2 nodes" in text
    assert "2 services fall below the floor" in text
    assert "no service falls" in fleet.browser.get("/services/what-if?q=node-9").text
    wrong = fleet.browser.get("/services/what-if?q=nonsense:1").text
    assert 'class="error"' in wrong


def test_the_time_line_says_why_a_replica_went_and_came_back(fleet: Fleet) -> None:
    browser = fleet.browser
    for state, wanted in (("offline", "went offline"), ("online", "is back")):
        browser.now += 60
        with browser.db.write() as change:
            change.conn.execute(
                update(schema.nodes).where(schema.nodes.c.id == fleet.nodes[1]).values(connection=state)
            )
            change.touch(f"node:{fleet.nodes[1]}")
        fleet.watch.note([f"node:{fleet.nodes[1]}"])
        fleet.look()
        text = browser.get(DB).text
        assert f">node-2</a> {wanted}" in text, "the name leads to the node"
    assert "−1" in text
    assert "+1" in text


def test_the_time_line_leads_to_the_rollout_that_took_a_replica(fleet: Fleet) -> None:
    text = "node-1: Update to 2.0 by mb (rollout 12) <b>"
    with fleet.browser.db.write() as change:
        change.conn.execute(
            insert(schema.service_changes).values(
                scope="shop", name="db", at=NOW, node_id=fleet.nodes[0], change=-1, healthy=1, cause="operation",
                text=text,
            )
        )  # fmt: skip
        change.touch("services")
    page = fleet.browser.get(DB).text
    node = f'<a class="text-strong strong" href="/nodes/{fleet.nodes[0]}">node-1</a>'
    assert f"{node}: Update to 2.0" in page
    assert 'by mb (<a class="text" href="/rollouts/12">rollout 12</a>) &lt;b&gt;' in page


def test_a_service_that_fills_up_is_not_below_its_floor_before_it_was_there(fleet: Fleet) -> None:
    fleet.browser.fill(f"{DB.replace('?', '/floor?')}", "/floor", floor="3", reason="quorum")
    steps = [(1, 1), (1, 2), (1, 3), (1, 4), (-1, 3), (-1, 2), (-1, 1), (1, 2), (1, 3)]
    with fleet.browser.db.write() as change:
        for moved, healthy in steps:
            row = {"scope": "shop", "name": "db", "at": NOW, "change": moved, "healthy": healthy}
            change.conn.execute(insert(schema.service_changes).values(row | {"cause": "container", "text": "so"}))
        change.touch("services")

    def tagged() -> list[bool]:
        """Of the changes that are shown, the oldest first."""
        rows = re.findall(r'<tr id="c-\d+">.*?</tr>', fleet.browser.get(DB).text)
        return ["below the floor" in row for row in reversed(rows)]

    assert tagged() == [False, False, False, False, False, True, True, True, False]
    with fleet.browser.db.write() as change:
        rows = schema.service_changes.c
        old = schema.service_changes.delete().where(
            rows.id <= select(rows.id).order_by(rows.id).offset(4).limit(1).scalar_subquery()
        )
        change.conn.execute(old)
        change.touch("services")
    assert tagged() == [True, True, True, False], "what is forgotten does not make a dip a beginning"


def test_an_unknown_service_is_not_found(fleet: Fleet) -> None:
    assert fleet.browser.get("/service?scope=shop&name=nothing").status_code == 404
    assert fleet.browser.get("/service/explode?scope=shop&name=db").status_code == 422
