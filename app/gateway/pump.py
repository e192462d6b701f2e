"""The life of one node's connection. Whatever goes wrong is its own failure and ends nobody else."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from app.gateway.accept import forget, open_link
from app.gateway.allowance import Allowance
from app.gateway.limits import HISTORY_COST_BYTES
from app.gateway.link import NodeLink
from app.gateway.parts import Parts
from wire.close import CloseCode, WireError
from wire.messages import PROTOCOL, FromNode, Heartbeat, LeaseRequest, LeaseReturn, NodeEvent, OperationReport, Status

log = structlog.get_logger(__name__)


async def serve_node(parts: Parts, connection: ServerConnection, remote: str) -> None:
    """From the websocket's opening to its end."""
    if connection.subprotocol != PROTOCOL:
        await parts.closer.close_and_wait(connection, CloseCode.UNSUPPORTED, f"speak {PROTOCOL}", who=remote)
        return
    link = None
    try:
        link = await _opened(parts, connection, remote)
        if link is not None:
            await _pump(parts, link)
    except WireError as error:
        if link is not None:
            link.closing = True
        who = link.node_id if link else remote
        await parts.closer.close_and_wait(connection, error.code, error.detail, who=who)
    except ConnectionClosed as closed:
        _note_own_close(parts, closed, link.node_id if link else remote)
    finally:
        if link is not None:
            forget(parts, link)


async def _opened(parts: Parts, connection: ServerConnection, remote: str) -> NodeLink | None:
    if not parts.doorway.enter(remote):
        raise WireError(CloseCode.TOO_MANY, "too many connections are opening; come back later")
    try:
        async with asyncio.timeout(parts.limits.opening_s):
            return await open_link(parts, connection, remote)
    except TimeoutError:
        raise WireError(CloseCode.TIMEOUT, "the opening took too long") from None
    finally:
        parts.doorway.leave(remote)


async def _pump(parts: Parts, link: NodeLink) -> None:
    loop, limits, counts = asyncio.get_running_loop(), parts.limits, parts.counts
    receive, recv = link.end.receive, link.connection.recv
    history = Allowance(limits.history_burst_bytes, limits.history_bytes_per_s, loop.time())
    size = 0
    while True:
        frame = await recv(decode=False)
        message = receive(frame)
        size += len(frame)
        link.heard_at = loop.time()
        counts.messages += 1
        if message is None:
            continue
        whole, size = size, 0
        if type(message) is Heartbeat or link.held_at is not None:
            continue
        _hear(parts, link, message)
        if isinstance(message, NodeEvent | OperationReport):
            history.spend(max(whole, HISTORY_COST_BYTES))
            await _until_allowed(parts, link, history)
        if link.waiting_happenings >= limits.happenings:
            await _until_written(parts, link)


def _hear(parts: Parts, link: NodeLink, message: FromNode) -> None:
    if isinstance(message, Status):
        link.hear_status(message)
    elif isinstance(message, NodeEvent | OperationReport | LeaseRequest | LeaseReturn):
        link.hear(message)
    parts.writer.note(link)


async def _until_written(parts: Parts, link: NodeLink) -> None:
    """Not reading the socket is how a node hears that it talks faster than we can store."""
    link.blocked = True
    while link.waiting_happenings >= parts.limits.happenings and not parts.writer.stopped:
        await parts.writer.round()
    link.blocked = False
    link.heard_at = asyncio.get_running_loop().time()


async def _until_allowed(parts: Parts, link: NodeLink, history: Allowance) -> None:
    """A node that floods its history is read more slowly: what it says meanwhile waits in its own socket."""
    loop = asyncio.get_running_loop()
    wait_s = history.wait_s(loop.time())
    if wait_s <= 0:
        return
    parts.closer.say(link.node_id, "node-floods-history")
    link.blocked = True
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await link.connection.wait_closed()
    link.blocked = False
    link.heard_at = loop.time()


def _note_own_close(parts: Parts, closed: ConnectionClosed, who: str) -> None:
    """The websocket layer closes by itself for what never becomes a message, such as a frame that is too big."""
    sent = closed.sent
    if sent is not None and not closed.rcvd_then_sent and sent.code != CloseCode.RESTART and sent.code < 4000:
        parts.closer.count(sent.code, sent.reason, who)
