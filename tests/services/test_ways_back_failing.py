"""Failures of ways back make no version bad everywhere; what failed elsewhere calls no way back back (rules 2, 7)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Connection, select

from app.config import Settings
from app.core.group_policy import Amount, OnFailure
from app.core.rollouts import RolloutState
from app.services.bad_versions import stop_orders
from app.services.version_failures import judge_versions
from app.store import bad_versions, failed_versions, operations, schema
from app.store.bad_versions import BadVersion, Cause
from app.store.database import Database
from tests import server_kit as kit
from tests.rollout_kit import add_rollout, add_rollout_node
from tests.server_kit import NOW, digest_of
from tests.services.rollout_world import QUICK, Mood, World
from tests.services.test_rollouts import ON_SQLITE, begin


@ON_SQLITE
def test_what_fails_on_its_way_back_keeps_nobody_else_from_going_back(database: Database, settings: Settings) -> None:
    """Two nodes are sick whatever they run: that 1.0 fails there too says nothing of it."""
    policy = replace(
        QUICK,
        canaries=Amount(count=0),
        max_unavailable=Amount(count=4),
        failure_limit=Amount(count=1),
        on_failure=OnFailure.ROLL_BACK,
    )
    world = World(database, settings, 8, policy)
    for name in ("n6", "n7"):
        world.nodes[name].mood = Mood.SICK
    world.run(begin(world), until=RolloutState.ROLLED_BACK)
    assert set(world.versions().values()) == {"1.0"}
    with database.read() as conn:
        assert set(bad_versions.not_cleared(conn)) == {digest_of("2.0")}


def way_back(conn: Connection, number: int, of: str) -> str:
    """An open way back to 2.0 of another node; its id."""
    node_id = kit.add_node(conn, f"back-{number}")
    if of == "order":
        return kit.add_operation(conn, node_id, "rollback")
    if of == "reverse":
        return kit.add_operation(conn, node_id, rollout_id=add_rollout(conn, kind="rollback", targets=[]))
    rollout_id = add_rollout(conn, state="rolling-back", targets=[kit.add_image(conn, f"3.{number}")])
    operation_id = kit.add_operation(conn, node_id, rollout_id=rollout_id)
    add_rollout_node(conn, rollout_id, node_id, state="done", back_operation_id=operation_id)
    return operation_id


@pytest.mark.parametrize("of", ["order", "reverse", "sent-back"])
@pytest.mark.parametrize("listed", [False, True], ids=["reported", "listed-by-the-node"])
def test_failures_of_ways_back_do_not_count(database: Database, of: str, listed: bool) -> None:
    with database.write() as change:
        for number in range(2):
            operation_id = way_back(change.conn, number, of)
            mine = schema.operations.c.id == operation_id
            node_id = change.conn.execute(select(schema.operations.c.node_id).where(mine)).scalar_one()
            named = None if listed else operation_id
            failed_versions.remember(change.conn, node_id, digest_of("2.0"), "2.0", "panics", named, NOW)
    assert judge_versions(database, NOW) == 0
    with database.write() as change:
        for name in ("a", "b"):
            node_id = kit.add_node(change.conn, name)
            failed_versions.remember(change.conn, node_id, digest_of("2.0"), "2.0", "panics", None, NOW)
    assert judge_versions(database, NOW) == 1
    with database.read() as conn:
        found = bad_versions.get(conn, digest_of("2.0"))
    assert found is not None and found.reason.startswith("failed on 2 nodes: a, b")


@pytest.mark.parametrize("of", ["order", "reverse", "sent-back", "forth"])
@pytest.mark.parametrize("cause", list(Cause))
def test_only_what_was_withdrawn_calls_ways_back_back(database: Database, of: str, cause: Cause) -> None:
    with database.write() as change:
        if of == "forth":
            operation_id = kit.add_operation(change.conn, kit.add_node(change.conn, "forth"))
        else:
            operation_id = way_back(change.conn, 0, of)
        bad_versions.remember(change.conn, BadVersion(digest_of("2.0"), "2.0", "it leaks", cause, "mb", NOW))
    called_back = of == "forth" or cause is Cause.WITHDRAWN
    assert stop_orders(database, NOW) == int(called_back)
    with database.read() as conn:
        operation = operations.get(conn, operation_id)
    assert operation is not None and (operation.open and operation.cancel_asked_at is None) is not called_back
