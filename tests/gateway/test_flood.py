"""Who talks too much, proved or not, is bounded by itself; nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from app.config import Settings
from app.gateway.allowance import Allowance
from app.gateway.limits import HISTORY_COST_BYTES, OPENING_BYTES
from app.gateway.server import GatewayThread
from app.store import joins, schema
from app.store.database import Database
from tests.gateway import kit
from tests.gateway.conftest import Start
from tests.server_kit import count_rows
from wire.close import CloseCode
from wire.conversation import JoinEnd
from wire.identity import fingerprint, new_private_key
from wire.messages import Ack, Check, CheckState, OsFacts, Refused


def test_an_allowance_is_a_burst_and_then_a_rate() -> None:
    allowance = Allowance(burst=100, per_s=10, now=0)
    allowance.spend(100)
    assert allowance.wait_s(0) <= 0
    allowance.spend(50)
    assert allowance.wait_s(0) == pytest.approx(5)
    assert allowance.wait_s(4) == pytest.approx(1)
    assert allowance.wait_s(1000) <= 0
    allowance.spend(120)
    assert allowance.wait_s(1000) == pytest.approx(2), "what was not used before the burst is not saved up"


def test_a_node_that_floods_its_history_is_slowed_down_alone(
    start: Start, database: Database, settings: Settings
) -> None:
    burst = 20
    gateway = start(history_burst_bytes=burst * HISTORY_COST_BYTES, history_bytes_per_s=HISTORY_COST_BYTES)
    fast, calm = kit.new_node(database, settings), kit.new_node(database, settings)

    async def scenario() -> None:
        first, second = await kit.gathered(kit.connected(gateway, fast), kit.connected(gateway, calm))
        began = asyncio.get_running_loop().time()
        await first.say(*(kit.event(seq) for seq in range(1, burst + 4)))
        await second.say(kit.event(1), kit.status())
        await second.hear(Ack)
        assert asyncio.get_running_loop().time() - began < kit.DEADLINE_S, "the other is heard at once"
        await first.hear(Ack, lambda ack: ack.seq == burst + 3)
        assert asyncio.get_running_loop().time() - began > 1.5, "three events above the burst, one a second"
        await kit.gathered(first.leave(), second.leave())

    kit.run(scenario())


def test_large_events_cost_what_they_are(start: Start, database: Database, settings: Settings) -> None:
    gateway = start(history_burst_bytes=100_000, history_bytes_per_s=1)
    key = kit.new_node(database, settings)
    checks = [Check(name=str(number), state=CheckState.FAILED, output="x" * 8000) for number in range(50)]

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        await node.say(kit.event(1, checks=checks), kit.event(2))  # the first comes in parts
        assert (await node.hear(Ack)).seq == 1
        assert [row.seq for row in kit.event_rows(database, key.node_id, "check-failed")] == [1]
        await node.connection.close()

    kit.run(scenario())


def test_a_stop_does_not_wait_for_a_node_that_floods(start: Start, database: Database, settings: Settings) -> None:
    gateway = start(history_burst_bytes=1, history_bytes_per_s=0.001)
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        await node.say(kit.event(1), kit.event(2))
        await node.hear(Ack)
        async with asyncio.timeout(kit.DEADLINE_S):
            stopped = asyncio.to_thread(gateway.stop)
            assert (await kit.gathered(stopped, node.closed()))[1] == CloseCode.RESTART

    kit.run(scenario())


def test_who_has_not_proved_itself_sends_small_frames_only(
    gateway: GatewayThread, database: Database, settings: Settings
) -> None:
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        stranger = await kit.dial(gateway)
        await stranger.send("x" * (OPENING_BYTES + 1))
        assert await kit.close_code(stranger) == CloseCode.TOO_BIG
        node = await kit.connected(gateway, key)
        containers = [kit.container(f"c{number}", image="r/" + "x" * 900) for number in range(200)]
        placement = kit.Placement(known=True, engine="podman", containers=containers)
        await node.say(kit.status(placement=placement))
        await kit.until(lambda: len(kit.container_rows(database, key.node_id)) == 200, "all containers are stored")
        await node.leave()

    kit.run(scenario())


def _joins(count: int, gateway: GatewayThread, server_key: str) -> Iterable[asyncio.Task[None]]:
    async def attempt(number: int) -> None:
        end = JoinEnd(new_private_key(), fingerprint(server_key))
        connection = await kit.dial(gateway)
        await kit.send_all(connection, end.hello(agent_version="0"))
        end.receive(await connection.recv())
        frames = end.join(f"guess-{number}", "x", "m", "h", OsFacts(id="demo"), {})
        await kit.send_all(connection, frames)
        message, _ = end.receive(await connection.recv())
        assert isinstance(message, Refused) and message.code == "unknown-token"
        await connection.close()

    return [asyncio.create_task(attempt(number)) for number in range(count)]


def test_many_joins_with_bad_tokens_leave_a_bounded_list(
    gateway: GatewayThread, database: Database, settings: Settings
) -> None:
    """The list at its bound before: it is not longer after, and its newest are the new ones."""
    server_key = kit.new_node(database, settings).server_key
    with database.write() as change:
        old = {"at": 0.0, "remote": "r", "name": "n", "code": "unknown-token", "text": "t"}
        change.conn.execute(schema.join_attempts.insert(), [old] * joins.KEPT_ATTEMPTS)

    async def scenario() -> None:
        async with asyncio.timeout(kit.DEADLINE_S * 3):
            await asyncio.gather(*_joins(40, gateway, server_key))

    kit.run(scenario())
    assert count_rows(database, schema.join_attempts) == joins.KEPT_ATTEMPTS
    with database.read() as conn:
        assert all(each.at > 0 for each in joins.attempts(conn, 40))
