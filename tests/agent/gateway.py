"""A small gateway of its own on loopback, and the waiting that tests need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from agent.state import Identity
from wire import identity
from wire.close import CloseCode, WireError
from wire.conversation import ServerEnd
from wire.messages import (
    MAX_FRAME_BYTES,
    PROTOCOL,
    FromServer,
    Hello,
    Join,
    Joined,
    JoinHello,
    Proof,
    Refused,
    Welcome,
)

T = TypeVar("T")
LIMIT_S = 10.0


async def until(condition: Callable[[], T], limit_s: float = LIMIT_S) -> T:
    """The first true answer of `condition`; AssertionError after the limit."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit_s
    while not (found := condition()):
        assert loop.time() < end, "the condition did not come true in time"
        await asyncio.sleep(0.005)
    return found


class Gateway:
    """Fields that tests set: refuse (code, text, close code), conflict, heartbeat_s, tokens, swallow_joined."""

    def __init__(self) -> None:
        self.private_key = identity.new_private_key()
        self.public_key = identity.public_key(self.private_key)
        self.newer: dict[str, str] = {}
        """Fingerprint -> private key, of keys that were made later."""
        self.node_keys: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        """Token -> public key that used it."""
        self.refuse: tuple[str, str, int] | None = None
        self.conflict = False
        self.heartbeat_s = 30.0
        self.swallow_joined = False
        """The connection breaks after the join was committed."""
        self.heard: list[Any] = []
        self.hellos: list[Hello] = []
        self.connections = 0
        self._server: Server | None = None
        self._open: list[tuple[ServerConnection, ServerEnd]] = []

    @property
    def url(self) -> str:
        """Where nobody listens, for a gateway that is not running."""
        if self._server is None:
            return "ws://127.0.0.1:1/agent"
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"ws://127.0.0.1:{port}/agent"

    @property
    def fingerprint(self) -> str:
        return identity.fingerprint(self.public_key)

    def identity(self, node_id: str = "node-1") -> Identity:
        """Of a node that has joined here."""
        private = identity.new_private_key()
        self.node_keys[node_id] = identity.public_key(private)
        return Identity(
            node_id=node_id,
            private_key=private,
            server_key=self.public_key,
            url=self.url,
            fingerprint=self.fingerprint,
            machine_id="m",
            hardware="h",
            name=node_id,
        )

    @property
    def online(self) -> bool:
        return bool(self._open)

    async def say(self, *messages: FromServer) -> None:
        """To the node that is connected."""
        await until(lambda: self._open)
        socket, end = self._open[-1]
        for message in messages:
            for frame in end.send(message):
                await socket.send(frame)

    async def say_raw(self, frame: str) -> None:
        """A frame as another version of a gateway would send it."""
        await until(lambda: self._open)
        await self._open[-1][0].send(frame)

    def make_key(self) -> str:
        """A newer key of the server, public."""
        private = identity.new_private_key()
        public = identity.public_key(private)
        self.newer[identity.fingerprint(public)] = private
        return public

    async def name_key(self, key: str, private_key: str = "") -> None:
        """Name `key` to the node, signed by the first key unless another is given."""
        await until(lambda: self._open)
        named = self._open[-1][1].next_server_key(private_key or self.private_key, key)
        await self.say(self.welcome(next_server_key=named))

    async def drop(self, code: int = 1011, reason: str = "") -> None:
        """Close the connection of the node."""
        await until(lambda: self._open)
        socket, _ = self._open[-1]
        await socket.close(code, reason)

    def got(self, kind: type[T]) -> list[T]:
        return [message for message in self.heard if isinstance(message, kind)]

    async def _serve(self, socket: ServerConnection) -> None:
        self.connections += 1
        end = ServerEnd(self.private_key, "test")
        try:
            await self._converse(socket, end)
        except WireError as error:
            await socket.close(int(error.code), error.detail)
        except ConnectionClosed:
            pass  # the node is gone
        finally:
            self._open = [entry for entry in self._open if entry[1] is not end]

    async def _converse(self, socket: ServerConnection, end: ServerEnd) -> None:
        async for frame in socket:
            message = end.receive(frame)
            match message:
                case Hello(node_id=node_id):
                    self.hellos.append(message)
                    if node_id not in self.node_keys:
                        refused = Refused(code="unknown", text="no such node")
                        await self._refuse(socket, end, refused, CloseCode.UNKNOWN_NODE)
                        return
                    private_key = self.newer.get(message.server_fingerprint or "")
                    await self._send(socket, end.challenge(self.node_keys[node_id], private_key))
                case JoinHello():
                    await self._send(socket, end.challenge(None))
                case Proof():
                    if self.refuse is not None:
                        code, text, close = self.refuse
                        await self._refuse(socket, end, Refused(code=code, text=text), close)
                        return
                    await self._send(socket, end.welcome(self.welcome(end.node_id or "")))
                    self._open.append((socket, end))
                case Join():
                    await self._join(socket, end, message)
                    return
                case None:
                    pass
                case _:
                    self.heard.append(message)

    def welcome(self, node_id: str = "node-1", **changes: Any) -> Welcome:
        fields: dict[str, Any] = {
            "node_id": node_id,
            "name": "n",
            "admission": "admitted",
            "gateway": "g",
            "heartbeat_s": self.heartbeat_s,
            "minor": 1,
            "epoch": 1,
            "conflict": self.conflict,
        }
        return Welcome(**(fields | changes))

    async def _join(self, socket: ServerConnection, end: ServerEnd, message: Join) -> None:
        self.heard.append(message)
        used_by = self.tokens.get(message.token)
        if used_by is None or used_by not in ("", message.public_key):
            refused = Refused(code="token", text="the token is not valid")
            await self._refuse(socket, end, refused, CloseCode.JOIN_REFUSED)
            return
        self.tokens[message.token] = message.public_key
        node_id = "node-" + identity.key_id(message.public_key)
        self.node_keys[node_id] = message.public_key
        if self.swallow_joined:
            socket.transport.abort()
            return
        await self._send(socket, end.joined(Joined(node_id=node_id, admission="admitted")))

    async def _refuse(self, socket: ServerConnection, end: ServerEnd, refused: Refused, code: int) -> None:
        await self._send(socket, end.refused(refused))
        await socket.close(int(code), refused.text)

    async def _send(self, socket: ServerConnection, frames: list[str]) -> None:
        for frame in frames:
            await socket.send(frame)


@asynccontextmanager
async def running() -> AsyncIterator[Gateway]:
    """A gateway that listens on a free port of loopback."""
    gateway = Gateway()
    async with serve(
        gateway._serve,
        "127.0.0.1",
        0,
        subprotocols=[PROTOCOL],
        compression=None,
        max_size=MAX_FRAME_BYTES,
        close_timeout=1.0,
    ) as server:
        gateway._server = server
        yield gateway


def with_url(known: Identity, url: str) -> Identity:
    return msgspec.structs.replace(known, url=url)
