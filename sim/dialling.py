"""Real connections of simulated nodes: the join, and the opening of a node that has joined, as an agent does them."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import resource
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from agent.link import words
from sim.node import SimNode
from sim.senses import AGENT_VERSION, os_facts
from wire.close import WireError
from wire.codec import decode_from_server, encode
from wire.conversation import JoinEnd, NodeEnd
from wire.identity import fingerprint, new_nonce, new_private_key
from wire.messages import MAX_FRAME_BYTES, MINOR, PROTOCOL, Challenge, FromServer, Joined, JoinHello, Refused, Welcome

OPENING_S = 30.0
"""A gateway with tens of thousands of nodes before us takes its time."""
PORTS_PER_ADDRESS = 20_000
"""Linux gives some 28,000 ports to one pair of addresses; the rest is left to others."""
SPARE_FILES = 64
"""Open files beside the connections."""


class SimError(Exception):
    """The run cannot begin or go on; one sentence."""


class JoinRefused(SimError):
    """The control plane does not want it; trying again will not help."""


@dataclass
class Member:
    """Who a simulated node is at the control plane, once it has joined."""

    private_key: str
    node_id: str
    server_key: str


@dataclass(frozen=True)
class Open:
    """A connection that was welcomed."""

    socket: ClientConnection
    end: NodeEnd
    welcome: Welcome


def allow_files(connections: int) -> None:
    """Raise the limit of open files as far as it goes; SimError when that is not far enough."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY and most < connections + SPARE_FILES:
        raise SimError(
            f"{connections} connections need as many open files, and this process may have {most} (ulimit -n)"
        )


def source_address(url: str, number: int) -> tuple[str, int] | None:
    """On loopback, where one address has too few ports for a large fleet: another one for every 20,000 nodes."""
    host = urlsplit(url).hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback and ":" not in host
    except ValueError:
        loopback = host == "localhost"
    block = (number - 1) // PORTS_PER_ADDRESS
    return (f"127.0.0.{2 + block}", 0) if loopback and block else None


def _connected(url: str, number: int) -> connect:
    source = source_address(url, number)
    more: dict[str, Any] = {"local_addr": source} if source else {}
    return connect(
        url,
        subprotocols=[Subprotocol(PROTOCOL)],
        compression=None,
        max_size=MAX_FRAME_BYTES,
        max_queue=4,
        ping_interval=None,  # heartbeats tell as much, and a task for each of 50,000 connections costs
        open_timeout=OPENING_S,
        close_timeout=2.0,
        proxy=None,
        user_agent_header=f"twinroot-sim/{AGENT_VERSION}",
        **more,
    )


async def learn_fingerprint(url: str) -> str:
    """The fingerprint of the key that the server proves now; SimError. Real nodes are told it by a person."""
    try:
        async with asyncio.timeout(OPENING_S), _connected(url, 1) as socket:
            hello = JoinHello(nonce=new_nonce(), minor=MINOR, agent_version=AGENT_VERSION)
            await _say(socket, encode(hello))
            match decode_from_server(await socket.recv()):
                case Challenge(server_key=key):
                    return fingerprint(key)
                case Refused(text=text):
                    raise SimError(f"{url}: {text}")
                case _:
                    raise SimError(f"{url} does not speak {PROTOCOL}")
    except (OSError, InvalidHandshake, InvalidURI, ConnectionClosed, WireError) as problem:
        raise SimError(f"{url}: {_words(problem)}") from problem


async def join(url: str, token: str, server: str, node: SimNode) -> Member:
    """Spend one use of the token; SimError when it is refused. `server` is the fingerprint of its key."""
    private_key = new_private_key()
    conversation = JoinEnd(private_key, server)
    try:
        async with asyncio.timeout(OPENING_S), _connected(url, node.spec.number) as socket:
            await _say(socket, conversation.hello(agent_version=AGENT_VERSION))
            while True:
                message, _ = conversation.receive(await socket.recv())
                match message:
                    case Challenge():
                        await _say(socket, _spend(conversation, token, node))
                    case Joined(node_id=node_id):
                        return Member(private_key, node_id, conversation.server_key)
                    case Refused(text=text):
                        raise JoinRefused(f"the join of {node.spec.name} was refused: {text}")
                    case _:
                        pass
    except (OSError, InvalidHandshake, InvalidURI, ConnectionClosed, WireError) as problem:
        raise SimError(f"the join of {node.spec.name} at {url} failed: {_words(problem)}") from problem


def _spend(conversation: JoinEnd, token: str, node: SimNode) -> list[str]:
    spec = node.spec
    return conversation.join(token, spec.name, machine_id(node), hardware(node), os_facts(node), spec.labels)


def machine_id(node: SimNode) -> str:
    """The same in each run, so that a fleet that joins again takes the place of the one before."""
    return hashlib.sha256(f"machine {node.spec.name}".encode()).hexdigest()[:32]


def hardware(node: SimNode) -> str:
    return "sha256:" + hashlib.sha256(f"hardware {node.spec.name}".encode()).hexdigest()


class Closed(Exception):
    """No connection, or not any more. Fields: code (None: none was opened), text."""

    def __init__(self, code: int | None, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


async def open_link(url: str, member: Member, node: SimNode) -> Open:
    """A connection that was welcomed; Closed when there is none."""
    socket = await _dial(url, node)
    try:
        async with asyncio.timeout(OPENING_S):
            return await _opened(socket, member, node)
    except BaseException as problem:
        socket.transport.abort()
        if isinstance(problem, ConnectionClosed):
            raise Closed(problem.rcvd.code if problem.rcvd else None, _words(problem)) from problem
        if isinstance(problem, TimeoutError | WireError):
            raise Closed(None, _words(problem)) from problem
        raise


async def _dial(url: str, node: SimNode) -> ClientConnection:
    try:
        return await _connected(url, node.spec.number)
    except (OSError, InvalidHandshake, InvalidURI) as problem:
        raise Closed(None, _words(problem)) from problem


async def _opened(socket: ClientConnection, member: Member, node: SimNode) -> Open:
    end = NodeEnd(member.node_id, member.private_key, member.server_key)
    frames = end.hello(
        agent_version=AGENT_VERSION,
        machine_id=machine_id(node),
        hardware=hardware(node),
        boot_id=node.body.boot_id,
    )
    while True:
        await _say(socket, frames)
        message, frames = end.receive(await socket.recv())
        if isinstance(message, Welcome):
            return Open(socket, end, message)


async def receive(link: Open) -> FromServer:
    """The next message; Closed at the end of the connection."""
    while True:
        try:
            message, frames = link.end.receive(await link.socket.recv())
            await _say(link.socket, frames)
        except ConnectionClosed as closed:
            raise Closed(closed.rcvd.code if closed.rcvd else None, _words(closed)) from closed
        except WireError as error:
            await link.socket.close(int(error.code), error.detail[:100])
            raise Closed(int(error.code), error.detail) from error
        if message is not None:
            return message


async def _say(socket: ClientConnection, frames: list[str]) -> None:
    for frame in frames:
        await socket.send(frame)


def _words(problem: Exception) -> str:
    if isinstance(problem, ConnectionClosed):
        return (problem.rcvd.reason if problem.rcvd else "") or "the connection was closed"
    return words(problem)
