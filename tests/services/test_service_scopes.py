"""Services whose scope is the name of their nodes' group: what holds them goes along when that is another one."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from sqlalchemy import select

from app.core.errors import NotPossible
from app.core.services import scope_of
from app.services import attention, groups, nodes, services
from app.services.admission import grant_leases
from app.services.service_watch import ServiceWatch
from app.store import rollouts, schema
from app.store import services as service_rows
from app.store.database import Database
from tests.rollout_kit import add_rollout
from tests.server_kit import NOW, OPERATOR
from tests.services import admission_kit as fleet
from tests.services.admission_kit import asks, change_node, group, holders, node
from tests.services.test_rollouts import ON_SQLITE

WEB, DB = ("web", {"scope": ""}), ("db", {"scope": ""})
Ids = dict[str, str]


@pytest.fixture
def ids(database: Database) -> Ids:
    """Four nodes with web and db, which say no scope, in group blue; the floor of blue/db is set."""
    fleet.gateway(database)
    group(database, "blue", "team=blue", max_unavailable={"count": 4})
    found = {name: node(database, name, [WEB, DB], labels={"team": "blue"}) for name in "abcd"}
    services.set_floor(database, OPERATOR, ("blue", "db"), 2, "quorum", NOW)
    ServiceWatch().step(database, NOW)
    return found


def standing(db: Database) -> dict[tuple[str, str], tuple[int, int, int | None]]:
    """Of each service: healthy, expected, floor."""
    with db.read() as conn:
        found = services.listing(conn, NOW + 10)
    return {each.key: (each.healthy, each.view.expected, each.view.floor) for each in found}


def line(db: Database, scope: str, name: str) -> list[tuple[int, int, str, str]]:
    with db.read() as conn:
        found = services.time_line(conn, (scope, name))
    return [(each.change, each.healthy, each.cause.value, each.text) for each in reversed(found)]


def change(db: Database, group_name: str, **wish: object) -> None:
    groups.change(db, OPERATOR, f"group_{group_name}", groups.Wish(**wish), "new order", NOW + 1)  # type: ignore[arg-type]


def test_a_new_name_lowers_no_floor(database: Database, ids: Ids) -> None:
    change_node(database, ids["a"], connection="offline")
    change(database, "blue", name="azure")
    for name in "bcd":
        asks(database, ids[name], NOW + 1)
    grant_leases(database, NOW + 2)
    assert not holders(database), "web had 4, has 3, and its floor is 3"
    assert standing(database)["azure", "db"][1:] == (4, 2)


def test_a_new_name_is_one_line_and_nothing_stopped(database: Database, ids: Ids) -> None:
    change(database, "blue", name="azure")
    watch = ServiceWatch()
    watch.note({"groups"})
    assert watch.step(database, NOW + 5) == 0
    text = "moved from scope blue to scope azure because group blue changed (by mb)"
    assert line(database, "blue", "web") == [(-4, 0, "scope", text)]
    assert line(database, "azure", "web") == [(4, 4, "scope", text)]
    assert standing(database) == {("azure", "db"): (4, 4, 2), ("azure", "web"): (4, 4, 3)}
    with database.read() as conn:
        assert not [each for each in attention.entries(conn, NOW + 10) if each.subject.startswith("service:")]
        query = select(schema.audit.c.action, schema.audit.c.object).order_by(schema.audit.c.id)
        assert [tuple(row) for row in conn.execute(query)][-2:] == [
            ("service.move", "service:azure/db"),
            ("service.clear", "service:blue/db"),
        ]
        assert service_rows.words(conn)["azure", "db"].reason == "quorum"


def test_a_floor_of_what_does_not_run_yet_goes_with_the_name(database: Database, ids: Ids) -> None:
    services.set_floor(database, OPERATOR, ("blue", "soon"), 1, "it comes tomorrow", NOW)
    change(database, "blue", name="azure")
    assert standing(database)["azure", "soon"] == (0, 0, 1) and ("blue", "soon") not in standing(database)


def _made(db: Database, ids: Ids) -> None:
    groups.create(db, OPERATOR, groups.Wish(name="green", selector="team=blue", precedence=5), "new", NOW + 1)


def _removed(db: Database, ids: Ids) -> None:
    groups.remove(db, OPERATOR, "group_blue", "gone", NOW + 1)


def _outranked(db: Database, ids: Ids) -> None:
    group(db, "zeal", "team")
    change(db, "zeal", precedence=9)


@pytest.mark.parametrize(
    ("act", "scope", "because"),
    [
        (_made, "green", "to scope green because group green was made (by mb)"),
        (_removed, "", "to no scope because group blue was removed (by mb)"),
        (_outranked, "zeal", "to scope zeal because group zeal changed (by mb)"),
    ],
)
def test_groups_that_are_made_removed_or_outranked(
    database: Database, ids: Ids, act: Callable[[Database, Ids], None], scope: str, because: str
) -> None:
    act(database, ids)
    assert standing(database) == {(scope, "db"): (4, 4, 2), (scope, "web"): (4, 4, 3)}
    assert [each[3] for each in line(database, scope, "web")] == [f"moved from scope blue {because}"]
    assert ServiceWatch().step(database, NOW + 5) == 0


def test_of_two_that_become_one_the_strictest_holds(database: Database, ids: Ids) -> None:
    """green/web is held to less, in words; blue/web, of which nobody said anything, to three of four."""
    group(database, "green", "team=green")
    node(database, "g", [WEB, DB], labels={"team": "green"})
    services.set_expected(database, OPERATOR, ("green", "web"), 1, "small", NOW)
    services.allow_single(database, OPERATOR, ("green", "web"), True, "small", NOW)
    services.set_floor(database, OPERATOR, ("green", "db"), 1, "small", NOW)
    ServiceWatch().step(database, NOW + 1)
    change(database, "blue", selector="team=none")
    change(database, "green", selector="team!=none")
    assert standing(database) == {("green", "db"): (5, 4, 2), ("green", "web"): (5, 4, 3)}


def test_a_node_with_other_labels_takes_the_floor_along(database: Database, ids: Ids) -> None:
    group(database, "green", "team=green")
    nodes.relabel(database, OPERATOR, ids["a"], {"team": "green"}, "it moves", NOW + 1)
    text = "moved from scope blue to scope green because the labels of a changed (by mb)"
    assert line(database, "green", "db") == [(1, 1, "scope", text)]
    assert standing(database) == {
        ("blue", "db"): (3, 4, 2),
        ("blue", "web"): (3, 4, 3),
        ("green", "db"): (1, 4, 2),
        ("green", "web"): (1, 4, 3),
    }
    nodes.relabel(database, OPERATOR, ids["b"], {"team": "blue", "rack": "1"}, "noted", NOW + 2)
    assert ServiceWatch().step(database, NOW + 5) == 0


def test_what_names_its_scope_itself_stays(database: Database, ids: Ids) -> None:
    node(database, "e", [("web", {"scope": "blue"}), WEB], labels={"team": "blue"})
    ServiceWatch().step(database, NOW + 1)
    change(database, "blue", name="azure")
    assert {key: each[0] for key, each in standing(database).items() if key[1] == "web"} == {
        ("azure", "web"): 5,
        ("blue", "web"): 1,
    }
    assert ServiceWatch().step(database, NOW + 5) == 0


def test_what_rollouts_froze_and_allow_goes_along(database: Database, ids: Ids) -> None:
    with database.write() as change_:
        rollout_id = add_rollout(change_.conn, expected=[["blue", "web", 6]], allowances=[["blue", "db"]])
    change(database, "blue", name="azure")
    with database.read() as conn:
        found = rollouts.get(conn, rollout_id)
    assert found is not None
    assert (found.expected["azure", "web"], ("azure", "db") in found.allowances) == (6, True)
    assert standing(database)["azure", "web"] == (4, 6, 5)


def test_a_change_that_is_refused_moves_nothing(database: Database, ids: Ids) -> None:
    group(database, "green", "team=green")
    before = standing(database)
    with pytest.raises(NotPossible):
        change(database, "green", name="blue", selector="team=blue")
    assert standing(database) == before and line(database, "blue", "web") == []


# --- whatever is done to groups -----------------------------------------------------------------------------


def _held_to(db: Database) -> dict[tuple[str, str], tuple[int, int]]:
    """(node, service) → expected replicas and floor of the service that its container belongs to."""
    with db.read() as conn:
        all_groups = groups.store.all_groups(conn)
        rows = conn.execute(select(schema.nodes.c.name, schema.nodes.c.labels)).all()
    held, found = standing(db), {}
    for name, labels in rows:
        member_of = groups.groups_of(labels, all_groups)
        for service in ("web", "db"):
            _, expected, floor = held[scope_of("", member_of[0].name if member_of else ""), service]
            found[name, service] = (expected, floor or 0)
    return found


@ON_SQLITE
@pytest.mark.parametrize("seed", range(8))
def test_no_change_of_groups_or_labels_lowers_what_a_container_is_held_to(
    database: Database, ids: Ids, seed: int
) -> None:
    dice = random.Random(seed)
    group(database, "green", "team=green")
    group(database, "teams", "team")
    selectors = ["team=blue", "team=green", "team", "rack", "!rack", "*"]
    for _ in range(12):
        before = _held_to(database)
        one, name = dice.choice(["blue", "green", "teams"]), dice.choice("abcd")
        labels = dice.choice([{"team": "blue"}, {"team": "green"}, {"rack": "1"}, {"team": "blue", "rack": "1"}, {}])
        try:
            match dice.randrange(4):
                case 0:
                    change(database, one, selector=dice.choice(selectors))
                case 1:
                    change(database, one, precedence=dice.randrange(4))
                case 2:
                    change(database, one, name=f"{one}{dice.randrange(3)}")
                case _:
                    nodes.relabel(database, OPERATOR, ids[name], labels, "as the dice say", NOW + 1)
        except NotPossible:
            continue  # it is so already
        after = _held_to(database)
        less = {
            key: (before[key], after[key])
            for key in before
            if after[key][0] < before[key][0] or after[key][1] < before[key][1]
        }
        assert less == {}
        assert ServiceWatch().step(database, NOW + 5) == 0, "and nobody sees anything stop"
        if dice.random() < 0.5:  # somebody has looked, and lowers or raises one of them
            key = dice.choice(sorted(standing(database)))
            say = dice.choice([services.set_floor, services.set_expected])
            say(database, OPERATOR, key, dice.randrange(5), "as the dice say", NOW + 2)
