"""Admission of rollouts: canaries, exposure, states, shared floors, turns, and the holds that pages show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from app.core.group_policy import Amount, GroupPolicy
from app.core.services import Said
from app.services.admission import Admission, grant_leases
from app.services.admission_apply import Chosen
from app.services.service_watch import ServiceWatch
from app.store import bad_versions, rollouts, schema
from app.store import services as rows
from app.store.bad_versions import BadVersion, Cause
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW
from tests.services import admission_kit as fleet
from tests.services.admission_kit import answer, asks, change_node, choose, grant, group, holders, node, told
from wire.messages import LeaseGrant, OperationKind

POLICY = GroupPolicy(max_unavailable=Amount(count=3), canaries=Amount(count=0))


@pytest.fixture(autouse=True)
def world(database: Database) -> None:
    fleet.gateway(database)
    group(database, max_unavailable={"count": 9})


def rollout(db: Database, name: str = "a", policy: GroupPolicy = POLICY, **given: Any) -> str:
    values: dict[str, Any] = {
        "id": f"rollout_{name}",
        "number": ord(name),
        "kind": "reboot",
        "state": "running",
        "targets": [],
        "policy": rollouts.policy_json(policy),
        "allowances": [],
        "left_out": [],
        "actor": "mb",
        "reason": "",
        "created_at": NOW,
        "started_at": NOW,
    }
    with db.write() as change:
        change.conn.execute(insert(schema.rollouts).values(values | given))
        change.touch("rollouts")
    return str((values | given)["id"])


def member(
    db: Database, rollout_id: str, name: str, *, canary: bool = False, runs: tuple[str, ...] = (), back: bool = False
) -> str:
    """A node that the rollout has ordered (`back`: on its way back) and that asks; returns its id."""
    node_id = node(db, name, runs)
    operation_id = asks(db, node_id, rollout_id=rollout_id, kind="reboot")
    with db.write() as change:
        change.conn.execute(
            insert(schema.rollout_nodes).values(
                rollout_id=rollout_id,
                node_id=node_id,
                state="ordered",
                wave=0 if canary else 1,
                canary=canary,
                operation_id=None if back else operation_id,
                back_operation_id=operation_id if back else None,
                added_at=NOW,
            )
        )
    return node_id


def set_member(db: Database, node_id: str, **values: Any) -> None:
    with db.write() as change:
        mine = schema.rollout_nodes.c.node_id == node_id
        change.conn.execute(update(schema.rollout_nodes).where(mine).values(**values))


def test_only_the_canary_goes_first(database: Database) -> None:
    rollout_id = rollout(database)
    member(database, rollout_id, "canary", canary=True)
    other = member(database, rollout_id, "other")
    grant_leases(database, NOW + 1)
    assert holders(database) == {"canary"}
    assert told(database, other) == "canaries"


def test_the_lease_and_its_hold_belong_to_the_rollout(database: Database) -> None:
    rollout_id = rollout(database)
    member(database, rollout_id, "canary", canary=True)
    other = member(database, rollout_id, "other")
    grant_leases(database, NOW + 1)
    with database.read() as conn:
        assert conn.execute(select(schema.leases.c.rollout_id)).scalar_one() == rollout_id
        mine = schema.rollout_nodes.c.node_id == other
        hold = conn.execute(select(schema.rollout_nodes.c.hold).where(mine)).scalar_one()
    assert hold == {
        "code": "canaries",
        "text": "waits for the last canary to soak",
        "subject": rollout_id,
        "until": None,
    }


def test_soaking_nodes_are_exposed_and_bind(database: Database) -> None:
    rollout_id = rollout(database)
    ids = [member(database, rollout_id, name) for name in "abcde"]
    grant_leases(database, NOW + 1)
    assert len(holders(database)) == 3
    for node_id, name in zip(ids, "abcde", strict=True):
        if name in holders(database):
            change_node(database, node_id, boot_id="boot-new", phase="soaking")
            with database.write() as change:
                its = schema.operations.c.node_id == node_id
                change.conn.execute(update(schema.operations).where(its).values(phase="soaking"))
    waiting = next(id for id in ids if not holds(database, id))
    asks(database, waiting, NOW + 2, "n2", rollout_id=rollout_id)
    grant_leases(database, NOW + 2)
    assert holders(database) == set(), "three soak, nobody is away, and the version is unproven all the same"
    assert told(database, waiting) == "exposure"


def holds(db: Database, node_id: str) -> bool:
    with db.read() as conn:
        found = conn.execute(select(schema.leases.c.id).where(schema.leases.c.node_id == node_id)).first()
    return found is not None


@pytest.mark.parametrize(
    "values", [{"state": "paused"}, {"state": "halted"}, {"policy": rollouts.policy_json(GroupPolicy())}]
)
def test_a_rollout_that_changed_after_choosing_gets_nothing(database: Database, values: dict[str, Any]) -> None:
    rollout_id = rollout(database)
    member(database, rollout_id, "a")
    seen = choose(database, NOW + 1)
    assert len(seen[1]) == 1
    with database.write() as change:
        change.conn.execute(update(schema.rollouts).values(**values))
    assert grant(database, seen, NOW + 1).granted == ()


def test_a_version_that_was_withdrawn_after_choosing_gets_nothing(database: Database) -> None:
    node_id = node(database, "a")
    asks(database, node_id, target_digest=kit.digest_of("2.0"))
    seen = choose(database, NOW + 1)
    assert len(seen[1]) == 1
    with database.write() as change:
        bad = BadVersion(kit.digest_of("2.0"), "2.0", "it leaks", Cause.WITHDRAWN, "mb", NOW + 1)
        bad_versions.remember(change.conn, bad)
    assert grant(database, seen, NOW + 1).granted == ()


def test_a_canary_that_came_in_after_choosing_is_waited_for(database: Database) -> None:
    rollout_id = rollout(database)
    node_id = member(database, rollout_id, "a")
    setting, chosen = choose(database, NOW + 1)
    assert [one.node_id for one in chosen] == [node_id]
    member(database, rollout_id, "late", canary=True)
    assert grant(database, (setting, chosen), NOW + 1).granted == ()


def test_conductors_that_chose_different_nodes_expose_no_more_than_allowed(database: Database) -> None:
    rollout_id = rollout(database, policy=replace(POLICY, max_unavailable=Amount(count=1)))
    ids = [member(database, rollout_id, name) for name in "ab"]
    setting, (one,) = choose(database, NOW + 1)
    for node_id in ids:
        grant(database, (setting, [replace(one, node_id=node_id, operation_id=f"op_{node_id}")]), NOW + 1)
    assert holders(database) == {"a"}


def test_two_rollouts_share_a_floor(database: Database) -> None:
    first, second = rollout(database, "a"), rollout(database, "b")
    for name, of in (("x", first), ("y", second), ("z", second)):
        member(database, of, name, runs=("web",))
    ServiceWatch().step(database, NOW)
    grant_leases(database, NOW + 1)
    grant_leases(database, NOW + 2)
    assert len(holders(database)) == 1


def test_an_allowance_of_the_rollout_lets_a_single_replica_move(database: Database) -> None:
    rollout_id = rollout(database, allowances=[["shop", "db"]])
    member(database, rollout_id, "a", runs=("db",))
    grant_leases(database, NOW + 1)
    assert holders(database) == {"a"}


def test_an_allowance_of_another_rollout_lets_nobody_move(database: Database) -> None:
    rollout(database, "a", allowances=[["shop", "db"]])
    theirs = member(database, rollout(database, "b"), "x", runs=("db",))
    direct = node(database, "y", ["db"])
    asks(database, direct)
    with database.write() as change:
        rows.say(change.conn, ("shop", "db"), Said(expected=1), "mb", "the other is a stand-by", NOW)
    grant_leases(database, NOW + 1)
    assert holders(database) == set()
    assert [told(database, each) for each in (theirs, direct)] == ["single-replica", "single-replica"]


def test_the_transaction_does_not_take_another_rollouts_allowance(database: Database) -> None:
    """Whatever a plan thought."""
    rollout(database, "a", allowances=[["shop", "db"]])
    other = rollout(database, "b")
    node_id = member(database, other, "x", runs=("db",))
    setting, _ = choose(database, NOW + 1)
    grant(database, (setting, [Chosen(f"op_{node_id}", node_id, other, OperationKind.REBOOT, False)]), NOW + 1)
    assert holders(database) == set()


def test_who_moves_by_an_allowance_may_ask_again(database: Database) -> None:
    rollout_id = rollout(database, allowances=[["shop", "db"]])
    node_id = member(database, rollout_id, "a", runs=("db",))
    grant_leases(database, NOW + 1)
    asks(database, node_id, NOW + 10, nonce="n2")
    Admission().tick(database, NOW + 11)
    found = answer(database, node_id)
    assert isinstance(found, LeaseGrant) and found.nonce == "n2"


def test_an_allowance_leads_back_too(database: Database) -> None:
    rollout_id = rollout(database, state="rolling-back", allowances=[["shop", "db"]])
    member(database, rollout_id, "a", runs=("db",), back=True)
    grant_leases(database, NOW + 1)
    assert holders(database) == {"a"}


def test_what_the_rollout_froze_is_expected(database: Database) -> None:
    """Two of five replicas are gone since it began: none may follow, although more were not seen in seven days."""
    rollout_id = rollout(database, expected=[["shop", "web", 5]])
    for name in "abc":
        node_id = member(database, rollout_id, name, runs=("web",))
    grant_leases(database, NOW + 1)
    assert told(database, node_id) == "service-floor"


def test_rolling_back_passes_canaries_and_exposure(database: Database) -> None:
    rollout_id = rollout(database, state="rolling-back", policy=replace(POLICY, max_unavailable=Amount(count=1)))
    for name in "ab":
        member(database, rollout_id, name, back=True)
    grant_leases(database, NOW + 1)
    assert holders(database) == {"a", "b"}


def test_rolling_back_takes_no_node_forth_that_was_ordered_before(database: Database) -> None:
    """Its order is called back in a moment; until then it must not pass as a way back, for those wait for no canary."""
    rollout_id = rollout(database, state="rolling-back")
    member(database, rollout_id, "forth")
    member(database, rollout_id, "canary", canary=True)
    member(database, rollout_id, "back", back=True)
    grant_leases(database, NOW + 1)
    assert holders(database) == {"back"}


def test_an_order_to_one_node_keeps_its_turn_while_it_waits_to_ask_again(database: Database) -> None:
    """Budget of one is free again; the rollout's node asks at this moment, the operator's asks again in seconds."""
    with database.write() as change:
        change.conn.execute(update(schema.groups).values(policy={"max_unavailable": {"count": 1}}))
    dead = node(database, "dead", connection="offline")
    direct = node(database, "direct")
    asks(database, direct)
    grant_leases(database, NOW + 1)
    assert told(database, direct) == "group-budget"
    change_node(database, dead, connection="online")
    other = member(database, rollout(database), "other")
    grant_leases(database, NOW + 2)
    assert holders(database) == set() and told(database, other) == "group-budget"
    asks(database, direct, NOW + 6, "n2")
    grant_leases(database, NOW + 6)
    assert holders(database) == {"direct"}


def test_a_node_that_is_away_for_long_leaves_the_budget(database: Database) -> None:
    with database.write() as change:
        change.conn.execute(
            update(schema.groups).values(policy={"max_unavailable": {"count": 1}, "absent_after_s": 3600})
        )
        change.conn.execute(update(schema.gateways).values(started_at=NOW - 9 * 3600))
    node(database, "long", connection="offline", gateway_id=None, last_seen_at=NOW - 3 * 3600)
    asks(database, node(database, "a"))
    grant_leases(database, NOW + 1)
    assert holders(database) == {"a"}


def test_our_own_absence_makes_nobody_absent(database: Database) -> None:
    with database.write() as change:
        change.conn.execute(
            update(schema.groups).values(policy={"max_unavailable": {"count": 1}, "absent_after_s": 3600})
        )
        change.conn.execute(update(schema.gateways).values(started_at=NOW - 600))
    node(database, "long", connection="offline", gateway_id=None, last_seen_at=NOW - 3 * 3600)
    node_id = node(database, "a")
    asks(database, node_id)
    grant_leases(database, NOW + 1)
    assert told(database, node_id) == "group-budget" and answer(database, node_id) is not None


def test_an_order_of_a_rollout_that_has_ended_gets_nothing(database: Database) -> None:
    member(database, rollout(database, state="aborted"), "a")
    assert not grant_leases(database, NOW + 1)
    assert kit.count_rows(database, schema.leases) == 0
