"""Rate of 1 KiB status messages that the gateway decodes, checks, coalesces and stores, over the rate of a bare
websockets server that only decodes the same frames.

Both get the same bytes from the same sender, prepared beforehand so that the server is what limits. A run ends when
the last message is acknowledged: the gateway does so after the commit. Rounds alternate; the median ratio counts.
"""

from __future__ import annotations

import asyncio
import statistics
import struct
import time

import msgspec
from websockets.asyncio.client import ClientConnection

from bench.gateway_world import (
    Server,
    World,
    close_all,
    dial,
    many_files,
    open_node,
    run_on_fast_loop,
    server,
    status,
    world,
)
from wire.codec import encode
from wire.messages import Ack, FromServer, NodeEvent

CONNECTIONS = 20
MESSAGES = 3_000
"""Of each connection and round."""
ROUNDS = 5
GOAL = 0.5
_DISTINCT = 100
"""Different states that follow each other, so that each message changes something."""


def run() -> list[dict[str, object]]:
    many_files()
    with world(CONNECTIONS) as built, server("gateway", built.folder) as gateway, server("bare", built.folder) as bare:
        ratio = run_on_fast_loop(_measure(built, gateway, bare))
    assert isinstance(ratio, float)
    value = {"name": "ingest-ratio", "value": round(ratio, 2), "unit": "ratio", "goal": f">= {GOAL:g}"}
    return [{**value, "met": ratio >= GOAL}]


async def _measure(built: World, gateway: Server, bare: Server) -> float:
    nodes = [(await open_node(gateway.port, *key, built.server_key))[0] for key in built.keys]
    plain = [await dial(bare.port) for _ in built.keys]
    frames = [_framed(encode(status(number / _DISTINCT))[0]) for number in range(_DISTINCT)]
    ratios = []
    for number in range(ROUNDS):
        seq = number + 1
        bare_s = await _blast(plain, frames, seq)
        gateway_s = await _blast(nodes, frames, seq)
        ratios.append(bare_s / gateway_s)
    await close_all(nodes + plain)
    return statistics.median(ratios)


async def _blast(connections: list[ClientConnection], frames: list[bytes], seq: int) -> float:
    """Seconds until all messages of all connections are acknowledged."""
    last = _framed(encode(NodeEvent(seq=seq, at=0, kind="end", text="end of the round"))[0])
    block = b"".join(frames)
    began = time.perf_counter()
    await asyncio.gather(*(_send(connection, block, last, seq) for connection in connections))
    return time.perf_counter() - began


async def _send(connection: ClientConnection, block: bytes, last: bytes, seq: int) -> None:
    for _ in range(MESSAGES // _DISTINCT):
        connection.transport.write(block)
        await connection.drain()
    connection.transport.write(last)
    decode = msgspec.json.Decoder(FromServer).decode
    while not (isinstance(answer := decode(await connection.recv()), Ack) and answer.seq >= seq):
        pass


def _framed(text: str) -> bytes:
    """A client's text frame (RFC 6455 §5.2), masked with zeros: the bytes stay as they are."""
    payload = text.encode()
    assert len(payload) < 65_536
    if len(payload) <= 125:
        return struct.pack("!BB4x", 0x81, 0x80 | len(payload)) + payload
    return struct.pack("!BBH4x", 0x81, 0x80 | 126, len(payload)) + payload
