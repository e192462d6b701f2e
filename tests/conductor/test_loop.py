"""The conductor's rounds: woken by nudges, one failing step leaves the others alone, killed anywhere loses nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

from sqlalchemy import text, update

from app.conductor.loop import Conductor
from app.config import Settings
from app.services.operations import ask_lease
from app.store import leases, nodes, schema
from app.store.database import Database, open_database
from app.store.migrate import migrate
from tests import server_kit as kit
from tests.server_kit import NOW
from wire.messages import LeaseRequest

WAIT_S = 20.0


def until(true: Callable[[], bool]) -> None:
    """Wait for a condition; fails when it does not come."""
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, "it did not come to this"
        time.sleep(0.02)


def asking_node(db: Database, now: float) -> str:
    with db.write() as change:
        gateway_id = kit.add_gateway(change.conn, heartbeat_at=now)
        node_id = kit.add_node(change.conn, desired_operation_id="op_a", gateway_id=gateway_id)
        kit.add_operation(change.conn, node_id, id="op_a", phase="staged", clock_at=now)
        ask_lease(change, node_id, LeaseRequest(operation_id="op_a", nonce="n1"), now)
    return node_id


def granted(db: Database) -> bool:
    with db.read() as conn:
        return bool(leases.all_held(conn))


def expired_pin(db: Database) -> str:
    with db.write() as change:
        image_id = kit.add_image(change.conn)
        pin = {"pin_image_id": image_id, "pinned_at": NOW, "pin_until": NOW, "pin_actor": "ana", "pin_reason": "fair"}
        return kit.add_node(change.conn, gateway_id=kit.add_gateway(change.conn), **pin)


def pinned(db: Database, node_id: str) -> bool:
    with db.read() as conn:
        found = nodes.get(conn, node_id)
    assert found is not None
    return found.pin is not None


def test_it_runs_until_it_is_stopped_and_wakes_by_a_nudge(database: Database) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=Conductor(database).run, args=(stop,))
    thread.start()
    try:
        asking_node(database, time.time())
        until(lambda: granted(database))
    finally:
        stop.set()
        thread.join(timeout=WAIT_S)
    assert not thread.is_alive()


def test_an_error_in_one_step_leaves_the_others_alone(database: Database) -> None:
    asking_node(database, NOW)
    node_id = expired_pin(database)
    with database.write() as change:  # the lease step meets a policy that it cannot read
        change.conn.execute(update(schema.fleet).values(policy={"no_such_field": 1}))
    assert Conductor(database, clock=lambda: NOW + 1).round()
    assert not granted(database)
    assert not pinned(database, node_id)


def test_with_the_database_away_it_waits_and_goes_on(settings: Settings) -> None:
    db = open_database(settings.database_url)
    try:
        conductor = Conductor(db, clock=lambda: NOW + 1)
        assert not conductor.round()  # no tables: as good as away
        migrate(settings.database_url)
        with db.write() as change:
            change.conn.execute(text(f"INSERT INTO fleet (id, epoch, policy, created_at) VALUES (1, 1, '{{}}', {NOW})"))
        asking_node(db, NOW)
        assert conductor.round()
        assert granted(db)
    finally:
        db.close()


_KILLED = """
import os, sys, threading
from app.conductor.loop import Conductor
from app.store.database import open_database
db = open_database(sys.argv[1])
statements = [0]
def count(*_):
    statements[0] += 1
    if statements[0] == int(sys.argv[2]):
        os._exit(9)
from sqlalchemy import event
event.listen(db.engine, "after_cursor_execute", count)
Conductor(db, clock=lambda: float(sys.argv[3])).round()
"""


def test_killed_after_any_statement_it_loses_and_doubles_nothing(database_url: str, database: Database) -> None:
    asking_node(database, NOW)
    node_id = expired_pin(database)
    for after in range(1, 100, 5):
        command = [sys.executable, "-c", _KILLED, database_url, str(after), str(NOW + 1)]
        killed = subprocess.run(command, timeout=60, check=False)
        assert killed.returncode in (0, 9)
    assert Conductor(database, clock=lambda: NOW + 1).round()
    assert granted(database) and not pinned(database, node_id)
    assert kit.count_rows(database, schema.leases) == 1
    assert kit.count_rows(database, schema.audit) == 1
    with database.read() as conn:
        kinds = [row.kind for row in conn.execute(schema.events.select().order_by(schema.events.c.id))]
    assert sorted(kinds) == ["lease-granted", "pin-expired"]
