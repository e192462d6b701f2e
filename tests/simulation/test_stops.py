"""The simulation sees a lease of what was stopped, and none of what was granted before."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, insert, update

from app.store import schema
from app.store.database import Database
from tests import rollout_kit, server_kit
from tests.simulation.stops import Stops

BAD_DIGEST = server_kit.digest_of("2.0")


def _operation(conn: Connection, **given: Any) -> str:
    """Of a running rollout, to 2.0."""
    rollout_id = rollout_kit.add_rollout(conn)
    node_id = server_kit.add_node(conn, id=f"node_{7:026d}")
    values = {"rollout_id": rollout_id, "target_version": "2.0", "target_digest": BAD_DIGEST}
    return server_kit.add_operation(conn, node_id, **(values | given))


def _becomes(conn: Connection, state: str) -> None:
    conn.execute(update(schema.rollouts).values(state=state))


def _becomes_bad(conn: Connection, cleared_at: float | None = None, cause: str = "failed") -> None:
    values = {"digest": BAD_DIGEST, "version": "2.0", "reason": "failed", "cause": cause, "actor": "mb", "at": 1.0}
    conn.execute(insert(schema.bad_versions).values(**values, cleared_at=cleared_at))


@pytest.mark.parametrize("state", ["draft", "paused", "halted", "aborted", "rolled-back", "succeeded"])
def test_what_is_stopped_gets_no_lease(database: Database, state: str) -> None:
    stops = Stops()
    with database.write() as change:
        operation_id = _operation(change.conn)
        _becomes(change.conn, state)
        stops.note(change.conn)
        said = stops.look(change.conn, [operation_id])
    assert said.startswith("node 7 got a lease when its rollout ") and said.endswith(f" was {state} already")


@pytest.mark.parametrize("state", ["running", "rolling-back"])
def test_what_goes_on_gets_leases(database: Database, state: str) -> None:
    stops = Stops()
    with database.write() as change:
        operation_id = _operation(change.conn)
        _becomes(change.conn, state)
        stops.note(change.conn)
        assert stops.look(change.conn, [operation_id]) == ""


def test_what_was_granted_before_it_was_stopped_finishes(database: Database) -> None:
    """In one round, too: leases first, and then it halts."""
    stops = Stops()
    with database.write() as change:
        operation_id = _operation(change.conn)
        stops.note(change.conn)
        _becomes(change.conn, "halted")
        _becomes_bad(change.conn)
        assert stops.look(change.conn, [operation_id]) == ""
        assert stops.look(change.conn, []) == ""
        assert stops.look(change.conn, [operation_id]) != "", "it was given another one"


def test_what_was_resumed_gets_leases_again(database: Database) -> None:
    stops = Stops()
    with database.write() as change:
        operation_id = _operation(change.conn)
        _becomes(change.conn, "paused")
        stops.note(change.conn)
        _becomes(change.conn, "running")
        stops.note(change.conn)
        assert stops.look(change.conn, [operation_id]) == ""


@pytest.mark.parametrize(
    ("cleared_at", "expected"),
    [(None, "node 7 got a lease for 2.0, which was bad for the whole fleet already"), (2.0, "")],
    ids=["bad", "cleared"],
)
def test_a_version_that_is_bad_gets_no_lease(database: Database, cleared_at: float | None, expected: str) -> None:
    stops = Stops()
    with database.write() as change:
        operation_id = _operation(change.conn, rollout_id=None)
        _becomes_bad(change.conn, cleared_at)
        stops.note(change.conn)
        assert stops.look(change.conn, [operation_id]) == expected


@pytest.mark.parametrize(("cause", "stopped"), [("failed", False), ("withdrawn", True)])
def test_a_way_back_gets_a_lease_unless_its_version_was_withdrawn(
    database: Database, cause: str, stopped: bool
) -> None:
    stops = Stops()
    with database.write() as change:
        operation_id = _operation(change.conn, rollout_id=None, kind="rollback")
        _becomes_bad(change.conn, cause=cause)
        stops.note(change.conn)
        assert bool(stops.look(change.conn, [operation_id])) is stopped
