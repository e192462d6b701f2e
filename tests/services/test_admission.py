"""Admission: what binds, what is read again at the moment of granting, and that the ledger is never overdrawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import delete, select, update

from app.services import declare, freezes, services
from app.services.admission import grant_leases
from app.services.admission_apply import Chosen
from app.store import schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR
from tests.services import admission_kit as fleet
from tests.services.admission_kit import (
    THREE,
    answer,
    asks,
    change_node,
    choose,
    grant,
    group,
    holders,
    node,
    three_asking,
    told,
)
from wire.messages import LeaseGrant, LeaseWait


@pytest.fixture
def three(database: Database) -> list[str]:
    return three_asking(database)


def test_a_floor_lets_one_of_three_replicas_go(database: Database, three: list[str]) -> None:
    assert grant_leases(database, NOW + 1)
    assert len(holders(database)) == 1
    waiting = [node_id for node_id, name in zip(three, THREE, strict=True) if name not in holders(database)]
    assert [told(database, node_id) for node_id in waiting] == ["service-floor"] * 2


def test_the_lease_says_what_it_reserved(database: Database, three: list[str]) -> None:
    grant_leases(database, NOW + 1)
    with database.read() as conn:
        row = conn.execute(select(schema.leases.c.costs, schema.leases.c.rollout_id)).one()
        text = conn.execute(select(schema.events.c.text).where(schema.events.c.kind == "lease-granted")).scalar_one()
    assert tuple(row) == ([["shop", "web", 1]], None)
    assert text == "Has the lease: within 120 s it may arm and reboot, taking 1 of shop/web along"


def test_a_floor_says_what_would_be_left(database: Database, three: list[str]) -> None:
    services.set_floor(database, OPERATOR, ("shop", "web"), 3, "a fair", NOW)
    grant_leases(database, NOW + 1)
    found = answer(database, three[0])
    assert isinstance(found, LeaseWait)
    assert found.hold.text == "waits for shop/web: without it 2 of 3 replicas would be left, floor 3"


def test_the_budget_of_nodes_without_a_group_is_named_so(database: Database) -> None:
    fleet.gateway(database)
    first, second = node(database, "a"), node(database, "b")
    for node_id in (first, second):
        asks(database, node_id)
    grant_leases(database, NOW + 1)
    found = answer(database, second)
    assert isinstance(found, LeaseWait)
    assert found.hold.text == "waits for the budget of the nodes without a group: 1 node away, at most 1"


def test_a_budget_that_an_unhealthy_node_takes_says_so(database: Database) -> None:
    fleet.gateway(database)
    first, _ = node(database, "a"), node(database, "b", health_state="unhealthy")
    asks(database, first)
    grant_leases(database, NOW + 1)
    found = answer(database, first)
    assert isinstance(found, LeaseWait)
    assert found.hold.text == "waits for the budget of the nodes without a group: 1 node unhealthy, at most 1"


_DELIVERY = {"drain": "web", "drain_s": 200.0, "mirrors": [], "bandwidth_bytes_s": 0}


def test_draining_makes_the_lease_longer(database: Database) -> None:
    fleet.gateway(database)
    node_id = node(database, "a")
    asks(database, node_id, policy={"lease_s": 60.0, "delivery": _DELIVERY})
    grant_leases(database, NOW + 1)
    found = answer(database, node_id)
    assert isinstance(found, LeaseGrant) and found.duration_s == 260.0


def test_a_budget_of_two_and_a_node_that_is_down_by_itself(database: Database) -> None:
    fleet.gateway(database)
    group(database, max_unavailable={"count": 2})
    ids = [node(database, name) for name in "abcd"]
    node(database, "dead", connection="offline")
    for node_id in ids:
        asks(database, node_id)
    grant_leases(database, NOW + 1)
    assert len(holders(database)) == 1


def test_every_group_of_a_node_binds(database: Database) -> None:
    fleet.gateway(database)
    group(database, "wide", max_unavailable={"count": 3})
    group(database, "tight", "role=db", max_unavailable={"count": 1})
    ids = [node(database, name, labels={"role": role}) for name, role in (("a", "db"), ("b", "db"), ("c", "web"))]
    for node_id in ids:
        asks(database, node_id)
    grant_leases(database, NOW + 1)
    assert "c" in holders(database) and len(holders(database)) == 2


def test_a_share_of_the_group_without_those_that_are_lost(database: Database) -> None:
    fleet.gateway(database)
    group(database, max_unavailable={"share": 0.5})
    ids = [node(database, name) for name in "abcd"]
    for name in "efgh":
        declare.declare_lost(database, OPERATOR, node(database, name), "burnt", NOW)
    for node_id in ids:
        asks(database, node_id)
    grant_leases(database, NOW + 1)
    assert len(holders(database)) == 2


def test_at_most_so_many_of_a_domain(database: Database) -> None:
    fleet.gateway(database)
    group(database, domain_label="zone", max_per_domain=1, max_unavailable={"count": 4})
    for name, zone in (("a", "1"), ("b", "1"), ("c", "2"), ("d", "2")):
        asks(database, node(database, name, labels={"zone": zone}))
    grant_leases(database, NOW + 1)
    assert len(holders(database)) == 2 and holders(database) not in ({"a", "b"}, {"c", "d"})


def test_one_domain_after_another(database: Database) -> None:
    fleet.gateway(database)
    group(database, domain_label="zone", one_domain_after_another=True, max_unavailable={"count": 4})
    for name, zone in (("a", "1"), ("b", "1"), ("c", "2"), ("d", "2")):
        asks(database, node(database, name, labels={"zone": zone}))
    grant_leases(database, NOW + 1)
    grant_leases(database, NOW + 2)
    assert holders(database) == {"a", "b"}


def test_a_gateway_that_is_not_heard_leaves_its_nodes_unknown(database: Database, three: list[str]) -> None:
    """Who is on a dead gateway may be down: nobody else goes."""
    with database.write() as change:
        dead = kit.add_gateway(change.conn, heartbeat_at=NOW - 60)
    change_node(database, three[0], gateway_id=dead)
    grant_leases(database, NOW + 1)
    assert holders(database) == set()


def test_the_loss_of_a_zone_shuts_activation_and_not_the_way_back(database: Database) -> None:
    fleet.gateway(database)
    group(database, max_unavailable={"count": 9})
    for number in range(6):
        away = {"connection": "offline", "gateway_id": None, "last_seen_at": NOW} if number < 3 else {}
        node(database, f"z{number}", labels={"zone": "a"}, **away)
    forward, back = node(database, "forward"), node(database, "back")
    asks(database, forward)
    asks(database, back, kind="rollback")
    grant_leases(database, NOW + 1)
    assert holders(database) == {"back"}
    found = answer(database, forward)
    assert isinstance(found, LeaseWait)
    assert found.hold.code == "health-gate" and "zone a lost 3 of 6 nodes at once" in found.hold.text


# --- a single replica, placements, overrides ----------------------------------------------------------------


def test_a_single_replica_waits_for_an_allowance(database: Database) -> None:
    fleet.gateway(database)
    node_id = node(database, "a", ["db"])
    asks(database, node_id)
    grant_leases(database, NOW + 1)
    assert told(database, node_id) == "single-replica"
    services.allow_single(database, OPERATOR, ("shop", "db"), True, "at night", NOW + 2)
    asks(database, node_id, NOW + 3, "n2")
    grant_leases(database, NOW + 3)
    assert holders(database) == {"a"}


def test_a_service_on_every_node_by_design_has_no_floor(database: Database) -> None:
    fleet.gateway(database)
    asks(database, node(database, "a", [("exporter", {"per_node": True})]))
    grant_leases(database, NOW + 1)
    assert holders(database) == {"a"}


def test_containers_without_a_scope_belong_to_the_nodes_group(database: Database) -> None:
    fleet.gateway(database)
    group(database, "blue", "color=blue", max_unavailable={"count": 2})
    group(database, "green", "color=green", max_unavailable={"count": 2})
    for name, color in (("a", "blue"), ("b", "blue"), ("c", "green")):
        asks(database, node(database, name, [("web", {"scope": ""})], labels={"color": color}))
    grant_leases(database, NOW + 1)
    assert len(holders(database) & {"a", "b"}) == 1
    assert "c" not in holders(database), "green's web is another service, of one replica"


def test_unknown_placement_is_not_empty(database: Database) -> None:
    fleet.gateway(database)
    node_id = node(database, "a", placement_known=False)
    asks(database, node_id)
    grant_leases(database, NOW + 1)
    assert told(database, node_id) == "placement-unknown"
    declare.declare_placement(database, OPERATOR, node_id, [], "I looked", NOW + 2)
    asks(database, node_id, NOW + 3, "n2")
    grant_leases(database, NOW + 3)
    assert holders(database) == {"a"}


def test_what_is_declared_binds_as_what_is_seen(database: Database) -> None:
    fleet.gateway(database)
    group(database)
    node(database, "b", ["web"])
    node_id = node(database, "a", placement_known=False)
    declare.declare_placement(database, OPERATOR, node_id, [(("shop", "web"), 1)], "I looked", NOW)
    services.set_floor(database, OPERATOR, ("shop", "web"), 2, "both are needed", NOW)
    asks(database, node_id)
    grant_leases(database, NOW + 1)
    assert told(database, node_id) == "service-floor"


def test_an_operator_may_go_below_the_floor(database: Database, three: list[str]) -> None:
    with database.write() as change:
        change.conn.execute(update(schema.operations).values(override_floor=True))
    grant_leases(database, NOW + 1)
    assert holders(database) == set(THREE)


def test_removing_unhealthy_replicas_costs_no_floor(database: Database, three: list[str]) -> None:
    with database.write() as change:
        is_there = schema.containers.c.node_id == three[0]
        change.conn.execute(update(schema.containers).where(is_there).values(health="unhealthy"))
    grant_leases(database, NOW + 1)
    assert holders(database) == {"a"}


# --- the world changes between choosing and granting --------------------------------------------------------


def _more_floor(db: Database, _ids: list[str]) -> None:
    services.set_floor(db, OPERATOR, ("shop", "web"), 3, "a fair", NOW)


def _another_dies(db: Database, ids: list[str]) -> None:
    change_node(db, ids[2], connection="offline")


def _a_container_stops(db: Database, ids: list[str]) -> None:
    with db.write() as change:
        change.conn.execute(delete(schema.containers).where(schema.containers.c.node_id == ids[1]))


def _freeze(db: Database, _ids: list[str]) -> None:
    freezes.freeze(db, OPERATOR, group_id=None, reason="a fair", now=NOW)


def _another_policy(db: Database, _ids: list[str]) -> None:
    with db.write() as change:
        change.conn.execute(update(schema.groups).values(policy={"max_unavailable": {"count": 2}}))


def _cancel(db: Database, _ids: list[str]) -> None:
    with db.write() as change:
        change.conn.execute(update(schema.operations).values(cancel_asked_at=NOW))


def _placement_lost(db: Database, ids: list[str]) -> None:
    for node_id in ids:
        change_node(db, node_id, placement_known=False)


@pytest.mark.parametrize(
    "happens",
    [_more_floor, _another_dies, _a_container_stops, _freeze, _another_policy, _cancel, _placement_lost],
)
def test_what_happens_between_choosing_and_granting_counts(
    database: Database, three: list[str], happens: Callable[[Database, list[str]], None]
) -> None:
    seen = choose(database, NOW + 1)
    assert len(seen[1]) == 1
    happens(database, three)
    applied = grant(database, seen, NOW + 1)
    assert applied.granted == () and applied.stale
    assert holders(database) == set()


def test_a_container_that_moved_here_counts(database: Database) -> None:
    """It was on b when a was chosen for nothing ran there; now its only replica is on a."""
    fleet.gateway(database)
    a, b = node(database, "a"), node(database, "b", ["db"])
    asks(database, a)
    seen = choose(database, NOW + 1)
    with database.write() as change:
        moved = update(schema.containers).where(schema.containers.c.node_id == b).values(node_id=a)
        change.conn.execute(moved)
    assert grant(database, seen, NOW + 1).granted == ()


def test_two_conductors_that_chose_different_nodes_for_the_same_budget(database: Database) -> None:
    fleet.gateway(database)
    group(database, max_unavailable={"count": 1})
    ids = [node(database, name) for name in "ab"]
    for node_id in ids:
        asks(database, node_id)
    setting, chosen = choose(database, NOW + 1)
    assert len(chosen) == 1
    first, second = [(setting, [instead(chosen[0], node_id)]) for node_id in ids]
    assert grant(database, first, NOW + 1).granted
    assert grant(database, second, NOW + 1).granted == ()
    assert holders(database) == {"a"}


def instead(chosen: Chosen, node_id: str) -> Chosen:
    """The choice of a conductor that preferred another node."""
    return replace(chosen, node_id=node_id, operation_id=f"op_{node_id}")


def test_a_conductor_that_died_after_choosing_leaves_nothing_behind(database: Database, three: list[str]) -> None:
    choose(database, NOW + 1)
    assert grant_leases(database, NOW + 2)
    assert len(holders(database)) == 1
