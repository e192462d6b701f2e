"""Memory of the gateway for one idle connected node, at five thousand of them (resident, KiB).

Each node has proved itself, sent a whole status and got its desired state. The gateway is its own process; the
difference between a few connected nodes and all of them is divided by the nodes in between.
"""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import ClientConnection

from bench.gateway_world import Server, World, close_all, many_files, open_node, run_on_fast_loop, server, status, world
from wire.messages import Ack, NodeEvent

NODES = 5_000
WARM = 200
"""Connected before the first measurement, so that what is paid once is not counted as a node's."""
GOAL_KIB = 25.0
_AT_ONCE = 50


def run() -> list[dict[str, object]]:
    many_files()
    with world(NODES) as built, server("gateway", built.folder) as gateway:
        per_node = run_on_fast_loop(_measure(built, gateway))
    assert isinstance(per_node, float)
    return [
        {
            "name": "gateway-node-kib",
            "value": round(per_node, 1),
            "unit": "KiB",
            "goal": f"<= {GOAL_KIB:g}",
            "met": per_node <= GOAL_KIB,
        }
    ]


async def _measure(built: World, gateway: Server) -> float:
    connections: list[ClientConnection] = []
    await _connect(built, gateway, range(WARM), connections)
    before = gateway.rss_kib()
    await _connect(built, gateway, range(WARM, NODES), connections)
    after = gateway.rss_kib()
    await close_all(connections)
    return (after - before) / (NODES - WARM)


async def _connect(built: World, gateway: Server, numbers: range, connections: list[ClientConnection]) -> None:
    for start in range(0, len(numbers), _AT_ONCE):
        some = numbers[start : start + _AT_ONCE]
        connections += await asyncio.gather(*(_settled(built, gateway, number) for number in some))


async def _settled(built: World, gateway: Server, number: int) -> ClientConnection:
    """Connected, stored, acknowledged: from here on it is idle."""
    node_id, private = built.keys[number]
    connection, end = await open_node(gateway.port, node_id, private, built.server_key)
    for message in (status(0.5), NodeEvent(seq=1, at=0, kind="boot", text="booted")):
        for frame in end.send(message):
            await connection.send(frame)
    while not isinstance(end.receive(await connection.recv())[0], Ack):
        pass
    return connection
