"""The simulation forgives a wait that only a person can end where it says so, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from app.store.database import Database
from tests import server_kit as kit
from tests.simulation.ledger import sick, waits_for_the_sick
from tests.simulation.story import BAD, TARGET

TEXT = "waits for the budget of group all: 1 node unhealthy, at most 1"
WAITS = {"code": "group-budget", "text": TEXT}


@pytest.mark.parametrize(
    ("holds", "expected"),
    [
        ([WAITS], True),
        ([WAITS, WAITS | {"code": "domain-budget"}], True),
        ([WAITS, None], False),
        ([WAITS | {"text": "waits for the budget of group all: 1 node away, at most 1"}], False),
        ([WAITS | {"code": "service-floor"}], False),
        ([], False),
    ],
    ids=["budget", "zone", "no reason", "another reason", "another limit", "nothing open"],
)
def test_a_wait_for_unhealthy_nodes(database: Database, holds: list[dict[str, Any] | None], expected: bool) -> None:
    with database.write() as change:
        for hold in holds:
            kit.add_operation(change.conn, kit.add_node(change.conn), hold=hold)
    with database.read() as conn:
        assert waits_for_the_sick(conn) is expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, True),
        ({"version": TARGET}, False),
        ({"health_state": "healthy"}, False),
        ({"connection": "offline"}, False),
    ],
    ids=["sick", "on a good version", "well", "away"],
)
def test_who_is_sick(database: Database, given: dict[str, Any], expected: bool) -> None:
    with database.write() as change:
        kit.add_node(change.conn, **({"version": BAD, "health_state": "unhealthy"} | given))
    with database.read() as conn:
        assert bool(sick(conn)) is expected


def test_whoever_has_an_order_may_leave_it(database: Database) -> None:
    with database.write() as change:
        kit.add_operation(change.conn, kit.add_node(change.conn, version=BAD, health_state="unhealthy"))
    with database.read() as conn:
        assert not sick(conn)
