"""A freeze takes unused leases back; an operator's own order to one node is given again and waits for the thaw."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from app.config import Settings
from app.services import nodes, rollout_freezes
from app.services.freezes import freeze, lift
from app.store import schema
from app.store.database import Database
from tests.server_kit import OPERATOR
from tests.services.rollout_world import World
from tests.services.test_rollouts import ON_SQLITE
from wire.messages import Phase

pytestmark = ON_SQLITE


def update(world: World) -> str:
    return nodes.update(world.db, OPERATOR, world.nodes["n0"].id, world.images["2.0"], "for its driver", world.now)


def reboot(world: World) -> str:
    return nodes.reboot(world.db, OPERATOR, world.nodes["n0"].id, "for its driver", world.now)


def orders(world: World) -> list[tuple[str, str, str | None]]:
    """(author, reason, result) of the node's operations, oldest first."""
    columns = schema.operations.c
    with world.db.read() as conn:
        query = select(columns.actor, columns.reason, columns.result).order_by(columns.id)
        return [tuple(row) for row in conn.execute(query)]  # type: ignore[misc]


@pytest.mark.parametrize("order", [update, reboot])
def test_an_operators_order_waits_for_the_thaw(
    database: Database, settings: Settings, order: Callable[[World], str]
) -> None:
    world = World(database, settings, 2)
    node = world.nodes["n0"]
    order(world)
    world.run_until(lambda: len(held(world)) == 1)
    assert node.phase is Phase.STAGED, "it has its lease and has not heard of it"
    freeze_id = freeze(database, OPERATOR, group_id=None, reason="fair", now=world.now)
    assert rollout_freezes.take_back_frozen(database, world.now) == 1
    assert rollout_freezes.take_back_frozen(database, world.now) == 0
    for _ in range(4):
        world.tick()
    assert node.boots == 1 and held(world) == []
    assert orders(world) == [("mb", "for its driver", "cancelled"), ("mb", "for its driver", None)]
    with database.read() as conn:
        (hold,) = conn.execute(select(schema.operations.c.hold).where(schema.operations.c.state == "open")).scalars()
        audited = list(conn.execute(select(schema.audit.c.action)).scalars())
    assert hold["code"] == "freeze" and audited.count("node.order-again") == 1
    lift(database, OPERATOR, freeze_id, "over", world.now)
    world.run_until(lambda: not world.open_operations("n0"))
    assert node.boots == 2 and orders(world)[-1][2] == "succeeded"


def held(world: World) -> list[str]:
    with world.db.read() as conn:
        return list(conn.execute(select(schema.leases.c.id).where(schema.leases.c.ended_at.is_(None))).scalars())
