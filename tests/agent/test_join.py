"""Joining against a gateway on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent.errors import JoinError
from agent.join import Request, join
from agent.phases.model import Booted, State
from agent.state import StateFolder
from tests.agent.gateway import Gateway, running
from wire import identity
from wire.messages import Join, Order, OsFacts

Story = Callable[[Gateway, StateFolder], Coroutine[Any, Any, None]]


def play(folder: Path, story: Story) -> None:
    async def whole() -> None:
        opened = StateFolder(folder)
        opened.open()
        try:
            async with running() as gateway:
                gateway.tokens["token"] = ""
                await story(gateway, opened)
        finally:
            opened.close()

    asyncio.run(whole())


def request(gateway: Gateway, **changes: Any) -> Request:
    fields: dict[str, Any] = {
        "url": gateway.url,
        "token": "token",
        "fingerprint": gateway.fingerprint,
        "name": "attic",
        "labels": {"site": "attic"},
        "machine_id": "m",
        "hardware": "h",
        "os": OsFacts(id="demo", arch="amd64"),
        "agent_version": "1",
        **changes,
    }
    return Request(**fields)


def test_a_join(tmp_path: Path) -> None:
    async def story(gateway: Gateway, folder: StateFolder) -> None:
        joined = await join(folder, request(gateway), again=False)
        who = folder.read_identity()
        assert who is not None and who.node_id == joined.node_id and who.server_key == gateway.public_key
        assert gateway.node_keys[who.node_id] == identity.public_key(who.private_key)
        assert folder.read_state() == State() and not folder.joining_file.exists()
        assert gateway.got(Join)[0].labels == {"site": "attic"}

    play(tmp_path, story)


def test_a_joined_machine_refuses_to_join_unless_again(tmp_path: Path) -> None:
    async def story(gateway: Gateway, folder: StateFolder) -> None:
        first = await join(folder, request(gateway), again=False)
        with pytest.raises(JoinError, match="--again"):
            await join(folder, request(gateway), again=False)
        folder.write_state(State(newest=Order(9, 9), booted=Booted(slot="a", confirmed=True)))
        gateway.tokens["second"] = ""
        again = await join(folder, request(gateway, token="second"), again=True)
        assert again.node_id != first.node_id
        state = folder.read_state()
        assert state is not None and state.newest is None and state.booted is not None

    play(tmp_path, story)


def test_a_damaged_state_is_put_aside_by_joining_again(tmp_path: Path) -> None:
    async def story(gateway: Gateway, folder: StateFolder) -> None:
        folder.state_file.write_text("{")
        await join(folder, request(gateway), again=True)
        assert folder.read_state() == State()
        assert (folder.folder / "state.json.damaged").read_text() == "{"

    play(tmp_path, story)


def test_a_wrong_fingerprint_spends_nothing(tmp_path: Path) -> None:
    async def story(gateway: Gateway, folder: StateFolder) -> None:
        other = identity.fingerprint(identity.public_key(identity.new_private_key()))
        with pytest.raises(JoinError, match="the token was not spent"):
            await join(folder, request(gateway, fingerprint=other), again=False)
        assert gateway.got(Join) == [] and folder.read_identity() is None

    play(tmp_path, story)


def test_no_gateway_spends_nothing(tmp_path: Path) -> None:
    async def story(gateway: Gateway, folder: StateFolder) -> None:
        with pytest.raises(JoinError, match=r"cannot be reached: Connection refused; the token was not spent"):
            await join(folder, request(gateway, url="ws://127.0.0.1:9/agent"), again=False)

    play(tmp_path, story)


def test_a_refusal_is_worded(tmp_path: Path) -> None:
    async def story(gateway: Gateway, folder: StateFolder) -> None:
        with pytest.raises(JoinError, match="refused: the token is not valid"):
            await join(folder, request(gateway, token="nonsense"), again=False)
        assert folder.read_identity() is None

    play(tmp_path, story)


def test_a_refused_join_again_leaves_the_old_membership(tmp_path: Path) -> None:
    async def story(gateway: Gateway, folder: StateFolder) -> None:
        await join(folder, request(gateway), again=False)
        before = folder.read_identity()
        with pytest.raises(JoinError):
            await join(folder, request(gateway, token="nonsense"), again=True)
        assert folder.read_identity() == before

    play(tmp_path, story)


def test_a_join_that_was_cut_off_is_repeated_as_the_same(tmp_path: Path) -> None:
    async def story(gateway: Gateway, folder: StateFolder) -> None:
        gateway.swallow_joined = True
        with pytest.raises(JoinError, match="repeat the same command"):
            await join(folder, request(gateway), again=False)
        gateway.swallow_joined = False
        joined = await join(folder, request(gateway), again=False)
        assert list(gateway.node_keys) == [joined.node_id]

    play(tmp_path, story)
