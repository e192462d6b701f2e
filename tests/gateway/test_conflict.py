"""Two connections with one key: a machine that comes back replaces itself, anything else is a conflict."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import ClientConnection

from app.config import Settings
from app.gateway.server import GatewayThread
from app.services.nodes import settle_conflict, update
from app.store.database import Database
from tests.gateway import kit
from tests.gateway.conftest import Start
from tests.server_kit import NOW, OPERATOR, add_image
from wire.close import CloseCode
from wire.messages import Ack, Desired, Welcome

PATIENT_S = 8.0
"""For tests in which the first end is alive: it answers at once, but the machine may be busy."""


def deafen(connection: ClientConnection) -> None:
    """The machine vanished: nothing is read or answered any more, and no close was seen."""
    connection.transport.pause_reading()


def test_two_live_ends_of_one_key_are_held_and_neither_is_commanded(
    start: Start, database: Database, settings: Settings
) -> None:
    gateway = start(probe_s=PATIENT_S)
    _live_conflict(gateway, gateway, database, settings)


def test_two_live_ends_on_two_gateways_are_held(start: Start, database: Database, settings: Settings) -> None:
    _live_conflict(start(probe_s=PATIENT_S), start(probe_s=PATIENT_S), database, settings)


def _live_conflict(first_at: GatewayThread, second_at: GatewayThread, database: Database, settings: Settings) -> None:
    key = kit.new_node(database, settings, version="1.0")
    with database.write() as change:
        image = add_image(change.conn)

    async def scenario() -> None:
        first = await kit.connected(first_at, key)
        await first.say(kit.status())
        await kit.until(lambda: kit.node_row(database, key.node_id).booted_slot == "A", "stored")
        listening = asyncio.create_task(first.hear(Welcome, lambda welcome: welcome.conflict))  # answers pings
        second = await kit.connected(second_at, key, boot_id="boot-b")
        assert second.welcome.conflict
        await listening
        conflict = kit.node_row(database, key.node_id).conflict
        assert {end["boot_id"] for end in conflict["ends"]} == {"boot-a", "boot-b"}
        assert len(kit.event_rows(database, key.node_id, "identity-conflict")) == 1
        # neither is heard …
        for node in (first, second):
            await node.say(kit.status(slots=kit.slots("9.9")), kit.event(7))
        # … nor commanded, whatever is desired; and an operator is told so
        with pytest.raises(Exception, match="conflict"):
            update(database, OPERATOR, key.node_id, image, "test", NOW)
        database.nudges.publish({f"desired:{key.node_id}"})
        for node in (first, second):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.6):
                    await node.hear(Desired, lambda desired: desired.operation is not None)
        assert kit.node_row(database, key.node_id).version == "1.0"
        assert not kit.event_rows(database, key.node_id, "check-failed")
        # the operator has turned off the copy and settles it: both are sent back, the rightful one returns
        settle_conflict(database, OPERATOR, key.node_id, "copy turned off", NOW)
        assert await first.closed() == CloseCode.RESTART
        assert await second.closed() == CloseCode.RESTART
        back = await kit.connected(first_at, key)
        assert not back.welcome.conflict
        await back.hear(Desired)
        await back.leave()

    kit.run(scenario())


@pytest.mark.parametrize("changed", [{"machine_id": "clone"}, {"hardware": "sha256:other"}])
def test_another_machine_with_the_key_is_a_conflict_at_once(
    gateway: GatewayThread, database: Database, settings: Settings, changed: dict[str, str]
) -> None:
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        clone = await kit.connected(gateway, key, **changed)
        assert clone.welcome.conflict
        assert kit.node_row(database, key.node_id).connection == "never"
        await clone.leave()

    kit.run(scenario())


def test_another_machine_holds_the_connected_one_too(start: Start, database: Database, settings: Settings) -> None:
    gateway = start(probe_s=PATIENT_S)
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        first = await kit.connected(gateway, key)
        told = asyncio.create_task(first.hear(Welcome, lambda welcome: welcome.conflict))
        clone = await kit.connected(gateway, key, machine_id="clone")
        assert clone.welcome.conflict
        await told
        await kit.gathered(first.leave(), clone.leave())

    kit.run(scenario())


def test_a_machine_that_vanished_and_came_back_replaces_itself(
    gateway: GatewayThread, database: Database, settings: Settings
) -> None:
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        first = await kit.connected(gateway, key)
        await first.hear(Desired)
        deafen(first.connection)
        second = await kit.connected(gateway, key)
        assert not second.welcome.conflict
        await second.say(kit.status())
        await kit.until(lambda: kit.node_row(database, key.node_id).booted_slot == "A", "the new one is heard")
        assert kit.node_row(database, key.node_id).conflict is None
        assert 'twinroot_gateway_closes_total{code="replaced"} 1.0' in (await kit.http_get(gateway, "/metrics"))[1]
        first.connection.transport.abort()
        await second.leave()

    kit.run(scenario())


def test_a_machine_that_vanished_comes_back_to_another_gateway(
    start: Start, database: Database, settings: Settings
) -> None:
    first_at, second_at = start(), start()
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        first = await kit.connected(first_at, key)
        await first.hear(Desired)
        deafen(first.connection)
        second = await kit.connected(second_at, key)
        assert not second.welcome.conflict
        await second.say(kit.status())
        await kit.until(lambda: kit.node_row(database, key.node_id).booted_slot == "A", "the new one is heard")
        first.connection.transport.abort()
        await second.leave()

    kit.run(scenario())


def test_a_clean_return_is_no_conflict(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        for _ in range(5):
            node = await kit.connected(gateway, key)
            assert not node.welcome.conflict
            node.connection.transport.abort()
        assert kit.node_row(database, key.node_id).conflict is None

    kit.run(scenario())


def test_held_ends_are_bounded(start: Start, database: Database, settings: Settings) -> None:
    gateway = start(held_ends=2)
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        held = [await kit.connected(gateway, key, machine_id=f"clone-{number}") for number in range(2)]
        connection = await kit.dial(gateway)
        await kit.greet(connection, kit.end_of(key), key, machine_id="clone-3")
        assert await kit.close_code(connection) == CloseCode.TOO_MANY
        for node in held:
            await node.leave()

    kit.run(scenario())


def test_a_late_question_about_a_former_connection_is_no_conflict(
    gateway: GatewayThread, database: Database, settings: Settings
) -> None:
    """Nudges between processes come when they come: by then the node may have come over, and is no other machine."""
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        for seq in range(1, 6):
            database.nudges.publish({f"probe:{key.node_id}"})
            await node.say(kit.event(seq))
            assert (await node.hear(Ack)).seq == seq
        assert kit.node_row(database, key.node_id).conflict is None
        await node.leave()

    kit.run(scenario())
