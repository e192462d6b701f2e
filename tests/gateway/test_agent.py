"""A real agent at a real gateway: heartbeats, close codes, another welcome."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from agent.link import Link, LinkState
from agent.runner import Runner
from agent.state import Identity
from app.config import Settings
from app.gateway.server import GatewayThread
from app.services import nodes
from app.store.database import Database
from tests.agent.machine import Machine, agent_on
from tests.gateway import kit
from tests.gateway.conftest import Start
from tests.server_kit import OPERATOR
from wire.identity import fingerprint


def identity_of(key: kit.Key, gateway: GatewayThread) -> Identity:
    return Identity(
        private_key=key.private_key,
        url=kit.url_of(gateway),
        fingerprint=fingerprint(key.server_key),
        machine_id=key.machine_id,
        hardware=key.hardware,
        node_id=key.node_id,
        server_key=key.server_key,
        name="attic",
    )


@asynccontextmanager
async def agent(folder: Path, key: kit.Key, gateway: GatewayThread) -> AsyncIterator[Runner]:
    """A real agent that hurries back."""
    link = partial(Link, chance=lambda: 0.01)
    async with agent_on(Machine(folder), identity_of(key, gateway), link=link) as runner:
        yield runner


async def shown(runner: Runner, condition: Callable[[Link], bool]) -> Link:
    """The agent's link, once the condition holds for it."""
    async with asyncio.timeout(kit.DEADLINE_S):
        while runner._link is None or not condition(runner._link):
            await asyncio.sleep(0.01)
    return runner._link


async def heard(gateway: GatewayThread) -> float:
    """How many messages the gateway has heard."""
    _, page = await kit.http_get(gateway, "/metrics")
    found = re.search(r"^twinroot_gateway_messages_total (\S+)", page, re.MULTILINE)
    assert found
    return float(found[1])


def test_an_agent_with_nothing_to_say_keeps_its_connection(
    start: Start, database: Database, settings: Settings, tmp_path: Path
) -> None:
    """Its own clock and checks nudge the link all the time; the gateway hears only messages."""
    gateway = start(heartbeat_s=0.5, sweep_s=0.05)
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        async with agent(tmp_path, key, gateway):
            await kit.until(lambda: kit.node_row(database, key.node_id).version, "the status is stored")
            before = kit.node_row(database, key.node_id).connection_id
            wanted = await heard(gateway) + 4  # an agent's heartbeat a second: twice what the gateway waits for
            async with asyncio.timeout(kit.DEADLINE_S):
                while await heard(gateway) < wanted:
                    await asyncio.sleep(0.05)
            assert kit.node_row(database, key.node_id).connection_id == before

    kit.run(scenario())


def test_an_agent_comes_back_after_a_drain(
    start: Start, database: Database, settings: Settings, tmp_path: Path
) -> None:
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        first = start()
        async with agent(tmp_path, key, first) as runner:
            await shown(runner, lambda link: link.standing.state is LinkState.OPEN)
            before = await kit.until(lambda: kit.node_row(database, key.node_id).connection_id, "connected")
            await asyncio.to_thread(first.stop)
            again = start(of=replace(settings, gateway=first.address))
            assert again.address == first.address
            await kit.until(lambda: kit.node_row(database, key.node_id).connection_id not in (None, before), "back")
            assert not kit.event_rows(database, key.node_id, "offline")

    kit.run(scenario())


def test_a_retired_agent_says_so_and_does_not_hurry_back(
    gateway: GatewayThread, database: Database, settings: Settings, tmp_path: Path
) -> None:
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        async with agent(tmp_path, key, gateway) as runner:
            await kit.until(lambda: kit.node_row(database, key.node_id).version, "the status is stored")
            await asyncio.to_thread(nodes.retire, database, OPERATOR, key.node_id, "sold", time.time())
            link = await shown(runner, lambda link: link.standing.state is LinkState.WAITING)
            assert "refused (retired)" in link.standing.text
            assert link._tries == 1, "the next try is in half an hour"

    kit.run(scenario())


@pytest.mark.parametrize("same_machine", [True, False])
def test_a_conflict_reaches_the_connected_agent_and_ends_with_a_drainlike_close(
    start: Start, database: Database, settings: Settings, tmp_path: Path, same_machine: bool
) -> None:
    gateway = start(probe_s=8.0)
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        async with agent(tmp_path, key, gateway) as runner:
            await kit.until(lambda: kit.node_row(database, key.node_id).version, "the status is stored")
            clone = key if same_machine else replace(key, machine_id="another")
            second = await kit.connected(gateway, clone)
            assert second.welcome.conflict
            await shown(runner, lambda link: link.standing.conflict)
            await second.leave()
            await asyncio.to_thread(
                nodes.settle_conflict, database, OPERATOR, key.node_id, "the copy is gone", time.time()
            )
            await shown(runner, lambda link: link.standing.state is LinkState.OPEN and not link.standing.conflict)
            await kit.until(lambda: kit.node_row(database, key.node_id).connection_id, "speaks for the node again")

    kit.run(scenario())
