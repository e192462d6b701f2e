"""A canary that its node holds gives its place to one that can go, however many stand between that cannot."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from app.services.rollout_held_canaries import replace_held
from app.store import schema
from app.store.database import Change, Database
from tests import rollout_kit
from tests import server_kit as kit
from tests.server_kit import NOW

AWAY = {"code": "offline", "text": "is not connected", "subject": "", "until": None}
KEEPS = {"code": "keeping-way-back", "text": "keeps its way back", "subject": "", "until": None}
LONG_AGO = NOW - 600


def member(change: Change, rollout_id: str, name: str, *, held: bool = False, **given: Any) -> str:
    """A connected node of the rollout that has its order; `held`: it says itself why it does not begin."""
    node_id = kit.add_node(change.conn, name)
    operation_id = kit.add_operation(change.conn, node_id, rollout_id=rollout_id, created_at=LONG_AGO)
    said = {"phase": "idle", "operation_id": operation_id, "holds": [KEEPS] if held else []}
    of_node = update(schema.nodes).where(schema.nodes.c.id == node_id)
    change.conn.execute(of_node.values(activity=said, desired_operation_id=operation_id))
    row = {"state": "ordered", "operation_id": operation_id, "ordered_at": LONG_AGO}
    rollout_kit.add_rollout_node(change.conn, rollout_id, node_id, **(row | given))
    return node_id


def canaries(database: Database) -> list[str]:
    query = schema.rollout_nodes.select().where(schema.rollout_nodes.c.canary)
    with database.read() as conn:
        return [row.node_id for row in conn.execute(query)]


def test_one_that_can_go_is_found_behind_hundreds_that_cannot(database: Database) -> None:
    with database.write() as change:
        rollout_id = rollout_kit.add_rollout(change.conn)
        member(change, rollout_id, "canary", held=True, canary=True, wave=0)
        for number in range(101):
            member(change, rollout_id, f"away-{number:03}", hold=AWAY)
            member(change, rollout_id, f"keeps-{number:03}", held=True)
        free = member(change, rollout_id, "web-1")
        member(change, rollout_id, "web-2")
    assert replace_held(database, NOW) == 1
    assert canaries(database) == [free]


def test_where_all_are_held_the_canary_stays(database: Database) -> None:
    with database.write() as change:
        rollout_id = rollout_kit.add_rollout(change.conn)
        canary = member(change, rollout_id, "canary", held=True, canary=True, wave=0)
        for number in range(201):
            member(change, rollout_id, f"keeps-{number:03}", held=True)
    assert replace_held(database, NOW) == 0
    assert canaries(database) == [canary]
