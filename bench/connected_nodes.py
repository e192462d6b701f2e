"""Many nodes on real connections in this process, for benchmarks of what pages see of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import msgspec
from websockets.asyncio.client import ClientConnection

from bench.gateway_world import World, close_all, open_node, status
from wire.conversation import NodeEnd
from wire.messages import Ack, Check, CheckState, Health, HealthState, NodeEvent, Slot, Status

_AT_ONCE = 50
_WHOLE = status(0.0)


class Nodes:
    """All of a world's nodes. Fields: sent, how many changes were sent."""

    def __init__(self, built: World, port: int) -> None:
        self._built = built
        self._port = port
        self._ends: list[tuple[ClientConnection, NodeEnd]] = []
        self.sent = 0

    async def connect(self) -> None:
        """Returns when the whole state of each is stored."""
        keys = self._built.keys
        for start in range(0, len(keys), _AT_ONCE):
            self._ends += await asyncio.gather(*(self._settled(*key) for key in keys[start : start + _AT_ONCE]))

    async def close(self) -> None:
        await close_all([connection for connection, _ in self._ends])

    async def change(self, number: int, message: Status) -> None:
        connection, end = self._ends[number]
        for frame in end.send(message):
            await connection.send(frame)
        self.sent += 1

    async def keep_changing(self, numbers: Sequence[int], per_s: float, dice: random.Random) -> None:
        """Until cancelled: at random moments some node's update goes on, `per_s` times a second on average."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += dice.expovariate(per_s)
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self.change(dice.choice(numbers), progressed(dice.random()))

    async def _settled(self, node_id: str, private: str) -> tuple[ClientConnection, NodeEnd]:
        connection, end = await open_node(self._port, node_id, private, self._built.server_key)
        for message in (_WHOLE, NodeEvent(seq=1, at=0, kind="boot", text="booted")):
            for frame in end.send(message):
                await connection.send(frame)
        while not isinstance(end.receive(await connection.recv())[0], Ack):
            pass
        return connection, end


def progressed(progress: float) -> Status:
    """What a node that stages an image says while it does."""
    return Status(activity=msgspec.structs.replace(status(progress).activity, progress=round(progress, 4)))


def checked(mark: str) -> Status:
    """Health whose check says `mark`: the node's own page shows it."""
    return Status(
        health=Health(state=HealthState.HEALTHY, checks=[Check(name="disk", state=CheckState.PASSED, text=mark)])
    )


def booted_into(version: str) -> Status:
    """Slots whose booted one has this version: the list of nodes shows it."""
    slots = _WHOLE.slots
    assert slots is not None
    first = msgspec.structs.replace(slots[0], version=version)
    rest: list[Slot] = list(slots[1:])
    return Status(slots=[first, *rest])
