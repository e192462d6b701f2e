"""What comes in over HTTP: the two websockets and the three health pages; everything else is not here."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from app.gateway.counts import exposition
from app.gateway.live import Live
from app.gateway.parts import Parts
from app.services.sign_in import SESSION_COOKIE

AGENT = "/agent"
LIVE = "/live"

_READY_BEATS = 3
"""Ready means that the database has answered within so many of our heartbeats."""


def remote_of(connection: ServerConnection) -> str:
    """The other end's address as we see it; nothing that it says of itself is believed."""
    address = connection.remote_address
    return str(address[0]) if address else ""


class Doors:
    """`look_at` is the gateway's `process_request`."""

    def __init__(self, parts: Parts, live: Live) -> None:
        self._parts = parts
        self._live = live
        self._own_origin = _origin(parts.settings.public_url)
        self._pages: dict[str, Callable[[ServerConnection], Response]] = {
            "/healthz": lambda connection: connection.respond(HTTPStatus.OK, "ok\n"),
            "/readyz": self._readyz,
            "/metrics": self._metrics,
        }

    async def look_at(self, connection: ServerConnection, request: Request) -> Response | None:
        """None to go on with the websocket, else the answer."""
        path = request.path.partition("?")[0]
        page = self._pages.get(path)
        if page is not None:
            return page(connection)
        if path not in (AGENT, LIVE):
            return connection.respond(HTTPStatus.NOT_FOUND, "There is nothing here.\n")
        if self._parts.draining:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "The gateway restarts.\n")
        if path == AGENT:
            return self._agent(connection)
        return await self._page(connection, request)

    # --- websockets --------------------------------------------------------------------------------------

    def _agent(self, connection: ServerConnection) -> Response | None:
        if self._parts.settings.allow_unencrypted or _is_loopback(remote_of(connection)):
            return None
        text = "Unencrypted connections are accepted from this machine only: put TLS before the gateway, "
        return connection.respond(HTTPStatus.FORBIDDEN, text + "or set TWINROOT_ALLOW_UNENCRYPTED=1.\n")

    async def _page(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.headers.get_all("Origin") != [self._own_origin]:
            return connection.respond(HTTPStatus.FORBIDDEN, "This page does not belong to this console.\n")
        secret = session_secret(request.headers)
        if not secret or await self._live.session(secret) is None:
            return connection.respond(HTTPStatus.UNAUTHORIZED, "Sign in first.\n")
        return None

    # --- health ------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        parts = self._parts
        answered_at = parts.threads.answered_at
        if parts.keyring.keys is None or parts.draining or answered_at is None:
            return False
        return asyncio.get_running_loop().time() - answered_at < _READY_BEATS * parts.limits.beat_s

    def _readyz(self, connection: ServerConnection) -> Response:
        if self.ready:
            return connection.respond(HTTPStatus.OK, "ready\n")
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "not ready: the database does not answer\n")

    def _metrics(self, connection: ServerConnection) -> Response:
        response = connection.respond(HTTPStatus.OK, "")
        response.body = exposition(self._parts.counts, self._gauges)
        del response.headers["Content-Type"], response.headers["Content-Length"]
        response.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
        response.headers["Content-Length"] = str(len(response.body))
        return response

    def _gauges(self) -> dict[str, float]:
        parts = self._parts
        return {
            "nodes": parts.registry.speakers,
            "held": parts.registry.held_count,
            "opening": parts.doorway.opening,
            "pages": self._live.pages,
            "unwritten_nodes": parts.writer.unwritten,
            "ready": float(self.ready),
        }


def session_secret(headers: Headers) -> str:
    """The session cookie's value; "" when there is none."""
    # Not http.cookies: it gives up a whole line for one odd cookie that other software set on this host.
    for line in headers.get_all("Cookie"):
        for pair in line.split(";"):
            name, _, value = pair.strip().partition("=")
            if name == SESSION_COOKIE:
                return value.strip('"')
    return ""


def _origin(url: str) -> str:
    """As browsers write it: without the default port."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}[parts.scheme]
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" if parts.port in (None, default) else f"{parts.scheme}://{host}:{parts.port}"


def _is_loopback(remote: str) -> bool:
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
