"""PostgreSQL: all transactions lock nodes in one order, so that none is ended as part of a deadlock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sqlalchemy import text

from app.services import connections, nodes
from app.services.connections import Gone
from app.store import intake
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR

WAIT_S = 20.0


def waiting(db: Database) -> bool:
    """Whether some transaction waits for a lock."""
    if db.is_sqlite:
        return True  # one writer: the second waits its turn before it locks anything
    with db.read() as conn:
        return bool(conn.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one())


def against_intake(db: Database, first: str, second: str, work: Callable[[], object]) -> list[BaseException]:
    """Run `work` while a batch of intake holds `first` and then takes `second`; what went wrong."""
    wrong: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=run)
    try:
        with db.write() as change:
            intake.lock(change.conn, [first])
            thread.start()
            deadline = time.monotonic() + WAIT_S
            while not waiting(db):
                assert time.monotonic() < deadline, "nobody waits"
                time.sleep(0.01)
            intake.lock(change.conn, [second])
    except Exception as error:
        wrong.append(error)
    thread.join(timeout=WAIT_S)
    assert not thread.is_alive()
    return wrong


def test_approving_a_node_that_replaces_another(database: Database) -> None:
    with database.write() as change:
        old = kit.add_node(change.conn)
        new = kit.add_node(change.conn, admission="pending", admitted_at=None, replaces_id=old)
    assert old < new
    assert against_intake(database, old, new, lambda: nodes.approve(database, OPERATOR, new, "", NOW)) == []
    with database.read() as conn:
        found = nodes.nodes.get(conn, old)
    assert found is not None and found.replaced_by_id == new


def test_releasing_connections_in_any_order(database: Database) -> None:
    with database.write() as change:
        ids = [kit.add_node(change.conn, connection_id=f"conn_{number}", gateway_id="gw") for number in range(2)]
    gone = [Gone(ids[1], "conn_1", NOW), Gone(ids[0], "conn_0", NOW)]
    assert against_intake(database, ids[0], ids[1], lambda: connections.release(database, gone)) == []
