"""One HTTP GET for the rest of a file, with limits, that another thread can end at any moment.

Blocking; standard library only. Proxies of the environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from urllib.parse import SplitResult, urljoin, urlsplit

from agent.drivers.base import DriverError
from agent.interruptible import Stopped

MAX_REDIRECTS = 5
PASSING = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.LOCKED,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Answers that may be another one in a while; all others stay (501, 404, an expired URL's 403)."""


class DownloadCode(StrEnum):
    NO_SPACE = "no-space"
    DISK = "disk"
    """The local file cannot be written or read, for another reason than space."""
    WRONG_DIGEST = "wrong-digest"
    TRUNCATED = "truncated"
    HTTP = "http"
    NO_CONNECTION = "no-connection"
    STALLED = "stalled"
    BAD_URL = "bad-url"


TRANSIENT = frozenset({DownloadCode.TRUNCATED, DownloadCode.NO_CONNECTION, DownloadCode.STALLED})


class DownloadError(DriverError):
    """The file could not be fetched.

    Fields: code (DownloadCode), text (one sentence), status (HTTP status with code `http`, else None),
    transient (the same request may succeed later).
    """

    def __init__(
        self, code: DownloadCode, text: str, status: int | None = None, *, transient: bool | None = None
    ) -> None:
        super().__init__(code, text)
        self.status = status
        self.transient = (code in TRANSIENT or status in PASSING) if transient is None else transient


class Stop:
    """Ends a transfer from another thread, also while it waits for the network."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._socket: socket.socket | None = None

    def watch(self, wire: socket.socket) -> None:
        """From now on `stop` shuts `wire` down; Stopped when it is too late for that."""
        with self._lock:
            self.check()
            self._socket = wire

    def forget(self) -> None:
        """The watched socket is about to be closed."""
        with self._lock:
            self._socket = None

    def check(self) -> None:
        if self._stopped.is_set():
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Wait; Stopped as soon as `stop` is called."""
        if self._stopped.wait(seconds):
            raise Stopped

    def stop(self) -> None:
        with self._lock:
            self._stopped.set()
            if self._socket is not None:
                try:
                    # Past SSLSocket's own shutdown, which would pull the TLS state from under the reader.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
                except OSError:
                    return  # not connected (any more): nothing waits on it


@dataclass(frozen=True)
class Limits:
    connect_s: float
    stall_s: float
    """Longest silence of the server."""
    allow_unencrypted: bool
    """Plain http beyond loopback."""


@dataclass(frozen=True)
class Wanted:
    """Which part is asked for: from `start` on, if the file still has `etag` (empty: whatever it is now)."""

    start: int = 0
    etag: str = ""


