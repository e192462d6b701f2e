"""What operators say of services, and what pages show of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from app.core.errors import Invalid, NotFound, NotPossible
from app.services import attention, declare, services
from app.services.service_watch import ServiceWatch
from app.services.services import Listed
from app.store import declared, schema
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR
from tests.services import admission_kit as fleet
from tests.services.admission_kit import change_node, node

WEB, CACHE = ("shop", "web"), ("shop", "cache")


@pytest.fixture
def ids(database: Database) -> list[str]:
    """web on three nodes, cache on one of them, an exporter on every node by design."""
    fleet.gateway(database)
    each = ("exporter", {"per_node": True, "scope": ""})
    found = [
        node(database, "a", ["web", "cache", each]),
        node(database, "b", ["web", each]),
        node(database, "c", ["web", ("web", {"health": "unhealthy"}), each]),
    ]
    ServiceWatch().step(database, NOW)
    return found


def one(db: Database, key: tuple[str, str]) -> Listed:
    with db.read() as conn:
        return services.one(conn, key, NOW)


def audited(db: Database) -> list[tuple[str, str, str]]:
    with db.read() as conn:
        query = select(schema.audit.c.action, schema.audit.c.object, schema.audit.c.reason).order_by(schema.audit.c.id)
        return [(row[0], row[1], row[2]) for row in conn.execute(query)]


def test_the_list_begins_with_what_has_no_room(database: Database, ids: list[str]) -> None:
    with database.read() as conn:
        found = services.listing(conn, NOW)
    assert [(each.key, each.healthy, each.view.expected, each.view.floor, each.nodes) for each in found] == [
        (CACHE, 1, 1, 1, 1),
        (WEB, 3, 3, 2, 3),
        (("", "exporter"), 3, 3, None, 3),
    ]
    assert [each.headroom for each in found] == [0, 1, None]


def test_floors_replicas_and_allowances_are_set_and_cleared_with_reasons(database: Database, ids: list[str]) -> None:
    services.set_floor(database, OPERATOR, WEB, 3, "a fair", NOW)
    services.set_expected(database, OPERATOR, WEB, 5, "two more come", NOW)
    services.allow_single(database, OPERATOR, CACHE, True, "it is only a cache", NOW)
    web, cache = one(database, WEB), one(database, CACHE)
    assert (web.view.floor, web.view.expected, web.headroom) == (3, 5, 0)
    assert web.word is not None and (web.word.actor, web.word.reason) == ("mb", "two more come")
    assert (cache.view.floor, cache.view.allowed) == (0, True)
    services.clear(database, OPERATOR, WEB, "the fair is over", NOW)
    assert (one(database, WEB).view.floor, one(database, WEB).view.expected) == (2, 3)
    assert audited(database) == [
        ("service.floor", "service:shop/web", "a fair"),
        ("service.expected", "service:shop/web", "two more come"),
        ("service.allow-single", "service:shop/cache", "it is only a cache"),
        ("service.clear", "service:shop/web", "the fair is over"),
    ]


@pytest.mark.parametrize(
    ("say", "field"),
    [
        (lambda db: services.set_floor(db, OPERATOR, WEB, -1, "x", NOW), "floor"),
        (lambda db: services.set_expected(db, OPERATOR, WEB, 10**7, "x", NOW), "expected"),
        (lambda db: services.set_floor(db, OPERATOR, WEB, 1, " ", NOW), "reason"),
        (lambda db: services.set_floor(db, OPERATOR, ("shop", " "), 1, "x", NOW), "name"),
    ],
)
def test_what_nobody_can_mean_is_refused(
    database: Database, ids: list[str], say: Callable[[Database], Any], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        say(database)
    assert refused.value.field == field
    assert audited(database) == []


def test_a_service_that_is_not_there(database: Database, ids: list[str]) -> None:
    with pytest.raises(NotFound):
        one(database, ("shop", "wbe"))
    services.set_floor(database, OPERATOR, ("shop", "soon"), 2, "it comes tomorrow", NOW)
    soon = one(database, ("shop", "soon"))
    assert (soon.healthy, soon.view.floor) == (0, 2)


def test_a_service_with_a_floor_that_runs_nowhere_is_listed_and_needs_a_person(
    database: Database, ids: list[str]
) -> None:
    soon, spoken = ("shop", "soon"), ("shop", "spoken-of")
    services.set_floor(database, OPERATOR, soon, 2, "it comes tomorrow", NOW)
    services.allow_single(database, OPERATOR, spoken, True, "perhaps", NOW)
    with database.read() as conn:
        found = services.listing(conn, NOW)
        needing = {entry.subject: entry.text for entry in attention.entries(conn, NOW)}
    assert [(each.key, each.healthy, each.headroom) for each in found if each.headroom and each.headroom < 0] == [
        (soon, 0, -2)
    ]
    assert spoken not in {each.key for each in found}
    assert needing["service:shop/soon"] == "0 healthy, floor 2"


def test_more_than_expected_are_no_headroom(database: Database, ids: list[str]) -> None:
    services.set_expected(database, OPERATOR, WEB, 2, "the third is being moved", NOW)
    assert (one(database, WEB).healthy, one(database, WEB).headroom) == (3, 1)
    services.set_floor(database, OPERATOR, WEB, 3, "none may go", NOW)
    assert one(database, WEB).headroom == 0, "above what is expected, and kept"


def test_what_if_nodes_go_away(database: Database, ids: list[str]) -> None:
    with database.read() as conn:
        found = services.what_if(conn, ids[:2], NOW)
    assert [(each.service.key, each.lost, each.left, each.below_floor) for each in found] == [
        (CACHE, 1, 0, True),
        (WEB, 2, 1, True),
        (("", "exporter"), 2, 1, False),
    ]


def test_where_it_runs(database: Database, ids: list[str]) -> None:
    with database.read() as conn:
        assert services.where(conn, WEB) == [(ids[0], "a", 1), (ids[1], "b", 1), (ids[2], "c", 1)]


# --- declarations -------------------------------------------------------------------------------------------


def test_a_declaration_is_of_a_node_that_cannot_say_it_itself(database: Database, ids: list[str]) -> None:
    with pytest.raises(NotPossible) as refused:
        declare.declare_placement(database, OPERATOR, ids[0], [], "I looked", NOW)
    assert refused.value.code == "placement-known"


@pytest.mark.parametrize(
    "runs",
    [[(WEB, 0)], [(WEB, 1), (WEB, 2)], [(("shop", ""), 1)], [((str(number), "x"), 1) for number in range(201)]],
)
def test_a_declaration_that_nobody_can_mean(database: Database, ids: list[str], runs: Any) -> None:
    change_node(database, ids[0], placement_known=False)
    with pytest.raises(Invalid):
        declare.declare_placement(database, OPERATOR, ids[0], runs, "I looked", NOW)


def test_a_declaration_ends_when_the_node_says_it_itself(database: Database, ids: list[str]) -> None:
    change_node(database, ids[0], placement_known=False)
    declare.declare_placement(database, OPERATOR, ids[0], [(WEB, 1)], "I looked", NOW)
    assert declare.end_declarations(database, NOW + 1) == 0
    change_node(database, ids[0], placement_known=True)
    assert declare.end_declarations(database, NOW + 2) == 1
    with database.read() as conn:
        assert declared.of_node(conn, ids[0]) is None
    assert [each[0] for each in audited(database)] == ["node.declare", "node.declare"]


def test_a_declaration_is_withdrawn(database: Database, ids: list[str]) -> None:
    change_node(database, ids[0], placement_known=False)
    declare.declare_placement(database, OPERATOR, ids[0], [(WEB, 1)], "I looked", NOW)
    declare.withdraw_declaration(database, OPERATOR, ids[0], "I was wrong", NOW)
    with pytest.raises(NotPossible):
        declare.withdraw_declaration(database, OPERATOR, ids[0], "again", NOW)


def test_a_lost_node_is_listed_until_it_is_found(database: Database, ids: list[str]) -> None:
    declare.declare_lost(database, OPERATOR, ids[0], "burnt", NOW)
    with pytest.raises(NotPossible):
        declare.declare_lost(database, OPERATOR, ids[0], "burnt", NOW)
    with database.read() as conn:
        assert declared.lost(conn) == [(ids[0], "a", NOW, "mb", "burnt")]
    declare.declare_found(database, OPERATOR, ids[0], "it was the other one", NOW)
    with pytest.raises(NotPossible):
        declare.declare_found(database, OPERATOR, ids[0], "again", NOW)


def test_a_lost_node_that_connects_is_found(database: Database, ids: list[str]) -> None:
    declare.declare_lost(database, OPERATOR, ids[0], "burnt", NOW)
    assert declare.end_declarations(database, NOW + 1) == 0
    change_node(database, ids[0], connected_at=NOW + 60)
    assert declare.end_declarations(database, NOW + 61) == 1
    with database.read() as conn:
        assert declared.lost(conn) == []
