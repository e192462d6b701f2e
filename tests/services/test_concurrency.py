"""Gateways, conductors and operators at once: nobody deadlocks, and never is more than one lease out."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from sqlalchemy import func, select, update

from app.conductor.loop import Conductor
from app.core.errors import NotPossible
from app.services import admission, deadlines, nodes, operations
from app.store import intake, schema
from app.store import operations as stored
from app.store.database import Change, Database
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR, digest_of
from wire.messages import Activity, LeaseRequest, OperationReport, Phase, Result

ROUNDS = 25


def talk(db: Database, node_ids: list[str], seed: int) -> None:
    """A gateway's batches: some nodes of its own, each saying something about its newest open operation."""
    chance = random.Random(seed)
    for number in range(ROUNDS):
        batch = sorted(chance.sample(node_ids, 3))
        with db.write() as change:
            intake.lock(change.conn, batch)
            for node_id in batch:
                _say(change, node_id, chance, f"{seed}-{number}")


def _say(change: Change, node_id: str, chance: random.Random, nonce: str) -> None:
    open_ones = stored.open_of(change.conn, node_id)
    if not open_ones:
        return
    operation = open_ones[0]
    if chance.random() < 0.5:
        request = LeaseRequest(operation_id=operation.id, nonce=nonce)
        operations.ask_lease(change, node_id, request, NOW)
    elif chance.random() < 0.5:
        activity = Activity(phase=Phase.STAGED, operation_id=operation.id)
        operations.observe(change, node_id, activity, NOW)
    else:
        report = OperationReport(
            seq=1, operation_id=operation.id, order=operation.order, result=Result.CANCELLED, at=NOW
        )
        operations.finish(change, report, node_id, NOW)


def operate(db: Database, node_ids: list[str], image_ids: list[str], seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        node_id = chance.choice(node_ids)
        try:
            if chance.random() < 0.7:
                nodes.update(db, OPERATOR, node_id, chance.choice(image_ids), "", NOW)
            else:
                nodes.cancel(db, OPERATOR, node_id, "", NOW)
        except NotPossible:
            continue


def conduct(db: Database) -> None:
    for number in range(ROUNDS):
        admission.grant_leases(db, NOW + number / ROUNDS)
        deadlines.advance_clocks(db, NOW + 6 * number)
        Conductor(db, clock=lambda: NOW + 1).round()
        with db.read() as conn:
            held = schema.leases.c.ended_at.is_(None)
            assert conn.execute(select(func.count()).select_from(schema.leases).where(held)).scalar_one() <= 1


def test_everybody_at_once(database: Database) -> None:
    with database.write() as change:
        gateway_id = kit.add_gateway(change.conn)
        node_ids = [kit.add_node(change.conn, gateway_id=gateway_id) for _ in range(12)]
        image_ids = [kit.add_image(change.conn, version) for version in ("2.0", "3.0")]
        change.conn.execute(update(schema.nodes).values(booted_digest=digest_of("1.0")))
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        return run

    works: list[Callable[[], None]] = [
        *(lambda seed=seed: talk(database, node_ids, seed) for seed in (1, 2)),
        *(lambda seed=seed: operate(database, node_ids, image_ids, seed) for seed in (3, 4)),
        *(lambda: conduct(database) for _ in range(2)),
    ]
    threads = [threading.Thread(target=guarded(work)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with database.read() as conn:
        open_of_fleet = stored.all_open(conn)
        ended = conn.execute(select(schema.operations.c.id).where(schema.operations.c.state == "ended")).all()
        told = conn.execute(select(schema.events.c.operation_id).where(schema.events.c.kind == "operation-ended")).all()
    assert sorted(row[0] for row in told) == sorted(row[0] for row in ended)  # each ended exactly once
    assert open_of_fleet or ended
