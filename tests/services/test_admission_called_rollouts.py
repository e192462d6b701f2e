"""Calls leave whole rollouts out in which it is nobody's turn, and nobody whose turn it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import update

from app.core.group_policy import Amount, GroupPolicy
from app.core.planner import Standing, admit
from app.services.admission import Admission, gathered
from app.services.admission_call import CALL_S, call
from app.services.connections import beat
from app.store import schema
from app.store.database import Database
from app.store.nudges import EVERYTHING
from tests.server_kit import NOW
from tests.services import admission_kit as fleet
from tests.services.admission_kit import GATEWAY, answer, asks, group, holders
from tests.services.test_admission_rollouts import member, rollout
from wire.messages import LeaseWait

LATER = NOW + 3
WAITS_S = 300.0
NODES = 4


@pytest.fixture(autouse=True)
def world(database: Database) -> Iterator[None]:
    fleet.gateway(database)
    group(database, max_unavailable={"count": 9})
    yield


def members(db: Database, rollout_id: str, canaries: int = 0) -> list[str]:
    """Nodes of it that were told to wait for minutes."""
    ids = [member(db, rollout_id, f"{rollout_id}-{n}", canary=n < canaries) for n in range(NODES)]
    wait_again(db)
    return ids


def wait_again(db: Database) -> None:
    """All that ask have been told to wait."""
    with db.write() as change:
        waits = schema.operations.c.lease_nonce.is_not(None)
        told = {"code": "exposure", "text": "waits", "subject": "", "until": None, "retry_s": WAITS_S, "nonce": "n1"}
        change.conn.execute(update(schema.operations).where(waits).values(hold=told))


def expose(db: Database, node_id: str) -> None:
    """It holds a lease, moves, or soaks."""
    with db.write() as change:
        mine = schema.operations.c.node_id == node_id
        change.conn.execute(update(schema.operations).where(mine).values(phase="soaking", lease_nonce=None, hold=None))


def called(db: Database) -> tuple[int, int]:
    """(how many were called, how many would have been with everybody looked over)."""
    with db.read() as conn:
        view = gathered(conn, LATER)
    standing = Standing.of(view.snapshot())
    everybody = {
        place
        for place, candidate in enumerate(standing.candidates)
        if candidate.operation_id in view.asking and view.asking[candidate.operation_id].asks_later(LATER)
    }
    expected = len(admit(standing, everybody).admitted)
    return call(db, view, standing, LATER), expected


def policy(most: int, canaries: int = 0) -> GroupPolicy:
    return GroupPolicy(max_unavailable=Amount(count=most), canaries=Amount(count=canaries), health_gate=False)


def test_as_many_as_may_be_exposed_beside_who_is(database: Database) -> None:
    ids = members(database, rollout(database, "a", policy(3)))
    for exposed in (1, 2, 3):
        expose(database, ids[exposed - 1])
        assert called(database) == (3 - exposed, 3 - exposed)
        wait_again(database)


def test_nobody_of_a_rollout_that_exposes_as_many_as_it_may_and_all_of_another(database: Database) -> None:
    full = members(database, rollout(database, "a", policy(1)))
    members(database, rollout(database, "b", policy(9)))
    expose(database, full[0])
    assert called(database) == (NODES, NODES)


def test_canaries_while_all_others_wait_for_them(database: Database) -> None:
    members(database, rollout(database, "a", policy(9, canaries=2)), canaries=2)
    assert called(database) == (2, 2)


def test_nobody_of_a_rollout_that_is_paused(database: Database) -> None:
    members(database, rollout(database, "a", policy(9), state="paused"))
    assert called(database) == (0, 0)


def test_a_way_back_passes_what_holds_the_others(database: Database) -> None:
    """Exposure and canaries are gates of rollouts that lead forth (rule 7)."""
    ids = members(database, rollout(database, "a", policy(1, canaries=1), kind="rollback"), canaries=1)
    expose(database, ids[3])
    assert called(database) == (NODES - 1, NODES - 1)


def test_what_is_left_beside_who_asked_by_itself_is_called_at_once(database: Database) -> None:
    """Else nobody is called as long as somebody asks, and of ten thousand that wait somebody always asks."""
    ids = members(database, rollout(database, "a", policy(3)))
    asks(database, ids[-1], LATER, nonce="n2")
    admission = Admission()
    assert admission.tick(database, LATER)
    assert holders(database) == {f"rollout_a-{NODES - 1}"}
    turn = told_to_ask(database, ids)
    assert len(turn) == 2
    admission.note({EVERYTHING})
    admission.tick(database, LATER + CALL_S)  # what they were called for is theirs
    assert told_to_ask(database, ids) == turn
    beat(database, GATEWAY, NODES, LATER + 11)
    admission.note({EVERYTHING})
    admission.tick(database, LATER + 11)  # they stay silent
    assert len(told_to_ask(database, ids)) == 3


def told_to_ask(db: Database, ids: list[str]) -> set[str]:
    return {id for id in ids if isinstance(found := answer(db, id), LeaseWait) and found.retry_s == 0}
