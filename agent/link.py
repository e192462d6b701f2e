"""The connection to the gateway: kept up, told what changed, and repeated until acknowledged.

The link reads a `Picture` of the node whenever it is nudged, and sends what differs from what this connection
has said already, and the outbox, in order. Losing a connection loses nothing but requests for leases,
which are asked anew.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from agent.phases.inputs import LinkLost, Welcomed
from agent.picture import Picture, changed
from agent.pinning import ServerKeyNamed
from agent.state import Identity
from wire.close import FINAL, CloseCode, WireError
from wire.conversation import NodeEnd
from wire.messages import (
    MAX_FRAME_BYTES,
    PROTOCOL,
    Ack,
    Ask,
    Desired,
    Heartbeat,
    LeaseGrant,
    LeaseRequest,
    LeaseReturn,
    LeaseWait,
    NodeEvent,
    OperationReport,
    Refused,
    Welcome,
)

COALESCE_S = 0.2
"""Changes within this time travel together: a burst of container events is one message."""
WELCOME_LIMIT_S = 20.0
CLOSE_LIMIT_S = 5.0
HEARTBEAT_LEAST_S = 1.0
"""Whatever a gateway asks for: a node has other things to do."""
BACKOFF_FIRST_S, BACKOFF_MOST_S = 1.0, 60.0
RESTART_JITTER_S = 10.0
"""A gateway that restarts gets its nodes back spread over this time."""
FINAL_PAUSE_S = 3600.0
PING_S = 20.0
SETTLED_S = 30.0
"""A connection that lasted this long makes the next loss the first one again."""


COME_BACK_S = 600.0
"""With a new pin a node opens a new connection within this time: the server sees that it has it, and a fleet that was
told at once does not come back at once."""


class LinkState(StrEnum):
    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"
    """For the next try."""


@dataclass
class Standing:
    """How the link stands, for `status`."""

    state: LinkState = LinkState.CONNECTING
    text: str = ""
    """Why the last try or connection ended."""
    conflict: bool = False


FromGateway = Desired | LeaseGrant | LeaseWait | Ack
Heard = FromGateway | Welcomed | LinkLost | ServerKeyNamed
"""What the link tells the runner."""


class _Ended(Exception):
    """The connection is over. Fields: code (None: none was opened), text."""

    def __init__(self, code: int | None, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass
class _Said:
    """What the present connection has said already."""

    conversation: NodeEnd
    socket: ClientConnection
    heartbeat_s: float
    spoke_at: float
    """Loop time of the last frame that was sent."""
    leave_at: float = math.inf
    """Loop time at which this connection makes room for one under the new pin."""
    sections: dict[str, object] = field(default_factory=dict)
    last_seq: int = 0
    whole: bool = True
    """The next status must have all sections."""

    async def say(self, frames: list[str]) -> None:
        for frame in frames:
            await self.socket.send(frame)
            self.spoke_at = asyncio.get_running_loop().time()

    async def tell(self, items: list[NodeEvent | OperationReport]) -> None:
        for item in items:
            await self.say(self.conversation.send(item))
            self.last_seq = item.seq


class Link:
    """`heard` gets what came, in order; `room` is awaited before more is read, so that a flood waits outside."""

    def __init__(
        self,
        identity: Identity,
        *,
        agent_version: str,
        boot_id: str,
        picture: Callable[[], Picture],
        heard: Callable[[Heard], None],
        room: Callable[[], Awaitable[None]],
        chance: Callable[[], float] = random.random,
        coalesce_s: float = COALESCE_S,
        backoff_first_s: float = BACKOFF_FIRST_S,
        come_back_s: float = COME_BACK_S,
    ) -> None:
        self._identity = identity
        self._agent_version = agent_version
        self._boot_id = boot_id
        self._picture = picture
        self._heard = heard
        self._room = room
        self._chance = chance
        self._coalesce_s = coalesce_s
        self._backoff_first_s = backoff_first_s
        self._come_back_s = come_back_s
        self._unsigned_key = ""
        self._tries = 0
        self._nudge = asyncio.Event()
        self._urgent: list[LeaseRequest | LeaseReturn] = []
        self._said: _Said | None = None
        self._idle = asyncio.Event()
        self.standing = Standing()

    # --- for the runner -------------------------------------------------------------------------------------

    def nudge(self) -> None:
        """Something may have changed."""
        self._idle.clear()
        self._nudge.set()

    def say(self, message: LeaseRequest | LeaseReturn) -> None:
        """Say this on the present connection; without one it is lost, as the phase machine expects."""
        if self._said is not None:
            self._urgent.append(message)
            self.nudge()

    def use(self, identity: Identity) -> None:
        """Be this one from the next connection on, which is opened some time soon."""
        if identity != self._identity and self._said is not None:
            self._said.leave_at = asyncio.get_running_loop().time() + self._come_back_s * self._chance()
            self.nudge()
        self._identity = identity

    async def flush(self, limit_s: float) -> None:
        """Wait until what is to be said was handed to the network, at most `limit_s`."""
        if self._said is None:
            return
        self.nudge()
        try:
            async with asyncio.timeout(limit_s):
                await self._idle.wait()
        except TimeoutError:
            return  # the gateway hears of it later; nothing waits for a slow network

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        while True:
            self.standing.state = LinkState.CONNECTING
            loop = asyncio.get_running_loop()
            began = loop.time()
            try:
                await self._one_connection()
            except _Ended as end:
                self.standing.text = end.text
                if loop.time() - began > SETTLED_S:
                    self._tries = 0
                pause_s = pause(end.code, self._tries, self._chance(), self._backoff_first_s)
                self._tries = 0 if end.code == CloseCode.RESTART else self._tries + 1
            self.standing.state = LinkState.WAITING
            await asyncio.sleep(pause_s)

    # --- one connection -------------------------------------------------------------------------------------

    async def _one_connection(self) -> None:
        try:
            async with connect(
                self._identity.url,
                subprotocols=[Subprotocol(PROTOCOL)],
                compression=None,
                max_size=MAX_FRAME_BYTES,
                max_queue=16,
                ping_interval=PING_S,
                ping_timeout=PING_S,
                open_timeout=10.0,
                close_timeout=2.0,
                proxy=None,
                user_agent_header=f"twinroot-agent/{self._agent_version}",
            ) as socket:
                await self._talk(socket)
        except ConnectionClosed as closed:
            raise _ended_by(closed) from closed
        except (OSError, InvalidHandshake, InvalidURI, TimeoutError) as problem:
            raise _Ended(None, f"no connection to {self._identity.url}: {words(problem)}") from problem

    async def _talk(self, socket: ClientConnection) -> None:
        identity = self._identity
        conversation = NodeEnd(identity.node_id, identity.private_key, identity.server_key)
        try:
            said = await self._open(socket, conversation)
            self._said = said
            try:
                await self._converse(said)
            finally:
                self._said = None
                self._urgent.clear()
                self._idle.set()
                self.standing.conflict = False
                self._heard(LinkLost())
        except WireError as error:
            await socket.close(int(error.code), error.detail[:100])
            raise _Ended(int(error.code), f"ended here ({int(error.code)}): {error.detail}") from error

    async def _open(self, socket: ClientConnection, conversation: NodeEnd) -> _Said:
        """Until the welcome. The gateway proves itself first; TimeoutError when it says nothing."""
        identity = self._identity
        async with asyncio.timeout(WELCOME_LIMIT_S):
            for frame in conversation.hello(
                agent_version=self._agent_version,
                machine_id=identity.machine_id,
                hardware=identity.hardware,
                boot_id=self._boot_id,
            ):
                await socket.send(frame)
            while True:
                message, answer = conversation.receive(await socket.recv())
                for frame in answer:
                    await socket.send(frame)
                if isinstance(message, Refused):
                    await self._refused(socket, message)
                if isinstance(message, Welcome):
                    self.standing = Standing(LinkState.OPEN, "", message.conflict)
                    self._heard(Welcomed(conflict=message.conflict))
                    self._look_at_key(conversation, message)
                    spoke_at = asyncio.get_running_loop().time()
                    return _Said(conversation, socket, max(message.heartbeat_s, HEARTBEAT_LEAST_S), spoke_at)

    async def _refused(self, socket: ClientConnection, refused: Refused) -> None:
        """The close frame that follows carries the code."""
        code: int | None = None
        try:
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await socket.recv()
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
        except TimeoutError:
            code = None  # refused is refused, also by a gateway that keeps the connection
        raise _Ended(code, f"refused ({refused.code}): {refused.text}")

    async def _converse(self, said: _Said) -> None:
        sending = asyncio.create_task(self._send_changes(said))
        receiving = asyncio.create_task(self._receive(said))
        try:
            done, _ = await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)

    async def _receive(self, said: _Said) -> None:
        while True:
            message, answer = said.conversation.receive(await said.socket.recv())
            await said.say(answer)
            match message:
                case Desired() | LeaseGrant() | LeaseWait() | Ack():
                    self._heard(message)
                    await self._room()
                case Welcome():
                    self._welcomed_again(said, message)
                case Ask():
                    said.whole = True
                    self.nudge()
                case Refused():
                    await self._refused(said.socket, message)
                case _:
                    pass

    def _welcomed_again(self, said: _Said, welcome: Welcome) -> None:
        """Something that the gateway said of us has changed while we were connected."""
        said.heartbeat_s = max(welcome.heartbeat_s, HEARTBEAT_LEAST_S)
        if welcome.conflict != self.standing.conflict:
            self.standing.conflict = welcome.conflict
            self._heard(Welcomed(conflict=welcome.conflict))
        self._look_at_key(said.conversation, welcome)
        self.nudge()

    def _look_at_key(self, conversation: NodeEnd, welcome: Welcome) -> None:
        """A key is named in each welcome until we come back under it; one without a signature is told once."""
        named = welcome.next_server_key
        if named is None or named.key in (self._identity.server_key, self._unsigned_key):
            return
        holds = conversation.is_named(named)
        self._unsigned_key = "" if holds else named.key
        self._heard(ServerKeyNamed(key=named.key, holds=holds))

    async def _send_changes(self, said: _Said) -> None:
        loop = asyncio.get_running_loop()
        self._nudge.set()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(said.spoke_at + said.heartbeat_s, said.leave_at)):
                    await self._nudge.wait()
            self._nudge.clear()
            await self._say_news(said)
            # Most nudges change nothing that is said, so the time counts from the last frame and not from the nudge.
            if loop.time() - said.spoke_at >= said.heartbeat_s:
                await said.say(said.conversation.send(Heartbeat()))
            if not self._nudge.is_set():
                self._idle.set()
            if loop.time() >= said.leave_at:
                raise _Ended(None, "comes back under the server's new key")
            await asyncio.sleep(self._coalesce_s)

    async def _say_news(self, said: _Said) -> None:
        """What happened, the state that it led to, then the reports that this state bears out.

        The server acts on a state at once, and would write "lease returned" before what it saw confirmed.
        """
        # Requests are taken first: none may overtake the placement that it relies on.
        urgent = list(self._urgent)
        self._urgent.clear()
        picture = self._picture()
        unsaid = [item for item in picture.outbox if item.seq > said.last_seq]
        led_here = list(itertools.takewhile(lambda item: isinstance(item, NodeEvent), unsaid))
        await said.tell(led_here)
        status = changed(picture, said.sections, whole=said.whole)
        if status is not None:
            said.whole = False
            await said.say(said.conversation.send(status))
        for request in urgent:
            await said.say(said.conversation.send(request))
        await said.tell(unsaid[len(led_here) :])


def pause(code: int | None, tries: int, chance: float, first_s: float = BACKOFF_FIRST_S) -> float:
    """Seconds until the next try after a connection ended with `code`; `chance` is a random share.

    Full jitter: many nodes that lost one gateway must not come back together.
    """
    if code in FINAL:
        return FINAL_PAUSE_S * (0.5 + chance / 2)
    if code == CloseCode.RESTART:
        return RESTART_JITTER_S * chance
    return min(first_s * 2.0 ** min(tries, 10), BACKOFF_MOST_S) * chance


def _ended_by(closed: ConnectionClosed) -> _Ended:
    frame = closed.rcvd
    if frame is None:
        return _Ended(None, "the connection was lost")
    return _Ended(frame.code, f"closed by the gateway ({frame.code}): {frame.reason or 'no reason given'}")


def words(problem: Exception) -> str:
    """What went wrong with a connection, in a few words."""
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    if isinstance(problem, OSError) and problem.errno:
        return os.strerror(problem.errno) if problem.errno > 0 else problem.strerror or str(problem)
    return str(problem) or type(problem).__name__
