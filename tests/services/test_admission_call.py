"""Nodes that wait are called when their turn comes: free budget does not lie idle until somebody happens to ask."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from app.core.leases import retry_s
from app.services import freezes
from app.services.admission import Admission
from app.services.admission_call import CALL_S
from app.services.connections import beat
from app.store import schema
from app.store.database import Database
from app.store.nudges import EVERYTHING
from tests.server_kit import NOW, OPERATOR
from tests.services import admission_kit as fleet
from tests.services.admission_kit import GATEWAY, answer, asks, group, holders, node
from wire.messages import LeaseWait

NODES = 16
BUDGET = 3


@pytest.fixture
def waiting(database: Database) -> tuple[list[str], Admission]:
    """Nodes of a frozen fleet that have been told to wait, and the conductor's admission."""
    fleet.gateway(database)
    group(database)
    freezes.freeze(database, OPERATOR, group_id=None, reason="sale", now=NOW, ends_at=NOW + 4)
    ids = [node(database, f"n{number:02}") for number in range(NODES)]
    for node_id in ids:
        asks(database, node_id)
    admission = Admission()
    assert not admission.tick(database, NOW + 1)
    return ids, admission


def first_ones_leave(database: Database, ids: list[str], how_many: int = 8) -> None:
    """Those that would ask again soon by themselves: their orders end."""
    with database.write() as change:
        ended = schema.operations.c.node_id.in_(ids[:how_many])
        change.conn.execute(update(schema.operations).where(ended).values(state="ended"))
        change.touch("operations", *(f"node:{id}" for id in ids[:how_many]))


def called(database: Database, ids: list[str]) -> list[str]:
    return [id for id in ids if isinstance(found := answer(database, id), LeaseWait) and found.retry_s == 0]


def test_as_many_are_called_as_may_go_when_the_freeze_is_over(
    database: Database, waiting: tuple[list[str], Admission]
) -> None:
    ids, admission = waiting
    first_ones_leave(database, ids)
    assert called(database, ids) == []
    admission.note({EVERYTHING})
    admission.tick(database, NOW + 3)
    assert called(database, ids) == []
    admission.tick(database, NOW + 8)  # nobody said that the freeze is over: it ended by time
    turn = called(database, ids)
    assert len(turn) == BUDGET
    assert holders(database) == set()  # a call grants nothing
    for node_id in turn:
        asks(database, node_id, NOW + 9, nonce="n2")
    admission.note({EVERYTHING})
    assert admission.tick(database, NOW + 9)
    assert len(holders(database)) == len(turn)


def test_while_it_is_frozen_nobody_is_called(database: Database, waiting: tuple[list[str], Admission]) -> None:
    ids, admission = waiting
    for second in (2, 3):
        admission.note({EVERYTHING})
        admission.tick(database, NOW + second)
    assert called(database, ids) == []


def test_who_was_called_and_stays_silent_is_passed_over(
    database: Database, waiting: tuple[list[str], Admission]
) -> None:
    ids, admission = waiting
    first_ones_leave(database, ids)
    admission.note({EVERYTHING})
    admission.tick(database, NOW + 6)
    silent = called(database, ids)
    assert len(silent) == BUDGET
    admission.note({EVERYTHING})
    admission.tick(database, NOW + 6 + CALL_S)  # their turn is kept while they may still come
    assert called(database, ids) == silent
    beat(database, GATEWAY, NODES, NOW + 20)
    admission.note({EVERYTHING})
    admission.tick(database, NOW + 20.5)
    assert set(called(database, ids)) > set(silent)


def test_all_that_wait_count_not_only_who_is_answered_now(
    database: Database, waiting: tuple[list[str], Admission]
) -> None:
    """Else a long queue whose nodes ask one by one would ask every few seconds, each of them."""
    ids, admission = waiting
    asks(database, ids[-1], NOW + 2, nonce="again")
    admission.note({EVERYTHING})
    admission.tick(database, NOW + 3)
    told = answer(database, ids[-1])
    assert isinstance(told, LeaseWait) and told.nonce == "again"
    assert told.retry_s == retry_s(NODES - 1, NODES) > retry_s(NODES - 1)
