"""Selectors in SQL take what they take in the planner's memory, on both databases."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings

from app.core.errors import Invalid
from app.core.group_policy import GroupPolicy
from app.core.groups import parse_selector
from app.core.query import parse
from app.store import groups, node_list
from app.store.database import Database
from app.store.groups import NewGroup
from app.store.node_query import condition, known_for
from tests.core.test_groups import selectors
from tests.server_kit import NOW, add_node

VALUES = ("", "a", "b", "a=b", "x y", "A")
KEYS = ("zone", "role", "a.b/c-d", "other")


@pytest.fixture
def fleet(database: Database) -> tuple[Database, dict[str, dict[str, str]]]:
    """Admitted nodes with labels of all sorts: id → labels; and some that are not admitted."""
    dice = random.Random(7)
    nodes: dict[str, dict[str, str]] = {}
    with database.write() as change:
        for _ in range(40):
            labels = {key: dice.choice(VALUES) for key in KEYS if dice.random() < 0.6}
            nodes[add_node(change.conn, labels=labels)] = labels
        for admission in ("pending", "retired"):
            add_node(change.conn, labels={"zone": "a"}, admission=admission)
    return database, nodes


def add(db: Database, name: str, selector: str, **given: object) -> None:
    values: dict[str, object] = {"precedence": 0, "channel_id": None, "said": {}} | given
    with db.write() as change:
        groups.add(change.conn, NewGroup(f"group_{name}", name, parse_selector(selector), **values), "mb", NOW)  # type: ignore[arg-type]


def listed(db: Database, text: str) -> set[str]:
    query = parse(text)
    with db.read() as conn:
        where = condition(query, known_for(conn, query, NOW))
        return {row.id for row in node_list.every(conn, where, node_list.Order())}


def test_sql_takes_what_a_selector_takes(fleet: tuple[Database, dict[str, dict[str, str]]]) -> None:
    db, nodes = fleet

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(selectors)
    def agree(text: str) -> None:
        selector = parse_selector(text)
        expected = sorted(id for id, labels in nodes.items() if selector.matches(labels))
        with db.read() as conn:
            assert groups.member_ids(conn, selector) == expected
            assert groups.members(conn, selector) == len(expected)

    agree()


def test_nodes_of_a_group_in_the_filter(fleet: tuple[Database, dict[str, dict[str, str]]]) -> None:
    db, nodes = fleet
    add(db, "edge", "zone=a")
    add(db, "edge-lab", "role,zone!=b")
    add(db, "core", "!zone")
    expected = {
        "group:edge": {id for id, labels in nodes.items() if labels.get("zone") == "a"},
        "group:CORE": {id for id, labels in nodes.items() if "zone" not in labels},
        "group:edge*": {
            id
            for id, labels in nodes.items()
            if labels.get("zone") == "a" or ("role" in labels and labels.get("zone") != "b")
        },
        "group:edge,core": {id for id, labels in nodes.items() if labels.get("zone") in ("a", None)},
        "group:nope": set(),
        "group:edge state:retired": set(),
    }
    for text, ids in expected.items():
        assert listed(db, text) == ids, text
    assert listed(db, "not group:* admission:admitted") == {
        id for id, labels in nodes.items() if labels.get("zone") not in ("a", None) and not (
            "role" in labels and labels.get("zone") != "b"
        )
    }  # fmt: skip


def test_groups_come_in_the_order_in_which_they_decide(database: Database) -> None:
    add(database, "b", "*")
    add(database, "a", "*")
    add(database, "top", "zone", precedence=3, said={"canaries": {"count": 4}})
    with database.read() as conn:
        found = groups.all_groups(conn)
        assert groups.names(conn) == ["a", "b", "top"]
        assert groups.get(conn, "group_nope") is None and groups.by_name(conn, "nope") is None
    assert [each.name for each in found] == ["top", "a", "b"]
    assert found[0].policy.canaries.count == 4 and found[1].policy == GroupPolicy()


def test_a_stored_policy_that_cannot_be_read_is_never_taken_as_a_lax_one(database: Database) -> None:
    add(
        database, "edge", "*", said={"windows": [{"days": ["mon"], "opens": "01:00", "closes": "02:00", "zone": "X/Y"}]}
    )
    with database.read() as conn, pytest.raises(Invalid):
        groups.all_groups(conn)
