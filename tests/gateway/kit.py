"""A node's end over a real websocket, and waiting for conditions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Row, select
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.config import Settings
from app.gateway.server import GatewayThread
from app.services.server_keys import current_key
from app.store import schema
from app.store.database import Database
from tests.server_kit import NOW, add_node, digest_of
from wire.conversation import NodeEnd
from wire.identity import new_private_key, public_key
from wire.messages import (
    PROTOCOL,
    Activity,
    AgentFacts,
    Boot,
    Container,
    EvidenceClass,
    Facts,
    FromNode,
    FromServer,
    Health,
    HealthState,
    Message,
    NodeEvent,
    OsFacts,
    Placement,
    Slot,
    Status,
    Welcome,
)

DEADLINE_S = 15.0

T = TypeVar("T")
Kind = TypeVar("Kind", bound=Message)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine; nothing in a test may take this long."""

    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(bounded())


async def until(condition: Callable[[], T], what: str) -> T:
    """The first true value of `condition`, asked again and again on a thread."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while True:
        value = await asyncio.to_thread(condition)
        if value:
            return value
        if loop.time() > deadline:
            raise AssertionError(f"never happened: {what}")
        await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Key:
    """A node of the database with its private key."""

    node_id: str
    private_key: str
    server_key: str
    machine_id: str
    hardware: str


def new_node(db: Database, settings: Settings, **given: Any) -> Key:
    """A node that joined and never connected."""
    private = new_private_key()
    values = {"connection": "never", "connected_at": None, "last_seen_at": None, "booted_slot": "", "version": ""}
    with db.write() as change:
        node_id = add_node(change.conn, **(values | {"public_key": public_key(private)} | given))
        row = change.conn.execute(select(schema.nodes).where(schema.nodes.c.id == node_id)).one()
    server_key = current_key(db, settings, NOW).public_key
    return Key(node_id, private, server_key, row.machine_id, row.hardware)


def node_row(db: Database, node_id: str) -> Row[Any]:
    with db.read() as conn:
        return conn.execute(select(schema.nodes).where(schema.nodes.c.id == node_id)).one()


def event_rows(db: Database, node_id: str, kind: str | None = None) -> list[Row[Any]]:
    query = select(schema.events).where(schema.events.c.node_id == node_id).order_by(schema.events.c.id)
    with db.read() as conn:
        return [row for row in conn.execute(query) if kind in (None, row.kind)]


def container_rows(db: Database, node_id: str) -> list[Row[Any]]:
    query = select(schema.containers).where(schema.containers.c.node_id == node_id)
    with db.read() as conn:
        return list(conn.execute(query.order_by(schema.containers.c.container_id)))


class Node:
    """An open connection of a node."""

    def __init__(self, connection: ClientConnection, end: NodeEnd, welcome: Welcome) -> None:
        self.connection = connection
        self.end = end
        self.welcome = welcome
        self.heard: list[FromServer] = []

    async def say(self, *messages: FromNode) -> None:
        for message in messages:
            for frame in self.end.send(message):
                await self.connection.send(frame)

    async def hear(self, kind: type[Kind], accept: Callable[[Kind], bool] = lambda _: True) -> Kind:
        """The next message of the kind that is accepted; all that is heard is kept in `heard`."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message, _ = self.end.receive(await self.connection.recv())
                if message is not None:
                    self.heard.append(message)
                if isinstance(message, kind) and accept(message):
                    return message

    async def closed(self) -> int:
        """The close code with which the gateway ends this connection."""
        return await close_code(self.connection)

    async def leave(self) -> None:
        await self.connection.close()


async def close_code(connection: ClientConnection) -> int:
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                await connection.recv()
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, "closed without a close frame"
        return closed.rcvd.code


def url_of(gateway: GatewayThread, path: str = "/agent") -> str:
    assert gateway.address is not None
    return f"ws://{gateway.address}{path}"


async def dial(gateway: GatewayThread) -> ClientConnection:
    """A bare websocket that has said nothing."""
    return await connect(
        url_of(gateway), subprotocols=[PROTOCOL], compression=None, ping_interval=None, max_size=None, proxy=None
    )


def end_of(key: Key) -> NodeEnd:
    return NodeEnd(key.node_id, key.private_key, key.server_key)


def hello_of(end: NodeEnd, key: Key, **given: str) -> list[str]:
    fields = {
        "agent_version": "0.1.0",
        "machine_id": key.machine_id,
        "hardware": key.hardware,
        "boot_id": "boot-a",
    }
    return end.hello(**(fields | given))


async def send_all(connection: ClientConnection, frames: list[str]) -> None:
    for frame in frames:
        await connection.send(frame)


async def greet(connection: ClientConnection, end: NodeEnd, key: Key, **given: str) -> None:
    """Hello, challenge, proof; the welcome is still to be read."""
    await send_all(connection, hello_of(end, key, **given))
    _, answer = end.receive(await connection.recv())
    await send_all(connection, answer)


async def connected(gateway: GatewayThread, key: Key, **given: str) -> Node:
    """A node that was welcomed."""
    connection, end = await dial(gateway), end_of(key)
    async with asyncio.timeout(DEADLINE_S):
        await greet(connection, end, key, **given)
        welcome, _ = end.receive(await connection.recv())
    assert isinstance(welcome, Welcome), welcome
    return Node(connection, end, welcome)


def facts(boot_id: str = "boot-a", **given: str) -> Facts:
    os = {"id": "demo", "name": "Demo OS", "version": "1.0", "kernel": "6.1", "arch": "amd64", "driver": "files"}
    return Facts(
        agent=AgentFacts(version="0.1.0"),
        os=OsFacts(**(os | given)),
        boot=Boot(id=boot_id, at=NOW),
        evidence=EvidenceClass.AGENT_WITH_PLACEMENT,
        hostname="host",
    )


def slots(version: str = "1.0") -> list[Slot]:
    return [
        Slot(name="A", booted=True, next_boot=True, version=version, digest=digest_of(version), good=True),
        Slot(name="B", booted=False, next_boot=False),
    ]


def container(name: str, **given: Any) -> Container:
    values = {"id": f"id-{name}", "name": name, "image": f"registry.example/{name}:1", "service": name}
    return Container(**(values | given))


def status(**given: Any) -> Status:
    """A whole one."""
    sections: dict[str, Any] = {
        "facts": facts(),
        "slots": slots(),
        "health": Health(state=HealthState.HEALTHY),
        "placement": Placement(known=True, engine="podman", containers=[container("web")]),
        "activity": Activity(),
    }
    return Status(whole=True, **(sections | given))


def event(seq: int, kind: str = "check-failed", text: str = "disk is full", **given: Any) -> NodeEvent:
    return NodeEvent(seq=seq, at=NOW, kind=kind, text=text, **given)


async def gathered(*work: Awaitable[T]) -> list[T]:
    return list(await asyncio.gather(*work))


async def http_get(gateway: GatewayThread, path: str) -> tuple[int, str]:
    """Status and body of a plain HTTP request."""
    assert gateway.address is not None
    reader, writer = await asyncio.open_connection(gateway.address.host, gateway.address.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n".encode())
    async with asyncio.timeout(DEADLINE_S):
        answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def answers(gateway: GatewayThread, path: str, status: int) -> None:
    """Wait until a path answers with this status."""
    async with asyncio.timeout(DEADLINE_S):
        while (await http_get(gateway, path))[0] != status:
            await asyncio.sleep(0.02)
