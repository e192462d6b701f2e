"""Why a node waits stays true while it waits, although it asks again in ten minutes only."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select, update

from app.core.group_policy import Amount, GroupPolicy
from app.core.holds import Hold, HoldCode
from app.core.policy_json import policy_to_builtins
from app.services.admission import Admission
from app.services.admission_retell import RETELL_S
from app.services.connections import beat
from app.store import rollout_cells, rollout_holds, schema
from app.store.database import Database
from app.store.nudges import EVERYTHING
from tests.server_kit import NOW
from tests.services import admission_kit as fleet
from tests.services.admission_kit import GATEWAY, answer, group
from tests.services.test_admission_rollouts import member, rollout
from wire.messages import LeaseWait

WITH_CANARIES = GroupPolicy(max_unavailable=Amount(count=2), canaries=Amount(count=1), canary_soak_s=0.0)


@pytest.fixture(autouse=True)
def world(database: Database) -> None:
    fleet.gateway(database)
    group(database, max_unavailable={"count": 9})


def waiting(db: Database) -> tuple[str, list[str], Admission]:
    """A rollout whose canary has its lease and whose others were told to wait for it for minutes."""
    rollout_id = rollout(db, policy=WITH_CANARIES)
    member(db, rollout_id, "first", canary=True)
    others = [member(db, rollout_id, f"other-{number}") for number in range(3)]
    admission = Admission()
    assert admission.tick(db, NOW + 1)
    admission.tick(db, NOW + 2)
    with db.write() as change:
        for node_id in others:
            mine = schema.operations.c.node_id == node_id
            hold = change.conn.execute(select(schema.operations.c.hold).where(mine)).scalar_one()
            change.conn.execute(update(schema.operations).where(mine).values(hold={**hold, "retry_s": 600.0}))
    return rollout_id, others, admission


def canary_moves(db: Database, rollout_id: str) -> None:
    """It soaks, and is exposed to the version; the gate is open."""
    with db.write() as change:
        mine = (schema.rollout_nodes.c.rollout_id == rollout_id) & schema.rollout_nodes.c.canary
        change.conn.execute(update(schema.rollout_nodes).where(mine).values(state="done", ended_at=NOW + 3))
        change.touch("rollouts")


def why(db: Database, node_ids: list[str]) -> list[str]:
    with db.read() as conn:
        rows = conn.execute(
            select(schema.rollout_nodes.c.hold)
            .where(schema.rollout_nodes.c.node_id.in_(node_ids))
            .order_by(schema.rollout_nodes.c.node_id)
        ).scalars()
        return ["" if row is None else row["code"] for row in rows]


def at_the_stop(db: Database, rollout_id: str) -> list[tuple[HoldCode, int]]:
    """What its page lists as reasons."""
    with db.read() as conn:
        return [(group.code, group.nodes) for group in rollout_cells.held_groups(conn, rollout_id)]


def test_what_held_nodes_when_it_stopped_is_kept_until_it_goes_on(database: Database) -> None:
    """Also of those that ask meanwhile, again and again, and are told that it does not run."""
    rollout_id, others, _ = waiting(database)
    with database.write() as change:
        change.conn.execute(update(schema.rollouts).values(state="paused"))
    stopped = Hold(HoldCode.NOT_RUNNING, "waits for rollout 1 to be resumed", rollout_id)
    for text in ("waits", stopped.text, stopped.text):
        asked = [(rollout_id, node_id, replace(stopped, text=text)) for node_id in others]
        with database.write() as change:
            rollout_holds.keep(change.conn, asked)
    assert why(database, others) == [HoldCode.NOT_RUNNING.value] * 3
    assert at_the_stop(database, rollout_id) == [(HoldCode.CANARIES, 3)]
    wanted = rollout_cells.Wanted(hold=HoldCode.CANARIES)
    with database.write() as change:
        found = rollout_cells.listed(change.conn, rollout_id, wanted, limit=9)
        assert {row.node_id for row in found} == set(others)
        assert {row.text for row in found} == {stopped.text}  # why each waits now
        budget = Hold(HoldCode.GROUP_BUDGET, "waits for group web", "grp_web")
        rollout_holds.keep(change.conn, [(rollout_id, node_id, budget) for node_id in others])
    assert at_the_stop(database, rollout_id) == [(HoldCode.GROUP_BUDGET, 3)]


def test_a_reason_that_is_over_is_told_anew_without_a_request(database: Database) -> None:
    rollout_id, others, admission = waiting(database)
    assert why(database, others) == [HoldCode.CANARIES.value] * 3
    answers = [answer(database, node_id) for node_id in others]
    with database.write() as change:
        change.conn.execute(update(schema.rollouts).values(state="paused"))
        change.touch("rollouts")
    beat(database, GATEWAY, 4, NOW + 3 + RETELL_S)
    admission.note({EVERYTHING})
    admission.tick(database, NOW + 3 + RETELL_S)
    assert why(database, others) == [HoldCode.NOT_RUNNING.value] * 3
    assert [answer(database, node_id) for node_id in others] == answers  # the nodes hear nothing of it
    assert at_the_stop(database, rollout_id) == [(HoldCode.CANARIES, 3)]
    assert all(isinstance(each, LeaseWait) and each.retry_s == 600.0 for each in answers)


def test_between_two_looks_nothing_is_told(database: Database) -> None:
    _, others, admission = waiting(database)
    with database.write() as change:
        change.conn.execute(update(schema.rollouts).values(state="paused"))
        change.touch("rollouts")
    admission.note({EVERYTHING})
    admission.tick(database, NOW + 3)
    assert why(database, others) == [HoldCode.CANARIES.value] * 3


def test_who_moved_meanwhile_keeps_no_reason(database: Database) -> None:
    rollout_id, others, admission = waiting(database)
    canary_moves(database, rollout_id)
    with database.write() as change:
        mine = schema.rollout_nodes.c.node_id == others[0]
        change.conn.execute(update(schema.rollout_nodes).where(mine).values(state="moving", hold=None))
        change.conn.execute(update(schema.rollouts).values(state="paused"))
    beat(database, GATEWAY, 4, NOW + 3 + RETELL_S)
    admission.note({EVERYTHING})
    admission.tick(database, NOW + 3 + RETELL_S)
    codes = dict(zip(sorted(others), why(database, others), strict=True))
    assert codes.pop(others[0]) == ""
    assert set(codes.values()) == {HoldCode.NOT_RUNNING.value}


def test_when_the_canaries_are_through_all_are_told_at_once(database: Database) -> None:
    """First that the canaries' own soak goes on, then, that being over, what holds them from then on."""
    rollout_id, others, admission = waiting(database)
    soaks = replace(WITH_CANARIES, max_unavailable=Amount(count=1), canary_soak_s=10.0)
    with database.write() as change:
        change.conn.execute(update(schema.rollouts).values(policy=policy_to_builtins(soaks)))
    canary_moves(database, rollout_id)
    with database.write() as change:
        change.conn.execute(update(schema.rollouts).values(canaries_soaked_at=NOW + 3, canaries_clock_at=NOW + 3))
    admission.note({EVERYTHING})
    admission.tick(database, NOW + 4)
    assert texts(database, others) == {"waits for the soak of the canaries to end: in less than 1 min"}
    beat(database, GATEWAY, 4, NOW + 13)
    admission.tick(database, NOW + 13.5)
    assert not any("canaries" in text for text in texts(database, others))


def texts(db: Database, node_ids: list[str]) -> set[str]:
    with db.read() as conn:
        mine = schema.rollout_nodes.c.node_id.in_(node_ids)
        return {
            (row or {}).get("text", "")
            for row in conn.execute(select(schema.rollout_nodes.c.hold).where(mine)).scalars()
        }
