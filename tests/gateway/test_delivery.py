"""What nodes are told: the newest of each kind, found without nudges too, and to the end of a restart."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from app.config import Settings
from app.gateway.mailbox import Mailbox
from app.gateway.server import GatewayThread
from app.services import admission, nodes, services
from app.store import fleet, schema
from app.store.database import Database
from tests.gateway import kit
from tests.gateway.conftest import Start
from tests.server_kit import OPERATOR, add_image, two_slots
from wire.close import CloseCode
from wire.messages import (
    Ack,
    Desired,
    LeaseGrant,
    LeaseRequest,
    OperationKind,
    Order,
    Refused,
    Welcome,
)


def test_the_mailbox_keeps_the_newest_of_each_kind() -> None:
    box = Mailbox()
    for generation in (1, 3, 2):
        box.put(Desired(order=Order(1, generation)))
    for seq in (5, 9, 7):
        box.put(Ack(seq=seq))
    for nonce in ("a", "b"):
        box.put(LeaseGrant(lease_id="l", operation_id="o", nonce=nonce, duration_s=1))
    assert [box.take(), box.take(), box.take(), box.take()] == [
        Ack(seq=9),
        Desired(order=Order(1, 3)),
        LeaseGrant(lease_id="l", operation_id="o", nonce="b", duration_s=1),
        None,
    ]


def updatable(database: Database, settings: Settings) -> tuple[kit.Key, str]:
    key = kit.new_node(database, settings, version="1.0", booted_slot="A", slots=two_slots())
    with database.write() as change:
        return key, add_image(change.conn)


def test_an_operators_wish_reaches_the_node(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    key, image = updatable(database, settings)

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        await node.hear(Desired)
        operation = await asyncio.to_thread(
            nodes.update, database, OPERATOR, key.node_id, image, "because", time.time()
        )
        desired = await node.hear(Desired, lambda desired: desired.operation is not None)
        assert desired.operation is not None
        assert (desired.operation.id, desired.operation.kind) == (operation, OperationKind.ACTIVATE)
        assert desired.operation.image is not None
        assert desired.operation.image.url.startswith(f"{settings.public_url}/images/blobs/sha256:")
        await asyncio.to_thread(nodes.cancel, database, OPERATOR, key.node_id, "no", time.time())
        cancelled = await node.hear(Desired)
        assert cancelled.operation is None
        assert cancelled.order > desired.order
        await node.leave()

    kit.run(scenario())


def test_a_lost_nudge_costs_delay_only(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    key, _ = updatable(database, settings)

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        first = await node.hear(Desired)
        with database.engine.begin() as conn:  # past `Database.write`: nobody is nudged
            conn.execute(schema.nodes.update().where(schema.nodes.c.id == key.node_id).values(order_generation=41))
        later = await node.hear(Desired)
        assert later.order == Order(first.order.epoch, 41)
        await node.leave()

    kit.run(scenario())


def test_a_lost_approval_and_retirement_are_found(
    gateway: GatewayThread, database: Database, settings: Settings
) -> None:
    key = kit.new_node(database, settings, admission="pending")

    def admit(admission: str) -> None:
        with database.engine.begin() as conn:
            conn.execute(schema.nodes.update().where(schema.nodes.c.id == key.node_id).values(admission=admission))

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        admit("admitted")
        assert (await node.hear(Welcome)).admission == "admitted"
        await node.hear(Desired)
        admit("retired")
        assert (await node.hear(Refused)).code == "retired"
        assert await node.closed() == CloseCode.RETIRED

    kit.run(scenario())


def test_an_image_url_is_renewed_while_it_may_still_be_needed(
    start: Start, database: Database, settings: Settings
) -> None:
    gateway = start(url_refresh_s=0.3)
    key, image = updatable(database, settings)
    nodes.update(database, OPERATOR, key.node_id, image, "because", time.time())

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        first = await node.hear(Desired)
        second = await node.hear(Desired)
        assert second.order == first.order
        await node.leave()

    kit.run(scenario())


def test_a_lease_is_asked_for_granted_and_heard(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    key, image = updatable(database, settings)
    services.allow_single(database, OPERATOR, ("", "web"), True, "a test fleet of one", time.time())
    operation = nodes.update(database, OPERATOR, key.node_id, image, "because", time.time())

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        await node.hear(Desired)
        await node.say(kit.status(), LeaseRequest(operation_id=operation, nonce="nonce-1"))

        def grant() -> bool:
            admission.grant_leases(database, time.time())
            with database.read() as conn:
                return conn.execute(schema.leases.select()).first() is not None

        await kit.until(grant, "granted")
        assert (await node.hear(LeaseGrant)).nonce == "nonce-1"
        await node.leave()

    kit.run(scenario())


def test_a_slow_reader_is_told_the_newest_and_costs_no_memory(
    start: Start, database: Database, settings: Settings
) -> None:
    gateway = start()
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        await node.hear(Desired)
        node.connection.transport.pause_reading()
        for seq in range(1, 1001):
            await node.say(kit.event(seq, text="x"))
        await kit.until(lambda: len(kit.event_rows(database, key.node_id, "check-failed")) == 1000, "all stored")
        node.connection.transport.resume_reading()
        await node.hear(Ack, lambda ack: ack.seq == 1000)
        acks = [message for message in node.heard if isinstance(message, Ack)]
        assert [ack.seq for ack in acks] == sorted({ack.seq for ack in acks})
        await node.leave()

    kit.run(scenario())


# --- presence -----------------------------------------------------------------------------------------------


def with_policy(database: Database, **changes: float) -> None:
    with database.write() as change:
        fleet.set_policy(change.conn, changes)


def test_offline_only_after_the_grace(start: Start, database: Database, settings: Settings) -> None:
    with_policy(database, offline_grace_s=0.6, reconnect_allowance_s=0.1)
    gateway = start()
    stays, goes = kit.new_node(database, settings), kit.new_node(database, settings)

    async def scenario() -> None:
        first, second = await kit.gathered(kit.connected(gateway, stays), kit.connected(gateway, goes))
        await second.leave()
        await kit.until(lambda: kit.node_row(database, goes.node_id).gateway_id is None, "released")
        left_at = kit.node_row(database, goes.node_id).last_seen_at
        await kit.until(lambda: kit.node_row(database, goes.node_id).connection == "offline", "offline")
        assert time.time() - left_at >= 0.6
        assert [row.kind for row in kit.event_rows(database, goes.node_id)] == ["online", "offline"]
        assert kit.node_row(database, stays.node_id).connection == "online"
        back = await kit.connected(gateway, goes)
        assert [row.kind for row in kit.event_rows(database, goes.node_id)] == ["online", "offline", "online"]
        await kit.gathered(first.leave(), back.leave())

    kit.run(scenario())


def test_a_short_absence_is_no_event(start: Start, database: Database, settings: Settings) -> None:
    with_policy(database, offline_grace_s=30, reconnect_allowance_s=0)
    gateway = start()
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        for _ in range(3):
            await (await kit.connected(gateway, key)).leave()
        assert [row.kind for row in kit.event_rows(database, key.node_id)] == ["online"]

    kit.run(scenario())


def test_a_silent_node_is_closed(start: Start, database: Database, settings: Settings) -> None:
    gateway = start(heartbeat_s=0.2)
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        assert node.welcome.heartbeat_s == 0.2
        assert await node.closed() == CloseCode.SILENT

    kit.run(scenario())


def test_a_row_that_names_a_connection_nobody_has_is_released(
    gateway: GatewayThread, database: Database, settings: Settings
) -> None:
    key = kit.new_node(database, settings)
    with database.read() as conn:
        own = conn.execute(schema.gateways.select()).one().id
    with database.write() as change:
        change.conn.execute(
            schema.nodes.update()
            .where(schema.nodes.c.id == key.node_id)
            .values(connection="online", gateway_id=own, connection_id="conn_ghost")
        )

    async def scenario() -> None:
        await kit.until(lambda: kit.node_row(database, key.node_id).gateway_id is None, "released")

    kit.run(scenario())


# --- restart ------------------------------------------------------------------------------------------------


def test_a_stop_writes_what_waits_and_sends_everybody_back(
    start: Start, database: Database, settings: Settings
) -> None:
    gateway = start(write_every_s=5.0, write_soon_s=5.0)  # nothing more is written by itself
    keys = [kit.new_node(database, settings) for _ in range(5)]

    async def scenario() -> None:
        connected = await kit.gathered(*(kit.connected(gateway, key) for key in keys))
        await connected[0].say(kit.event(1))
        await connected[0].hear(Ack)  # the writer rests now
        for node in connected:
            await node.say(kit.status(slots=kit.slots("7.0")), kit.event(2))
        await asyncio.gather(*(node.connection.ping() for node in connected))
        pongs = [await node.connection.ping() for node in connected]
        reading = [asyncio.create_task(node.closed()) for node in connected]
        await asyncio.gather(*pongs)
        await asyncio.to_thread(gateway.stop)
        assert [await code for code in reading] == [CloseCode.RESTART] * 5

    kit.run(scenario())
    for key in keys:
        row = kit.node_row(database, key.node_id)
        assert (row.version, row.gateway_id, row.connection) == ("7.0", None, "online")
    with database.read() as conn:
        assert conn.execute(schema.gateways.select()).one().stopped_at is not None


def test_after_a_crash_nodes_come_back_at_once(start: Start, database: Database, settings: Settings) -> None:
    """The dead gateway's row still looks alive; the same listening address proves that it is not."""
    gateway = start()
    key = kit.new_node(database, settings)
    assert gateway.address is not None

    async def come_and_go() -> None:
        node = await kit.connected(gateway, key)
        node.connection.transport.abort()

    kit.run(come_and_go())
    gateway.stop()
    with database.write() as change:  # as a kill -9 leaves it
        change.conn.execute(schema.gateways.update().values(stopped_at=None, heartbeat_at=time.time()))
        row = change.conn.execute(schema.gateways.select()).one()
        change.conn.execute(schema.nodes.update().values(gateway_id=row.id, connection_id="conn_dead"))
    again = start(of=replace(settings, gateway=gateway.address))

    async def back() -> None:
        node = await kit.connected(again, key)
        assert not node.welcome.conflict
        await node.leave()

    kit.run(back())


# --- health -------------------------------------------------------------------------------------------------


def test_health_and_metrics(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        assert await kit.http_get(gateway, "/healthz") == (200, "ok\n")
        await kit.answers(gateway, "/readyz", 200)
        code, text = await kit.http_get(gateway, "/metrics")
        assert code == 200
        assert "twinroot_gateway_nodes 1.0" in text
        assert (await kit.http_get(gateway, "/other"))[0] == 404
        await node.leave()

    kit.run(scenario())


def test_a_taken_address_stops_the_start(gateway: GatewayThread, start: Start, settings: Settings) -> None:
    assert gateway.address is not None
    with pytest.raises(Exception, match="TWINROOT_GATEWAY: cannot listen"):
        start(of=replace(settings, gateway=gateway.address))


def test_a_wrong_secret_stops_the_start(gateway: GatewayThread, start: Start, settings: Settings) -> None:
    with pytest.raises(Exception, match="TWINROOT_SECRET_KEY"):
        start(of=replace(settings, secret_key="another"))
