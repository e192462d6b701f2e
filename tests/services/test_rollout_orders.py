"""Who is ordered to stage when: those whose turn it is, past everybody who is held or busy, and never against a pin."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from app.core.group_policy import Amount, GroupPolicy
from app.core.holds import HoldCode
from app.core.rollouts import RolloutKind
from app.services import nodes, rollout_waiting
from app.services.rollout_orders import PER_LOOK, give_orders
from app.store import rollouts, schema
from app.store.database import Database
from app.store.fleet import FLEET_ID
from tests import server_kit as kit
from tests.rollout_kit import add_rollout, add_rollout_node
from tests.server_kit import NOW, OPERATOR, digest_of
from tests.services.test_rollouts import ON_SQLITE

STAGE_AT_ONCE = 4
POLICY = GroupPolicy(canaries=Amount(count=0), stage_parallel=STAGE_AT_ONCE, stage_jitter_s=60.0)


def rollout(db: Database, kind: RolloutKind = RolloutKind.UPDATE, **image: Any) -> str:
    """One that runs, to 2.0."""
    with db.write() as change:
        targets = [kit.add_image(change.conn, "2.0", **image)] if kind is RolloutKind.UPDATE else []
        return add_rollout(change.conn, kind=kind.value, targets=targets, policy=rollouts.policy_json(POLICY))


def joins(db: Database, rollout_id: str, node: dict[str, Any] | None = None, **row: Any) -> str:
    with db.write() as change:
        slots = kit.two_slots("1.0", "0.9", passive_good=True)
        node_id = kit.add_node(change.conn, **({"slots": slots} | (node or {})))
        add_rollout_node(change.conn, rollout_id, node_id, **row)
    return node_id


def ordered(db: Database, rollout_id: str) -> set[str]:
    c = schema.rollout_nodes.c
    with db.read() as conn:
        return set(
            conn.execute(select(c.node_id).where(c.rollout_id == rollout_id, c.operation_id.is_not(None))).scalars()
        )


def hold_of(db: Database, rollout_id: str, node_id: str) -> str | None:
    c = schema.rollout_nodes.c
    with db.read() as conn:
        hold = conn.execute(select(c.hold).where(c.rollout_id == rollout_id, c.node_id == node_id)).scalar_one()
    return None if hold is None else hold["code"]


def test_canaries_first_then_by_wave_and_time_as_many_as_may_download(database: Database) -> None:
    id = rollout(database)
    last = joins(database, id, wave=3)
    late = [joins(database, id, wave=2, stage_at=NOW + 50) for _ in range(2)]
    second = [joins(database, id, wave=2, stage_at=NOW - number) for number in range(3)]
    canary = joins(database, id, wave=0)
    assert give_orders(database, NOW) == STAGE_AT_ONCE
    assert ordered(database, id) == {canary, *second}
    assert give_orders(database, NOW + 1) == 0, "as many download as may"
    end_all(database)
    give_orders(database, NOW + 51)
    assert ordered(database, id) >= {canary, *second, *late, last}


def end_all(db: Database) -> None:
    with db.write() as change:
        change.conn.execute(update(schema.operations).values(state="ended", ended_at=NOW))


def test_a_time_to_stage_that_the_clock_was_set_back_from_is_none(database: Database) -> None:
    id = rollout(database)
    node_id = joins(database, id, stage_at=NOW + POLICY.stage_jitter_s + 1)
    assert give_orders(database, NOW) == 1 and ordered(database, id) == {node_id}


@ON_SQLITE
@pytest.mark.parametrize("busy", ["rolls back", "holds a lease", "reboots"])
def test_nodes_that_another_way_back_has_do_not_keep_the_rest_from_going_back(database: Database, busy: str) -> None:
    id = rollout(database, RolloutKind.ROLLBACK)
    for _ in range(PER_LOOK + 5):
        node_id = joins(database, id, wave=1)
        with database.write() as change:
            kind, phase = ("rollback", "idle") if busy == "rolls back" else ("activate", "staged")
            phase = "rebooting" if busy == "reboots" else phase
            operation_id = kit.add_operation(change.conn, node_id, kind=kind, phase=phase)
            if busy == "holds a lease":
                add_lease(change.conn, node_id, operation_id)
    free = [joins(database, id, wave=2) for _ in range(3)]
    stages = joins(database, id, wave=3)
    with database.write() as change:  # a way back does not wait for what has armed nothing
        kit.add_operation(change.conn, stages, phase="staged")
    give_orders(database, NOW)
    assert ordered(database, id) == {*free, stages}
    rollout_waiting.note_holds(database, NOW)
    assert hold_of(database, id, node_id) == HoldCode.OTHER_ROLLOUT


def add_lease(conn: Any, node_id: str, operation_id: str) -> None:
    conn.execute(
        schema.leases.insert().values(
            id=f"lease_{node_id}",
            fleet_id=FLEET_ID,
            node_id=node_id,
            operation_id=operation_id,
            nonce="n",
            duration_s=60.0,
            old_boot_id="boot",
            granted_at=NOW,
            counted_at=NOW,
        )
    )


def test_a_node_that_was_pinned_elsewhere_after_the_start_is_not_staged(database: Database) -> None:
    id = rollout(database)
    node_id = joins(database, id)
    with database.write() as change:
        other = kit.add_image(change.conn, "1.5")
    nodes.pin(database, OPERATOR, node_id, image_id=other, reason="watched", now=NOW)
    assert give_orders(database, NOW) == 0
    assert hold_of(database, id, node_id) == HoldCode.PINNED
    nodes.unpin(database, OPERATOR, node_id, "seen enough", NOW + 1)
    rollout_waiting.note_holds(database, NOW + 2)
    assert hold_of(database, id, node_id) is None
    assert give_orders(database, NOW + 3) == 1


def test_a_pin_to_what_the_rollout_leads_to_holds_nobody(database: Database) -> None:
    id = rollout(database)
    node_id = joins(database, id)
    with database.read() as conn:
        target = conn.execute(select(schema.images.c.id)).scalar_one()
    nodes.pin(database, OPERATOR, node_id, image_id=target, reason="watched", now=NOW)
    assert give_orders(database, NOW) == 1


@ON_SQLITE
def test_those_that_are_held_pass_their_turn_to_the_next(database: Database) -> None:
    """Also many more of them than a look takes."""
    id = rollout(database, not_from=["1.1"])
    held = [joins(database, id, {"version": "1.1"}, wave=1) for _ in range(3 * STAGE_AT_ONCE)]
    free = [joins(database, id, wave=2) for _ in range(STAGE_AT_ONCE)]
    give_orders(database, NOW)
    assert ordered(database, id) == set(free)
    assert {hold_of(database, id, one) for one in held} == {HoldCode.VERSION_EDGE}


def test_what_is_written_of_those_that_wait_is_brought_up_to_date(database: Database) -> None:
    id = rollout(database)
    away = joins(database, id, {"connection": "offline"})
    mute = joins(database, id, {"evidence": "protocol only"})
    busy = joins(database, id)
    with database.write() as change:
        kit.add_operation(change.conn, busy, kind="stage", phase="staging")
    failed = joins(database, id)
    with database.write() as change:
        change.conn.execute(
            schema.failed_versions.insert().values(
                node_id=failed, digest=digest_of("2.0"), version="2.0", at=NOW, reason="test"
            )
        )
    assert give_orders(database, NOW) == 0
    rollout_waiting.note_holds(database, NOW)
    assert [hold_of(database, id, one) for one in (away, mute, busy, failed)] == [
        HoldCode.OFFLINE,
        HoldCode.NOT_COMMANDABLE,
        HoldCode.OTHER_ROLLOUT,
        HoldCode.FAILED_HERE,
    ]
    before = kit.revisions(database)
    assert rollout_waiting.note_holds(database, NOW + 1) == 0
    assert kit.revisions(database) == before, "what stays as it is, is not written"
    with database.write() as change:
        change.conn.execute(update(schema.nodes).values(connection="online", evidence="agent with slots and placement"))
    end_all(database)
    assert rollout_waiting.note_holds(database, NOW + 2) == 3
    assert give_orders(database, NOW + 3) == 3 and failed not in ordered(database, id)
