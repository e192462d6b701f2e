"""Floors at the moment of granting: what is reserved, what is more than expected, what is down for other reasons."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from app.core.services import Said
from app.services.admission import grant_leases
from app.services.admission_apply import Chosen
from app.services.service_watch import ServiceWatch
from app.store import schema
from app.store import services as rows
from app.store.database import Database
from tests import server_kit as kit
from tests.rollout_kit import add_rollout
from tests.server_kit import NOW
from tests.services import admission_kit as fleet
from tests.services.admission_kit import asks, change_node, choose, grant, group, holders, node, told
from wire.messages import OperationKind

LABELLED = ("web", {"replicas": 3})


@pytest.fixture
def four(database: Database) -> list[str]:
    """Four replicas are healthy for a moment, for one is being moved; three are expected, and the floor is two."""
    fleet.gateway(database)
    group(database, max_unavailable={"count": 4})
    ids = [node(database, name, [LABELLED]) for name in "abcd"]
    ServiceWatch().step(database, NOW)
    for node_id in ids:
        asks(database, node_id)
    return ids


def test_in_the_middle_of_a_move_one_node_goes(database: Database, four: list[str]) -> None:
    grant_leases(database, NOW + 1)
    grant_leases(database, NOW + 2)
    assert len(holders(database)) == 1


def test_the_transaction_counts_the_expected_ones_too(database: Database, four: list[str]) -> None:
    """Whatever a plan thought."""
    setting, _ = choose(database, NOW + 1)
    all_of_them = [Chosen(f"op_{each}", each, None, OperationKind.ACTIVATE, False) for each in four]
    assert grant(database, (setting, all_of_them), NOW + 1).stale
    assert len(holders(database)) == 1


def test_the_transaction_counts_what_leases_took(database: Database, four: list[str]) -> None:
    grant_leases(database, NOW + 1)
    before = holders(database)
    setting, _ = choose(database, NOW + 2)
    others = [each for name, each in zip("abcd", four, strict=True) if name not in before]
    all_of_them = [Chosen(f"op_{each}", each, None, OperationKind.ACTIVATE, False) for each in others]
    grant(database, (setting, all_of_them), NOW + 2)
    assert holders(database) == before and len(before) == 1


def test_what_a_lease_took_stays_taken_while_its_containers_stop(database: Database, four: list[str]) -> None:
    """The node shuts down, says so with its last word, and three others are healthy: no second one goes."""
    grant_leases(database, NOW + 1)
    (held,) = holders(database)
    node_id = four["abcd".index(held)]
    with database.write() as change:
        change.conn.execute(delete(schema.containers).where(schema.containers.c.node_id == node_id))
    change_node(database, node_id, phase="rebooting", connection="offline")
    grant_leases(database, NOW + 2)
    assert holders(database) == {held}


def test_a_replica_that_came_up_elsewhere_does_not_pay_for_a_lease(database: Database) -> None:
    fleet.gateway(database)
    group(database, max_unavailable={"count": 4})
    ids = [node(database, name, [LABELLED]) for name in "abc"]
    spare = node(database, "spare")
    ServiceWatch().step(database, NOW)
    for node_id in ids:
        asks(database, node_id)
    grant_leases(database, NOW + 1)
    with database.write() as change:
        kit.add_container(change.conn, spare, "web", scope="shop", replicas=3)
    grant_leases(database, NOW + 2)
    assert len(holders(database)) == 1
    waiting = [each for name, each in zip("abc", ids, strict=True) if name not in holders(database)]
    assert {told(database, each) for each in waiting} == {"service-floor"}


def test_a_replica_that_came_up_elsewhere_pays_for_a_node_that_died(database: Database, four: list[str]) -> None:
    change_node(database, four[0], connection="offline")
    grant_leases(database, NOW + 1)
    assert len(holders(database)) == 1


# --- frozen numbers -----------------------------------------------------------------------------------------


def frozen(db: Database, *expected: int, state: str = "running") -> None:
    with db.write() as change:
        for number in expected:
            add_rollout(change.conn, expected=[["shop", "web", number]], state=state)
        change.touch("rollouts")


@pytest.fixture
def three(database: Database) -> list[str]:
    """Three replicas without a label; one more was seen for some time this week."""
    fleet.gateway(database)
    group(database, max_unavailable={"count": 4})
    ids = [node(database, name, ["web"]) for name in "abc"]
    with database.write() as change:
        rows.raise_peaks(change.conn, int(NOW // 86_400), {("shop", "web"): 4})
    for node_id in ids:
        asks(database, node_id)
    return ids


def test_without_a_rollout_the_most_of_seven_days_is_expected(database: Database, three: list[str]) -> None:
    grant_leases(database, NOW + 1)
    assert holders(database) == set()


def test_what_a_rollout_froze_is_expected_whatever_was_seen_since(database: Database, three: list[str]) -> None:
    frozen(database, 3)
    grant_leases(database, NOW + 1)
    grant_leases(database, NOW + 2)
    assert len(holders(database)) == 1


def test_of_several_frozen_numbers_the_strictest_holds(database: Database, three: list[str]) -> None:
    frozen(database, 3, 4)
    grant_leases(database, NOW + 1)
    assert holders(database) == set()


@pytest.mark.parametrize("state", ["paused", "halted"])
def test_nothing_that_is_seen_goes_below_what_a_stopped_rollout_froze(
    database: Database, three: list[str], state: str
) -> None:
    """It was frozen once, and only an operator lowers it: four were there, and one is gone for nine days."""
    frozen(database, 4, state=state)
    with database.write() as change:
        rows.remove_peaks_before(change.conn, int(NOW // 86_400) + 1)
        rows.raise_peaks(change.conn, int(NOW // 86_400), {("shop", "web"): 3})
    grant_leases(database, NOW + 1)
    assert holders(database) == set()
    with database.write() as change:
        rows.say(change.conn, ("shop", "web"), Said(expected=3), "op", "three are enough", NOW)
        change.touch("services")
    for node_id in three:
        asks(database, node_id, NOW + 2, nonce="n2")
    grant_leases(database, NOW + 2)
    assert len(holders(database)) == 1


def test_what_a_rollout_that_does_not_run_froze_lowers_nothing(database: Database, three: list[str]) -> None:
    """Halted in March, and forgotten."""
    frozen(database, 2, state="halted")
    grant_leases(database, NOW + 1)
    assert holders(database) == set()
