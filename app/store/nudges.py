"""Nudges: "these topics changed". Losing all of them costs delay, never correctness (rule 8).

Within one process they are plain calls. Between processes on PostgreSQL they are NOTIFY on a connection of
their own, after commit, gathered to a few a second; LISTEN on another.
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
from collections.abc import Callable, Iterable

import psycopg
import structlog
from sqlalchemy import Engine

Listener = Callable[[frozenset[str]], None]
"""Called on any thread with the topics; must be quick and must not raise."""

log = structlog.get_logger(__name__)

_CHANNEL = "twinroot"
_GATHER_S = 0.2
"""Five notifications a second at most, whatever the rate of commits."""
_PAYLOAD_BYTES = 7_000
"""NOTIFY takes less than 8,000 bytes; beyond it we say "everything"."""
PATIENCE = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
"""A database whose machine vanished is away in seconds, not in the quarter of an hour that TCP waits (libpq's
parameters: seconds, and milliseconds for the last). The URL of the database may say otherwise."""
EVERYTHING = "*"
"""Topic that stands for all: subscribers look at the revisions themselves."""


class Nudges:
    """In-process delivery; enough when web, gateway and conductor are one process."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Returns the function that unsubscribes."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def publish(self, topics: Iterable[str]) -> None:
        gathered = frozenset(topics)
        for listener in tuple(self._listeners):
            listener(gathered)

    def close(self) -> None:
        self._listeners.clear()


class PostgresNudges(Nudges):
    """Delivery to every process on the same database. Threads start with the first subscriber or publication."""

    def __init__(self, conninfo: str) -> None:
        super().__init__()
        self._conninfo = conninfo
        self._pending: set[str] = set()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._end: tuple[socket.socket, socket.socket] | None = None
        """Where somebody listens: closing the second is seen at the first."""

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        unsubscribe = super().subscribe(listener)
        with self._guard:
            self._end = self._end or socket.socketpair()
        self._start("nudges-listen", self._listen)
        return unsubscribe

    def publish(self, topics: Iterable[str]) -> None:
        with self._guard:
            self._pending.update(topics)
        self._wake.set()
        self._start("nudges-send", self._send)

    def close(self) -> None:
        self._stop.set()
        self._wake.set()
        if self._end is not None:
            self._end[1].close()
        for thread in self._threads:
            thread.join(timeout=5)
        if self._end is not None:
            self._end[0].close()
        super().close()

    def _start(self, name: str, run: Callable[[], None]) -> None:
        with self._guard:
            if not self._stop.is_set() and all(thread.name != name for thread in self._threads):
                thread = threading.Thread(target=run, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _send(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._conninfo, autocommit=True) as conn:
                    while not self._stop.is_set():
                        self._wake.wait()
                        self._wake.clear()
                        with self._guard:
                            topics, self._pending = self._pending, set()
                        if topics:
                            conn.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, _payload(topics)))
                        self._stop.wait(_GATHER_S)
            except psycopg.Error as error:
                log.warning("nudges-send-away", error=str(error))
                self._stop.wait(1.0)

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._conninfo, autocommit=True) as conn:
                    conn.execute(f"LISTEN {_CHANNEL}")
                    super().publish({EVERYTHING})  # whatever was said while we were away
                    self._listen_on(conn)
            except psycopg.Error as error:
                log.warning("nudges-listen-away", error=str(error))
                self._stop.wait(1.0)

    def _listen_on(self, conn: psycopg.Connection) -> None:
        """Until `close`, or psycopg.Error."""
        assert self._end is not None, "whoever subscribes makes it"
        with selectors.DefaultSelector() as selector:
            selector.register(conn, selectors.EVENT_READ)
            selector.register(self._end[0], selectors.EVENT_READ)
            while not self._stop.is_set():
                for notify in conn.notifies(timeout=0):
                    super().publish(json.loads(notify.payload))
                selector.select()


def _payload(topics: set[str]) -> str:
    payload = json.dumps(sorted(topics))
    return payload if len(payload) < _PAYLOAD_BYTES else json.dumps([EVERYTHING])


def nudges_for(engine: Engine) -> Nudges:
    if engine.dialect.name == "sqlite":
        return Nudges()
    return PostgresNudges(engine.url.set(drivername="postgresql").render_as_string(hide_password=False))
