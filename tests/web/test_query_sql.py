"""The filter language in SQL finds what a plain reading of it finds, on both databases."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.fleet import state_of
from app.core.groups import parse_selector
from app.core.query import AnyOf, Compare, Field, Flag, Is, Label, Not, Query, Seen, Term, Text, Version, parse
from app.core.versions import version_key
from app.store import groups, node_list, schema
from app.store.database import Database
from app.store.groups import NewGroup
from app.store.node_query import condition, known_for
from tests import server_kit as kit
from tests.server_kit import NOW

_COMPARE = {
    Compare.LESS: lambda a, b: a < b,
    Compare.AT_MOST: lambda a, b: a <= b,
    Compare.MORE: lambda a, b: a > b,
    Compare.AT_LEAST: lambda a, b: a >= b,
}
NAMES = ("web-01", "Web_02", "db%1", "a b", 'q"uote', "edge\\x", "node", "100%")
VERSIONS = ("1.0", "1.10", "1.9", "2.0-rc1", "2.0", "")
LABELS: tuple[dict[str, str], ...] = ({}, {"zone": "a"}, {"zone": "b", "canary": ""}, {"canary": "Yes", "a.b/c-d": "x"})
GROUPS = {"edge": "zone=a", "lab": "canary, zone!=b", "all": "*"}
SERVICES = ("redis", "shop/web", "")


def _rows(dice: random.Random) -> Iterator[dict[str, Any]]:
    for number in range(60):
        yield {
            "name": f"{dice.choice(NAMES)}-{number % 7}",
            "version": dice.choice(VERSIONS),
            "labels": dice.choice(LABELS),
            "booted_slot": dice.choice(("A", "B", "")),
            "health_state": dice.choice(("healthy", "degraded", "unhealthy", "unknown")),
            "connection": dice.choice(("online", "online", "offline", "never")),
            "admission": dice.choice(("admitted", "admitted", "admitted", "pending", "retired")),
            "phase": dice.choice(("idle", "staged", "soaking")),
            "on_trial": dice.random() < 0.2,
            "conflict": {"since": NOW} if dice.random() < 0.1 else None,
            "os_id": dice.choice(("demo", "flatcar")),
            "last_seen_at": dice.choice((None, NOW - 10, NOW - 5000, NOW - 200_000)),
            "service": dice.choice(SERVICES),
            "channel": dice.choice(("stable", "beta", None)),
            "pin": dice.choice(("", "", "stable", "image")),
            "failed": dice.choice((False, False, "open", "cleared")),
        }


@pytest.fixture
def fleet(database: Database) -> tuple[Database, dict[str, dict[str, Any]]]:
    """Sixty nodes of all sorts: id → what the naive reading looks at."""
    dice = random.Random(5)
    nodes: dict[str, dict[str, Any]] = {}
    with database.write() as change:
        conn = change.conn
        image = kit.add_image(conn)
        channels = {name: kit.add_channel(conn, name) for name in ("stable", "beta")}
        gateway = kit.add_gateway(conn, heartbeat_at=NOW - 20)
        for name, selector in GROUPS.items():
            blank = NewGroup(f"group_{name}", name, parse_selector(selector), 0, None, {})
            groups.add(conn, blank, "mb", NOW)
        for row in _rows(dice):
            columns = {name: value for name, value in row.items() if name in schema.nodes.c}
            columns["channel_id"] = channels.get(row["channel"])
            columns["pin_channel_id"] = channels.get(row["pin"])
            columns["pin_image_id"] = image if row["pin"] == "image" else None
            columns["gateway_id"] = gateway if row["connection"] == "online" else None
            id = kit.add_node(conn, **columns)
            if row["service"]:
                scope, _, service = row["service"].rpartition("/")
                kit.add_container(conn, id, service, scope=scope)
            if row["failed"]:
                values = {"node_id": id, "digest": "d", "version": "9", "reason": "r", "at": NOW}
                cleared = NOW if row["failed"] == "cleared" else None
                conn.execute(schema.failed_versions.insert().values(cleared_at=cleared, **values))
            nodes[id] = row | {"id": id}
    return database, nodes


def naive(query: Query, node: dict[str, Any]) -> bool:
    if node["admission"] == "retired" and not query.asks_retired:
        return False
    return all(_holds(term, node) for term in query.terms)


def _holds(term: Term, node: dict[str, Any]) -> bool:
    match term:
        case Not(inner):
            return not _holds(inner, node)
        case AnyOf(terms):
            return any(_holds(each, node) for each in terms)
        case Text(pattern):
            inside = pattern.anywhere
            return inside.matches(node["name"]) or inside.matches(node["version"]) or pattern.matches(node["id"])
        case Label(key, pattern):
            value = node["labels"].get(key)
            return value is not None and (pattern is None or pattern.matches(value))
        case Version(compare, version):
            return bool(node["version"]) and _COMPARE[compare](version_key(node["version"]), version_key(version))
        case Seen(compare, seconds):
            at = NOW - 20 if node["connection"] == "online" else node["last_seen_at"]
            return at is not None and _COMPARE[compare](NOW - at, seconds)
        case Flag(field, wanted):
            return _flag(field, node) == wanted
        case Is(Field.CHANNEL, pattern):
            channel = None if node["pin"] == "image" else node["pin"] or node["channel"]
            return channel is not None and pattern.matches(channel)
        case Is(Field.SERVICE, pattern):
            scope, _, service = node["service"].rpartition("/")
            return bool(service) and (pattern.matches(service) or pattern.matches(f"{scope}/{service}"))
        case Is(Field.GROUP, pattern):
            selectors = [parse_selector(selector) for name, selector in GROUPS.items() if pattern.matches(name)]
            return node["admission"] == "admitted" and any(each.matches(node["labels"]) for each in selectors)
        case Is(field, pattern):
            return pattern.matches(_value(field, node))
    raise AssertionError(term)


def _flag(field: Field, node: dict[str, Any]) -> bool:
    return {
        Field.PINNED: bool(node["pin"]),
        Field.TRIAL: node["on_trial"],
        Field.CONFLICT: node["conflict"] is not None,
        Field.FAILED: node["failed"] == "open",
    }[field]


def _value(field: Field, node: dict[str, Any]) -> str:
    names = {
        Field.SLOT: "booted_slot",
        Field.HEALTH: "health_state",
        Field.OS: "os_id",
    }
    if field is Field.STATE:
        return state_of(node["admission"], node["connection"], node["on_trial"], node["health_state"])
    return str({"arch": "amd64", "driver": "files"}.get(field) or node[names.get(field, field.value)])


def found(db: Database, text: str) -> set[str]:
    query = parse(text)
    with db.read() as conn:
        where = condition(query, known_for(conn, query, NOW))
        rows = list(node_list.every(conn, where, node_list.Order()))
        assert node_list.count(conn, where) == len(rows) == node_list.facets(conn, where).total
        return {row.id for row in rows}


values = {
    "name": ["web*", "Web_02-1", "*%*", '"a b-0"', '"q\\"uote-3"', "edge*"],
    "version": ["<1.10", ">=2.0", "=2.0", "1.*", ">2.0-rc1", "2.0,1.0"],
    "slot": ["a", "B"],
    "health": ["degraded", "un*", "healthy,unknown"],
    "state": ["on-trial", "offline", "retired", "pending,healthy"],
    "label": ["zone", "zone=a", "canary=yes", "canary=*", "a.b/c-d=x", "nope"],
    "service": ["redis", "web", "shop/web", "*", "s*"],
    "connection": ["online", "never"],
    "group": ["edge", "lab,nope", "a*"],
    "admission": ["admitted", "retired"],
    "phase": ["idle", "soaking,staged"],
    "channel": ["stable", "b*"],
    "pinned": ["yes", "no"],
    "trial": ["yes", "no"],
    "conflict": ["yes", "no"],
    "failed": ["yes", "no"],
    "os": ["demo", "FLATCAR"],
    "seen": [">1h", "<30s", "<=2d", ">=1w"],
}
words = st.one_of(
    st.sampled_from([f"{field}:{value}" for field, each in values.items() for value in each]),
    st.sampled_from(["web", "WEB-0", "1.", "%", "_", '"a b"', "\\\\", "w*0*1", "*"]),
)
queries = st.lists(st.tuples(st.booleans(), words), max_size=4).map(
    lambda terms: " ".join(("not " if negated else "") + word for negated, word in terms)
)


def test_sql_agrees_with_a_plain_reading(fleet: tuple[Database, dict[str, dict[str, Any]]]) -> None:
    db, nodes = fleet

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(queries)
    def agree(text: str) -> None:
        query = parse(text)
        assert found(db, text) == {id for id, node in nodes.items() if naive(query, node)}

    agree()


@pytest.mark.parametrize("sort", list(node_list.Sort))
@pytest.mark.parametrize("descending", [False, True])
def test_pages_in_order_have_each_node_once(
    fleet: tuple[Database, dict[str, dict[str, Any]]], sort: node_list.Sort, descending: bool
) -> None:
    db, _ = fleet
    order = node_list.Order(sort, descending)
    query = parse("")
    with db.read() as conn:
        where = condition(query, known_for(conn, query, NOW))
        whole = [row.id for row in node_list.every(conn, where, order)]
        pages: list[node_list.ListedNode] = []
        after = None
        while rows := node_list.page(conn, where, order, after=after, limit=7):
            pages += rows
            after = rows[-1].key, rows[-1].id
        middle = pages[20]
        before = node_list.before(conn, where, order, first=(middle.key, middle.id), limit=7)
    assert [row.id for row in pages] == whole
    assert [row.id for row in before] == whole[13:20]
