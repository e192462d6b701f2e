"""Copies of bad versions become unbootable; a way back only when it was withdrawn and is not needed (decision 0029)."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, update

from app.services.bad_versions import disarm_copies
from app.store import bad_versions as bad_store
from app.store import schema
from app.store.bad_versions import BadVersion, Cause
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW, digest_of
from wire.messages import EvidenceClass

GONE = digest_of("2.0")


def bad(conn: Connection, cause: Cause = Cause.WITHDRAWN) -> None:
    bad_store.remember(conn, BadVersion(GONE, "2.0", "it eats disks", cause, "mb", NOW))


def runs_newer(conn: Connection, name: str, *, good: bool | None = True) -> str:
    """A node that went from 2.0 to 3.0 and names 2.0 as its way back."""
    kept = {"phase": "idle", "way_back": {"slot": "B", "version": "2.0", "digest": GONE}}
    slots = kit.two_slots("3.0", "2.0", passive_good=good)
    return kit.add_node(conn, name, version="3.0", booted_digest=digest_of("3.0"), slots=slots, activity=kept)


def ended(conn: Connection, node_id: str, kind: str, result: str, at: float) -> str:
    id = kit.add_operation(conn, node_id, kind, target_version="3.0", created_at=at - 100)
    end = {"state": "ended", "result": result, "ended_at": at}
    conn.execute(update(schema.operations).where(schema.operations.c.id == id).values(**end))
    return id


def told(database: Database) -> set[str]:
    with database.read() as conn:
        rows = conn.execute(schema.operations.select().where(schema.operations.c.kind == "disarm"))
        return {row.node_id for row in rows if row.target_digest == GONE}


def test_a_withdrawn_way_back_of_a_version_that_has_soaked_becomes_unbootable(database: Database) -> None:
    with database.write() as change:
        node_id = runs_newer(change.conn, "web-1")
        ended(change.conn, node_id, "activate", "succeeded", NOW - 10)
        bad(change.conn)
    assert disarm_copies(database, NOW) == 1
    assert told(database) == {node_id}


@pytest.mark.parametrize("result", ["unhealthy", "unknown"])
def test_the_way_back_of_a_version_that_did_not_prove_itself_stays_until_it_is_rescued(
    database: Database, result: str
) -> None:
    with database.write() as change:
        node_id = runs_newer(change.conn, "web-1")
        ended(change.conn, node_id, "activate", result, NOW - 10)
        ended(change.conn, node_id, "activate", "refused", NOW - 9)  # says nothing of what is booted
        bad(change.conn)
    assert disarm_copies(database, NOW) == 0
    with database.write() as change:
        ended(change.conn, node_id, "rescue", "succeeded", NOW + 1)
    assert disarm_copies(database, NOW + 2) == 1


def test_the_way_back_of_a_slot_that_is_not_confirmed_stays(database: Database) -> None:
    with database.write() as change:
        node_id = runs_newer(change.conn, "web-1")
        slots: list[dict[str, Any]] = kit.two_slots("3.0", "2.0", passive_good=True)
        slots[0]["good"] = None
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node_id).values(slots=slots))
        bad(change.conn)
    assert disarm_copies(database, NOW) == 0


def test_a_copy_that_never_ran_is_no_way_back_whatever_the_node_calls_it(database: Database) -> None:
    """2.0 was written again over the slot that had led back; agents that do not forget that still name it."""
    with database.write() as change:
        node_id = runs_newer(change.conn, "web-1", good=None)
        bad(change.conn, Cause.FAILED)
    assert disarm_copies(database, NOW) == 1
    assert told(database) == {node_id}


def test_a_node_that_still_needed_its_way_back_is_asked_again_later(database: Database) -> None:
    with database.write() as change:
        node_id = runs_newer(change.conn, "web-1")
        bad(change.conn)
    assert disarm_copies(database, NOW) == 1
    with database.write() as change:
        end = {"state": "ended", "result": "refused", "ended_at": NOW + 1}
        of_node = schema.operations.c.node_id == node_id
        change.conn.execute(update(schema.operations).where(of_node).values(**end))
    assert disarm_copies(database, NOW + 60) == 0
    assert disarm_copies(database, NOW + 602) == 1


def test_nodes_that_nobody_may_command_keep_no_others_from_being_told(database: Database) -> None:
    with database.write() as change:
        for number in range(70):
            given = {"conflict": {"ends": []}} if number % 2 else {"evidence": EvidenceClass.PROTOCOL_ONLY.value}
            node_id = runs_newer(change.conn, f"held-{number:02}")
            change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node_id).values(**given))
        last = runs_newer(change.conn, "web-1")
        bad(change.conn)
    assert disarm_copies(database, NOW) == 1
    assert told(database) == {last}