class Answer:
    """The body of a 200 or 206: `start` is where it really begins."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, stop: Stop) -> None:
        self._connection = connection
        self._response = response
        self._stop = stop
        self.start = _range_start(response)
        self.etag = response.headers.get("ETag", "")

    def read(self, limit: int) -> bytes:
        """At most `limit` bytes as they come; empty at the end. DownloadError when the connection breaks."""
        try:
            return self._response.read1(limit)
        except TimeoutError as problem:
            raise DownloadError(DownloadCode.STALLED, "the server went silent in mid-file") from problem
        except (OSError, http.client.HTTPException) as problem:
            raise DownloadError(DownloadCode.TRUNCATED, f"the connection broke: {problem!r}") from problem

    def close(self) -> None:
        _close(self._connection, self._response, self._stop)


def get(url: str, wanted: Wanted, limits: Limits, stop: Stop) -> Answer:
    """Ask for the rest of `url`, following redirects of the same scheme.

    DownloadError for everything that is not a body; Stopped when `stop` was called.
    """
    scheme = ""
    for _ in range(MAX_REDIRECTS + 1):
        parts = _checked(url, limits)
        if scheme and parts.scheme != scheme:
            raise DownloadError(DownloadCode.BAD_URL, f"redirect from {scheme} to {parts.scheme}")
        scheme = parts.scheme
        connection, response = _ask(parts, wanted, limits, stop)
        if response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return Answer(connection, response, stop)
        location = response.headers.get("Location", "")
        _close(connection, response, stop)
        if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and wanted.start:
            wanted = Wanted()
        elif response.status in (301, 302, 303, 307, 308) and location:
            url = urljoin(url, location)
        else:
            text = f"the server answered {response.status} {response.reason}"
            raise DownloadError(DownloadCode.HTTP, text, response.status)
    raise DownloadError(DownloadCode.HTTP, f"more than {MAX_REDIRECTS} redirects")


def _checked(url: str, limits: Limits) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as problem:
        raise DownloadError(DownloadCode.BAD_URL, f"not a URL: {problem}") from problem
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DownloadError(DownloadCode.BAD_URL, "the URL must be http or https, with a host")
    if "@" in parts.netloc or port == 0 or re.search(r"[\x00-\x20\x7f]|[^\x00-\x7f]", url):
        raise DownloadError(DownloadCode.BAD_URL, "the URL holds a user name, a zero port or characters to quote")
    if parts.scheme == "http" and not limits.allow_unencrypted and not _is_loopback(parts.hostname):
        text = f"plain http to {parts.hostname} needs allow_unencrypted in the agent's configuration"
        raise DownloadError(DownloadCode.BAD_URL, text)
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ask(
    parts: SplitResult, wanted: Wanted, limits: Limits, stop: Stop
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = http.client.HTTPConnection(host, port)
    try:
        connection.sock = _connect(host, port, parts.scheme == "https", limits, stop)
        connection.request("GET", _target(parts), headers=_headers(parts, wanted))
        return connection, connection.getresponse()
    except (OSError, http.client.HTTPException) as problem:
        stop.forget()
        connection.close()
        stop.check()
        raise _no_answer(host, port, problem) from problem


def _no_answer(host: str, port: int, problem: Exception) -> DownloadError:
    if isinstance(problem, TimeoutError) and not isinstance(problem, ConnectTimeout):
        return DownloadError(DownloadCode.STALLED, f"{host}:{port} accepted and did not answer")
    return DownloadError(DownloadCode.NO_CONNECTION, f"no connection to {host}:{port}: {problem!r}")


class ConnectTimeout(TimeoutError):
    """No connection in time, as against silence on one."""


def _connect(host: str, port: int, encrypted: bool, limits: Limits, stop: Stop) -> socket.socket:
    """A connected socket to the first address of `host` that takes one; OSError of the last otherwise."""
    last = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in _addresses(host, port):
        wire = socket.socket(family, kind, protocol)
        try:
            wire.settimeout(limits.connect_s)
            stop.watch(wire)
            wire.connect(address)
            return _encrypted(wire, host, limits, stop) if encrypted else _ready(wire, limits)
        except OSError as problem:
            wire.close()
            stop.check()
            last = problem
        except Stopped:
            wire.close()
            raise
    if isinstance(last, TimeoutError):
        raise ConnectTimeout(f"no answer within {limits.connect_s:g} s") from last
    raise last


Address = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, Address]]:
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except UnicodeError as problem:
        raise DownloadError(DownloadCode.BAD_URL, f"{host} cannot be a host name") from problem


def _encrypted(wire: socket.socket, host: str, limits: Limits, stop: Stop) -> socket.socket:
    context = ssl.create_default_context()
    wrapped = context.wrap_socket(wire, server_hostname=host, do_handshake_on_connect=False)
    try:
        stop.watch(wrapped)
        wrapped.do_handshake()
    except (OSError, Stopped):
        wrapped.close()
        raise
    return _ready(wrapped, limits)


def _ready(wire: socket.socket, limits: Limits) -> socket.socket:
    wire.settimeout(limits.stall_s)
    return wire


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _headers(parts: SplitResult, wanted: Wanted) -> dict[str, str]:
    headers = {
        "Host": parts.netloc,
        "Accept-Encoding": "identity",
        "Connection": "close",
        "User-Agent": "twinroot-agent",
    }
    if wanted.start:
        headers["Range"] = f"bytes={wanted.start}-"
        if wanted.etag.startswith('"'):  # If-Range compares strongly: a weak tag never matches
            headers["If-Range"] = wanted.etag
    return headers


def _range_start(response: http.client.HTTPResponse) -> int:
    if response.status == HTTPStatus.OK:
        return 0
    match = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _close(connection: http.client.HTTPConnection, response: http.client.HTTPResponse, stop: Stop) -> None:
    stop.forget()
    response.close()
    connection.close()
