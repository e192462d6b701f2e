"""A simulated fleet on real connections: one clock, one task for each connection, joins at a bounded rate.

1. Every node joins once, with a key of its own that lives as long as this process.
2. A node that can connect does, after the pause that a real agent would make.
3. The fleet advances on the real clock; what nodes say goes out on their connections, in order.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from websockets.exceptions import ConnectionClosed

from agent.link import pause
from sim.dialling import (
    Closed,
    JoinRefused,
    Member,
    Open,
    SimError,
    allow_files,
    join,
    learn_fingerprint,
    open_link,
    receive,
)
from sim.node import SimNode
from sim.scenario import Scenario
from sim.simulated import SimFleet
from wire.messages import FromServer, Heartbeat, Welcome

OPENING_AT_ONCE = 64
"""The gateway lets 256 of one address open at the same time."""
JOIN_TRIES = 8
"""A gateway that restarts is back within that; a refusal is final at once."""
HEARTBEATS_S = 1.0
REPORT_S = 5.0
LONGEST_SLEEP_S = 0.5
"""Something may come up meanwhile that is due before what the clock was set to."""
CLOSE_S = 10.0


@dataclass
class Place:
    """Where to connect, and with what."""

    url: str
    token: str
    fingerprint: str = ""
    """Of the server's key; empty: taken as the server shows it."""
    joins_per_s: float = 50.0


@dataclass
class _Line:
    """A node's connection, or what is known between two of them."""

    member: Member
    link: Open | None = None
    task: asyncio.Task[None] | None = None
    sending: asyncio.Task[None] | None = None
    tries: int = 0
    spoke_at: float = 0.0


class Crowd:
    """`say` gets a line about the run now and then. Fields to read: fleet, joined, connected."""

    def __init__(self, scenario: Scenario, place: Place, say: Callable[[str], None] = lambda line: None) -> None:
        self.fleet = SimFleet(scenario, time.time())
        self._place = place
        self._say = say
        self._lines: dict[int, _Line] = {}
        self._opening = asyncio.Semaphore(OPENING_AT_ONCE)
        self._wake = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._said = ""

    @property
    def joined(self) -> int:
        return len(self._lines)

    @property
    def connected(self) -> int:
        return sum(line.link is not None for line in self._lines.values())

    async def run(self) -> None:
        """Until cancelled; SimError when a join is refused or nobody answers."""
        allow_files(len(self.fleet.nodes))
        self._place.fingerprint = self._place.fingerprint or await learn_fingerprint(self._place.url)
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for duty in (self._join_all(), self._keep_time(), self._beat(), self._report()):
                    self._tasks.create_task(duty)
        except ExceptionGroup as group:
            raise _first(group) from group
        finally:
            self._tasks = None
            await self._close_all()

    # --- joining --------------------------------------------------------------------------------------------

    async def _join_all(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as joining:
            for done, node in enumerate(self.fleet.nodes):
                await asyncio.sleep(max(0.0, began + done / self._place.joins_per_s - loop.time()))
                await self._opening.acquire()
                joining.create_task(self._join(node))

    async def _join(self, node: SimNode) -> None:
        try:
            member = await self._member(node)
        finally:
            self._opening.release()
        self._lines[node.spec.number] = _Line(member)
        self._look(node)

    async def _member(self, node: SimNode) -> Member:
        place, tries = self._place, 0
        while True:
            try:
                return await join(place.url, place.token, place.fingerprint, node)
            except JoinRefused:
                raise
            except SimError:
                tries += 1
                if tries == JOIN_TRIES:
                    raise
            await asyncio.sleep(pause(None, tries, self.fleet.chance()))

    # --- the clock ------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            self._wake.clear()
            for node in self.fleet.advance(time.time()):
                self._look(node)
            wait_s = min(max(self.fleet.next_at - time.time(), 0.0), LONGEST_SLEEP_S)
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                continue  # the time has come

    def _look(self, node: SimNode) -> None:
        """Something has changed: say what is to be said, connect or let go as the node would."""
        line = self._lines.get(node.spec.number)
        if line is None or self._tasks is None:
            return
        if line.link is not None and line.sending is None and (node.outbox or not node.linked):
            line.sending = self._tasks.create_task(self._send(node, line, line.link))
        elif line.task is None and node.can_connect:
            line.task = self._tasks.create_task(self._connection(node, line))

    # --- one connection -------------------------------------------------------------------------------------

    async def _connection(self, node: SimNode, line: _Line) -> None:
        code: int | None = None
        try:
            async with self._opening:
                link = await open_link(self._place.url, line.member, node)
            await self._converse(node, line, link)
        except Closed as closed:
            code = closed.code
        finally:
            line.link = None
        self.fleet.disconnect(node, time.time())
        await asyncio.sleep(pause(code, line.tries, self.fleet.chance()))
        line.tries += 1
        line.task = None
        self._look(node)

    async def _converse(self, node: SimNode, line: _Line, link: Open) -> None:
        line.link, line.tries, line.spoke_at = link, 0, time.monotonic()
        self._hear(node, line, link, link.welcome)
        while True:
            self._hear(node, line, link, await receive(link))

    def _hear(self, node: SimNode, line: _Line, link: Open, message: FromServer) -> None:
        if isinstance(message, Welcome):
            named = message.next_server_key
            if named is not None and link.end.is_named(named):
                line.member.server_key = named.key  # from the next connection on
        self.fleet.receive(node, message, time.time())
        self._look(node)
        self._wake.set()

    async def _send(self, node: SimNode, line: _Line, link: Open) -> None:
        try:
            while node.outbox and line.link is link:
                for frame in link.end.send(node.outbox.popleft()):
                    await link.socket.send(frame)
                line.spoke_at = time.monotonic()
            if not node.linked:
                await self._hang_up(node, link)
        except ConnectionClosed:
            return  # whoever reads sees it too
        finally:
            line.sending = None
        self._look(node)

    async def _hang_up(self, node: SimNode, link: Open) -> None:
        """An agent that ends in order says so; a machine without power or network does not."""
        if node.cut_off:
            link.socket.transport.abort()
        else:
            await link.socket.close()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEATS_S)
            now = time.monotonic()
            for node in self.fleet.nodes:
                line = self._lines.get(node.spec.number)
                if line is None or line.link is None or line.sending is not None or not node.linked:
                    continue
                if now - line.spoke_at >= line.link.welcome.heartbeat_s - HEARTBEATS_S:
                    node.outbox.append(Heartbeat())
                    self._look(node)

    # --- the end --------------------------------------------------------------------------------------------

    async def _close_all(self) -> None:
        sockets = [line.link.socket for line in self._lines.values() if line.link is not None]
        closing = [asyncio.ensure_future(socket.close()) for socket in sockets]
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_S)
        for socket in sockets:
            socket.transport.abort()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            versions = Counter(node.machine.running.version for node in self.fleet.nodes)
            booted = ", ".join(f"{version} on {count}" for version, count in sorted(versions.items()))
            line = f"{self.joined} joined, {self.connected} connected; booted: {booted}"
            if line != self._said:
                self._said = line
                self._say(line)


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The one that tells what went wrong."""
    found = group.exceptions[0]
    return _first(found) if isinstance(found, ExceptionGroup) else found
