"""PostgreSQL is stopped and started: sockets stay open, everybody says so, and all goes on by itself."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.conductor.loop import Conductor
from app.config import Address, Settings
from app.gateway.server import GatewayThread
from app.services import nodes
from app.services.fleet import ensure_fleet
from app.services.sign_in import create_login_link
from app.store.database import Database, open_database
from app.store.migrate import migrate
from tests import postgres
from tests.gateway import kit
from tests.gateway.conftest import LIMITS
from tests.server_kit import NOW, OPERATOR, add_image, two_slots
from tests.web.console_kit import Browser
from wire.messages import Ack, Desired, LeaseGrant, LeaseRequest, Placement


@pytest.fixture
def server() -> Iterator[str]:
    """A PostgreSQL of this test's own, which it may stop."""
    try:
        with postgres.private_server() as folder:
            yield folder
    except postgres.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def database(server: str) -> Iterator[Database]:
    url = postgres.url(server, "postgres")
    migrate(url)
    db = open_database(url)
    ensure_fleet(db, NOW)
    yield db
    db.close()


@pytest.fixture
def conductor(database: Database) -> Iterator[threading.Thread]:
    stop = threading.Event()
    thread = threading.Thread(target=Conductor(database).run, args=(stop,))
    thread.start()
    yield thread
    stop.set()
    thread.join(timeout=kit.DEADLINE_S)
    assert not thread.is_alive()


def test_everything_goes_on_by_itself(
    server: str, database: Database, conductor: threading.Thread, settings: Settings
) -> None:
    gateway = GatewayThread(database, replace(settings, gateway=Address("127.0.0.1", 0)), LIMITS)
    gateway.start()
    key = kit.new_node(database, settings, version="1.0", booted_slot="A", slots=two_slots())
    with database.write() as change:
        image = add_image(change.conn)
    browser = Browser(database, settings, name="")
    browser.now = time.time()  # the conductor's clock: it removes sessions that have expired
    assert browser.get(f"/sign-in/{create_login_link(database, 'mb', browser.now)}").status_code == 303
    operation = nodes.update(database, OPERATOR, key.node_id, image, "", time.time())

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        await node.say(kit.status(placement=Placement(known=True, engine="none")))  # nothing that a floor would keep
        await node.hear(Desired, lambda desired: desired.operation is not None)
        await kit.until(lambda: kit.node_row(database, key.node_id).booted_slot == "A", "its status is stored")
        with postgres.away(server):
            await kit.answers(gateway, "/readyz", 503)
            await node.say(kit.event(1, text="while it was away"), LeaseRequest(operation_id=operation, nonce="n1"))
            page = await asyncio.to_thread(browser.get, "/nodes")
            assert page.status_code == 503 and "The database is away" in page.text
            assert (await asyncio.to_thread(browser.get, "/readyz")).status_code == 503
            assert (await asyncio.to_thread(browser.get, "/healthz")).status_code == 200
            assert (await kit.http_get(gateway, "/healthz"))[0] == 200
            await (await node.connection.ping())
        await node.hear(Ack, lambda ack: ack.seq == 1)
        assert (await node.hear(LeaseGrant)).nonce == "n1", "the conductor granted what was asked for meanwhile"
        await kit.answers(gateway, "/readyz", 200)
        assert (await asyncio.to_thread(browser.get, "/readyz")).status_code == 200
        assert (await asyncio.to_thread(browser.get, "/nodes")).status_code == 200
        stored = [row.text for row in kit.event_rows(database, key.node_id, "check-failed")]
        assert stored == ["while it was away"]
        assert kit.node_row(database, key.node_id).connection == "online"
        await node.leave()

    try:
        kit.run(scenario())
    finally:
        gateway.stop()
    assert conductor.is_alive()
