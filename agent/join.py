"""Joining a fleet: prove the server by its fingerprint, then spend the token, then remember who we are.

1. The key is made and stored before anything is sent, so that a join that was cut off is repeated as the same
   one: the server answers the same key and token with the same node.
2. The gateway must answer and prove the key that the join command names; until then the token stays unspent.
3. State first, identity last: with an identity on disk the join is complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from agent.errors import JoinError, StateError
from agent.link import words
from agent.phases.model import State, forget_server
from agent.state import Identity, StateFolder
from wire.close import WireError
from wire.conversation import JoinEnd
from wire.identity import new_private_key
from wire.messages import MAX_FRAME_BYTES, PROTOCOL, Challenge, Joined, OsFacts, Refused

LIMIT_S = 30.0
"""For the whole join: the gateway commits one row."""
UNSPENT = "the token was not spent"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the join command says, and what this machine is."""

    url: str
    token: str
    fingerprint: str
    name: str
    labels: Mapping[str, str]
    machine_id: str
    hardware: str
    os: OsFacts
    agent_version: str


async def join(folder: StateFolder, request: Request, *, again: bool) -> Joined:
    """Join, and leave identity and state in `folder` (which is open). JoinError or StateError."""
    _refuse_second(folder, again=again)
    pending = _pending(folder, request)
    folder.write_joining(pending)
    joined, server_key = await _ask(pending, request)
    _remember(folder, pending, joined, server_key, request.name)
    folder.joining_file.unlink(missing_ok=True)
    return joined


def _refuse_second(folder: StateFolder, *, again: bool) -> None:
    if again:
        return
    identity = folder.read_identity()
    if identity is not None:
        raise JoinError(
            f"this machine has joined {identity.url} as {identity.name} ({identity.node_id}); "
            "--again makes it a new node that replaces that one"
        )


def _pending(folder: StateFolder, request: Request) -> Identity:
    """The join that was begun before with the same server, else a new one with a new key."""
    earlier = folder.read_joining()
    if earlier is not None and (earlier.url, earlier.fingerprint) == (request.url, request.fingerprint):
        return earlier
    return Identity(
        private_key=new_private_key(),
        url=request.url,
        fingerprint=request.fingerprint,
        machine_id=request.machine_id,
        hardware=request.hardware,
        name=request.name,
    )


def _remember(folder: StateFolder, pending: Identity, joined: Joined, server_key: str, name: str) -> None:
    identity = msgspec.structs.replace(pending, node_id=joined.node_id, server_key=server_key, name=name)
    try:
        folder.write_state(forget_server(_earlier_state(folder)))
        folder.write_identity(identity)
    except OSError as problem:
        raise JoinError(
            f"joined as {joined.node_id}, but {folder.folder} cannot be written ({problem.strerror}): "
            "repeat the same command once it can"
        ) from problem


def _earlier_state(folder: StateFolder) -> State:
    """Facts of the slots from an earlier membership; joining again is the way out of a damaged file."""
    try:
        return folder.read_state() or State()
    except StateError:
        damaged = folder.state_file
        damaged.replace(damaged.with_name(damaged.name + ".damaged"))
        return State()


async def _ask(pending: Identity, request: Request) -> tuple[Joined, str]:
    conversation = JoinEnd(pending.private_key, request.fingerprint)
    spent = False
    try:
        async with asyncio.timeout(LIMIT_S), _connected(request.url) as socket:
            await _say(socket, conversation.hello(agent_version=request.agent_version))
            while True:
                message, answer = conversation.receive(await socket.recv())
                await _say(socket, answer)
                match message:
                    case Challenge():
                        spent = True
                        await _say(socket, _spend(conversation, request))
                    case Joined():
                        return message, conversation.server_key
                    case Refused(text=text):
                        raise JoinError(f"the join was refused: {text}")
                    case _:
                        pass
    except WireError as error:
        raise JoinError(f"{request.url}: {error.detail}; {_left(spent)}") from error
    except ConnectionClosed as closed:
        reason = closed.rcvd.reason if closed.rcvd and closed.rcvd.reason else "no reason given"
        raise JoinError(f"{request.url} closed the connection: {reason}; {_left(spent)}") from closed
    except (OSError, InvalidHandshake, InvalidURI) as problem:
        raise JoinError(f"{request.url} cannot be reached: {words(problem)}; {_left(spent)}") from problem


def _spend(conversation: JoinEnd, request: Request) -> list[str]:
    return conversation.join(
        request.token, request.name, request.machine_id, request.hardware, request.os, dict(request.labels)
    )


def _left(spent: bool) -> str:
    return "repeat the same command to find out" if spent else UNSPENT


def _connected(url: str) -> connect:
    return connect(
        url,
        subprotocols=[Subprotocol(PROTOCOL)],
        compression=None,
        max_size=MAX_FRAME_BYTES,
        open_timeout=10.0,
        close_timeout=2.0,
        proxy=None,
    )


async def _say(socket: ClientConnection, frames: list[str]) -> None:
    for frame in frames:
        await socket.send(frame)
