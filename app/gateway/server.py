"""The gateway process: holds the websockets of nodes and browsers.

1. Listen; everything below runs on one event loop, database work on a few threads beside it.
2. A node proves itself, claims its row, is welcomed and told what is desired (accept, dispatch).
3. What it says is coalesced and written set-based, acknowledged after commit (pump, writer, settling).
4. Sweeps find what nudges lost, silence, other gateways' questions, and who is offline by now (sweeps).
5. Pages hear which topics changed (live).
6. On stop: accept nobody, write what waits, close all with 1012, release the rows, mark the gateway stopped.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from app.config import Address, Settings
from app.core.errors import Misconfigured
from app.gateway.accept import forget
from app.gateway.doors import AGENT, Doors, remote_of, session_secret
from app.gateway.limits import MAX_QUEUE, OPENING_BYTES, WRITE_LIMIT_BYTES, Limits
from app.gateway.live import Live
from app.gateway.nudged import listener
from app.gateway.parts import Parts, make_parts
from app.gateway.pump import serve_node
from app.gateway.sweeps import Sweeps
from app.gateway.threads import DatabaseThreads, keep_on
from app.services import connections
from app.store.database import Database
from wire.close import CloseCode
from wire.messages import PROTOCOL

log = structlog.get_logger(__name__)

_FLUSH_S = 5.0
"""How long a stop waits for a database that is away; what is lost then, the nodes say again."""

_FIRST_TRY_S = 2.0
"""How long a start waits for the database before it goes on without it."""

Ready = Callable[[Address], None]
"""Called once, with the address that is listened on."""


class Gateway:
    """One gateway; `run` may be called once."""

    def __init__(self, db: Database, settings: Settings, limits: Limits | None = None) -> None:
        self._db = db
        self._settings = settings
        self._limits = limits or Limits()

    async def run(self, stop: asyncio.Event, ready: Ready | None = None) -> None:
        """Serve until `stop` is set, then drain. Misconfigured when the address is taken or the secret is wrong."""
        threads = DatabaseThreads()
        try:
            await self._run(threads, stop, ready)
        finally:
            threads.close()

    async def _run(self, threads: DatabaseThreads, stop: asyncio.Event, ready: Ready | None) -> None:
        parts = make_parts(self._db, self._settings, self._limits, threads)
        live = Live(self._db, threads, parts.closer, self._limits, parts.counts)
        sweeps = Sweeps(parts)
        unsubscribe = self._db.nudges.subscribe(listener(parts, live, sweeps))
        try:
            server = await self._listen(parts, live)
            address = Address(*server.sockets[0].getsockname()[:2])
            tasks = [
                asyncio.create_task(loop)
                for loop in (parts.writer.run(), parts.dispatcher.run(), sweeps.run(), sweeps.listen())
            ]
            tasks += [asyncio.create_task(loop) for loop in (live.run(), live.sweep())]
            try:
                begun = asyncio.create_task(self._begin(parts, address))
                tasks += [begun, asyncio.create_task(self._beat_on(parts, begun))]
                await asyncio.wait([begun], timeout=_FIRST_TRY_S)
                if begun.done():
                    begun.result()
                if ready is not None:
                    ready(address)
                await stop.wait()
            finally:
                await self._drain(parts, server, tasks)
        finally:
            unsubscribe()

    async def _listen(self, parts: Parts, live: Live) -> Server:
        doors = Doors(parts, live)

        async def handle(connection: ServerConnection) -> None:
            request = connection.request
            assert request is not None, "the websocket is open"
            if request.path.partition("?")[0] == AGENT:
                await serve_node(parts, connection, remote_of(connection))
            else:
                await live.serve(connection, session_secret(request.headers))

        try:
            return await serve(
                handle,
                self._settings.gateway.host,
                self._settings.gateway.port,
                select_subprotocol=_subprotocol,
                process_request=doors.look_at,
                compression=None,
                server_header=None,
                open_timeout=self._limits.opening_s,
                close_timeout=self._limits.close_s,
                ping_interval=None,
                max_size=OPENING_BYTES,  # more once it has proved itself
                max_queue=MAX_QUEUE,
                write_limit=WRITE_LIMIT_BYTES,
                logger=_quiet_logger(),
            )
        except OSError as error:
            text = f"cannot listen on {self._settings.gateway}: {error.strerror}"
            raise Misconfigured("TWINROOT_GATEWAY", text) from error

    async def _begin(self, parts: Parts, address: Address) -> None:
        """What needs the database once."""
        where = _socket_name(address)

        def begin() -> None:
            parts.keyring.load()
            connections.start_gateway(self._db, parts.gateway_id, where, time.time())

        await parts.threads.until_done(begin)

    async def _beat_on(self, parts: Parts, begun: asyncio.Task[None]) -> None:
        await asyncio.wait([begun])
        while True:
            await asyncio.sleep(self._limits.beat_s)
            await keep_on("heartbeat", lambda: self._beat(parts))

    async def _beat(self, parts: Parts) -> None:
        count = parts.registry.speakers
        await parts.threads.until_done(lambda: connections.beat(self._db, parts.gateway_id, count, time.time()))

    async def _drain(self, parts: Parts, server: Server, tasks: Sequence[asyncio.Task[None]]) -> None:
        parts.draining = True
        started = parts.keyring.keys is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await parts.writer.flush()
        parts.writer.stop()
        for link in parts.registry:
            link.closing = True
            forget(parts, link)
        server.close(code=CloseCode.RESTART, reason="the gateway restarts")
        await server.wait_closed()
        await parts.closer.finish()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await parts.writer.flush()
                if started:
                    await parts.threads.until_done(
                        lambda: connections.stop_gateway(self._db, parts.gateway_id, time.time())
                    )


def _subprotocol(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """None where it was not offered: agents then get a typed close code, and pages speak none."""
    return Subprotocol(PROTOCOL) if PROTOCOL in offered else None


def _quiet_logger() -> logging.Logger:
    """Opening and closing of sockets is not worth a line each; failures are."""
    logger = logging.getLogger("twinroot.websockets")
    logger.setLevel(logging.WARNING)
    return logger


def _socket_name(address: Address) -> str:
    """Names this listening socket among all machines': boot, network namespace, address."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/net').stat().st_ino}/{address}"


class GatewayThread:
    """`start`, then `stop`; once each. Field: address, where it listens after `start`."""

    def __init__(self, db: Database, settings: Settings, limits: Limits | None = None) -> None:
        self._gateway = Gateway(db, settings, limits)
        self._thread = threading.Thread(target=self._main, name="gateway")
        self._listening = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._error: BaseException | None = None
        self.address: Address | None = None

    def start(self) -> None:
        """Returns when nodes can connect; Misconfigured when they never will."""
        self._thread.start()
        self._listening.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Drain and wait for the end; raises what ended it before."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._run())
        except BaseException as error:  # handed to whoever called start or stop
            self._error = error
        finally:
            self._listening.set()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await self._gateway.run(self._stop, self._ready)

    def _ready(self, address: Address) -> None:
        self.address = address
        self._listening.set()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed (extra `speed`), else asyncio's own."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
