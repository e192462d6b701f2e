"""Another key of the server, from the rotation to the retirement of the old one, with a real gateway and agent."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from agent.join import Request, join
from agent.link import Link
from agent.state import Identity, StateFolder
from app.config import Settings
from app.core.errors import NotPossible
from app.gateway.server import GatewayThread
from app.services import joining
from app.services.server_keys import ServerKey, current_key, retire, rotate
from app.store import join_tokens, joins
from app.store.database import Database
from tests.agent.gateway import with_url
from tests.agent.machine import Machine, agent_on
from tests.gateway import kit
from tests.gateway.conftest import Start
from tests.server_kit import OPERATOR
from wire.close import CloseCode
from wire.conversation import JoinEnd
from wire.identity import new_private_key
from wire.messages import Joined, OsFacts, Refused, Welcome


def rotated(database: Database, settings: Settings) -> tuple[ServerKey, ServerKey]:
    """The key before and the key after."""
    old = current_key(database, settings, time.time())
    return old, rotate(database, settings, OPERATOR, reason="test", now=time.time())


def retired(database: Database, key: ServerKey, *, force: bool = False) -> list[str]:
    return retire(database, OPERATOR, key.fingerprint, force=force, reason="test", now=time.time())


def token_of(database: Database) -> tuple[str, str]:
    now = time.time()
    return joining.create_token(database, OPERATOR, max_uses=2, expires_at=now + 600, reason="test", now=now)


async def joined_agent(database: Database, gateway: GatewayThread, folder: Path, key: ServerKey) -> Identity:
    """A machine that joined with a command that names `key`; its identity as it is on disk."""
    _, token = token_of(database)
    state = StateFolder(folder)
    state.open()
    request = Request(
        url=kit.url_of(gateway),
        token=token,
        fingerprint=key.fingerprint,
        name="attic",
        labels={},
        machine_id="m",
        hardware="h",
        os=OsFacts(id="demo", arch="amd64"),
        agent_version="1",
    )
    await join(state, request, again=False)
    identity = state.read_identity()
    state.close()
    assert identity is not None
    return identity


def test_an_agent_comes_over_to_the_new_key_and_the_old_one_is_retired(
    gateway: GatewayThread, start: Start, database: Database, settings: Settings, tmp_path: Path
) -> None:
    machine = Machine(tmp_path)
    state = StateFolder(machine.root / "state")

    async def scenario() -> None:
        old = current_key(database, settings, time.time())
        identity = await joined_agent(database, gateway, state.folder, old)
        node_id = identity.node_id
        assert kit.node_row(database, node_id).server_key == identity.server_key == old.public_key
        async with agent_on(machine, identity, link=partial(Link, come_back_s=0.1)):
            await kit.until(lambda: kit.node_row(database, node_id).connection == "online", "online")
            first_id = kit.node_row(database, node_id).gateway_id
            _, new = rotated(database, settings)
            with pytest.raises(NotPossible, match="attic"):
                retired(database, old)
            await kit.until(lambda: kit.node_row(database, node_id).server_key == new.public_key, "under the new key")
            await kit.until(lambda: kit.event_rows(database, node_id, "server-key-changed"), "it is in the history")
            assert kit.event_rows(database, node_id, "offline") == []
        stored = state.read_identity()
        assert stored is not None
        assert (stored.server_key, stored.replaced_server_key) == (new.public_key, old.public_key)
        assert retired(database, old) == []
        async with agent_on(machine, stored):
            await kit.until(lambda: len(kit.event_rows(database, node_id, "boot")) >= 1, "heard")
        again = start()
        async with agent_on(machine, with_url(stored, kit.url_of(again))):
            await kit.until(lambda: kit.node_row(database, node_id).gateway_id not in (None, first_id), "on the other")

    kit.run(scenario())


def test_a_connected_node_and_one_that_comes_later_hear_of_the_newest_key(
    gateway: GatewayThread, database: Database, settings: Settings
) -> None:
    here, later = (kit.new_node(database, settings) for _ in range(2))

    async def scenario() -> None:
        node = await kit.connected(gateway, here)
        assert node.welcome.next_server_key is None
        rotated(database, settings)
        newest = rotated(database, settings)[1]
        told = await node.hear(
            Welcome,
            lambda welcome: welcome.next_server_key is not None and welcome.next_server_key.key == newest.public_key,
        )
        assert told.next_server_key is not None
        assert node.end.is_named(told.next_server_key)
        other = await kit.connected(gateway, later)
        assert other.welcome.next_server_key is not None
        assert other.welcome.next_server_key.key == newest.public_key, "the one between is skipped"
        assert other.end.is_named(other.welcome.next_server_key)
        under_it = await kit.connected(gateway, replace(kit.new_node(database, settings), server_key=newest.public_key))
        assert under_it.welcome.next_server_key is None
        for each in (node, other, under_it):
            await each.leave()

    kit.run(scenario())


def test_a_gateway_that_has_not_heard_of_the_newest_key_yet_looks_for_it(
    start: Start, database: Database, settings: Settings
) -> None:
    gateway = start(sweep_s=600.0)
    _, new = rotated(database, settings)

    async def scenario() -> None:
        node = await kit.connected(gateway, replace(kit.new_node(database, settings), server_key=new.public_key))
        await node.leave()

    kit.run(scenario())


def test_a_node_that_pins_a_retired_key_is_told_so(start: Start, database: Database, settings: Settings) -> None:
    key = kit.new_node(database, settings, name="cellar")
    old, _ = rotated(database, settings)

    async def scenario() -> None:
        node = await kit.connected(start(), key)
        await node.leave()
        assert retired(database, old, force=True) == ["cellar"]
        connection, end = await kit.dial(start()), kit.end_of(key)
        await kit.send_all(connection, kit.hello_of(end, key))
        message, _ = end.receive(await connection.recv())
        assert isinstance(message, Refused)
        assert (message.code, await kit.close_code(connection)) == ("server-key", CloseCode.BAD_PROOF)

    kit.run(scenario())


@pytest.mark.parametrize("which", ["old", "new", "retired"])
def test_a_join_under_every_key_that_is_not_retired(
    start: Start, database: Database, settings: Settings, which: str
) -> None:
    old, new = rotated(database, settings)
    if which == "retired":
        retired(database, old)
    token_id, token = token_of(database)
    named = new if which == "new" else old
    gateway = start()

    async def scenario() -> None:
        connection, end = await kit.dial(gateway), JoinEnd(new_private_key(), named.fingerprint)
        await kit.send_all(connection, end.hello(agent_version="0.1.0"))
        message, _ = end.receive(await connection.recv())
        if which == "retired":
            assert isinstance(message, Refused)
            assert (message.code, await kit.close_code(connection)) == ("server-key", CloseCode.JOIN_REFUSED)
            return
        await kit.send_all(connection, end.join(token, "host-j", "m", "h", OsFacts(id="demo", arch="amd64"), {}))
        answer, _ = end.receive(await connection.recv())
        assert isinstance(answer, Joined)
        assert kit.node_row(database, answer.node_id).server_key == end.server_key == named.public_key
        await connection.close()

    kit.run(scenario())
    with database.read() as conn:
        attempt, spent = joins.attempts(conn)[0], join_tokens.get(conn, token_id)
    assert attempt.code == ("server-key" if which == "retired" else joins.JOINED)
    assert spent is not None
    assert spent.uses == (0 if which == "retired" else 1)


def test_an_older_agent_that_names_no_key_meets_the_oldest_one(
    start: Start, database: Database, settings: Settings
) -> None:
    key = kit.new_node(database, settings)
    old, new = rotated(database, settings)
    gateway = start()

    async def scenario() -> None:
        connection, end = await kit.dial(gateway), kit.end_of(key)
        [frame] = kit.hello_of(end, key)
        without = frame.replace(f',"server_fingerprint":"{old.fingerprint}"', "")
        assert without != frame
        await connection.send(without)
        _, answer = end.receive(await connection.recv())
        await kit.send_all(connection, answer)
        welcome, _ = end.receive(await connection.recv())
        assert isinstance(welcome, Welcome)
        assert welcome.next_server_key is not None
        assert welcome.next_server_key.key == new.public_key
        await connection.close()

    kit.run(scenario())
