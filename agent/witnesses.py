"""Who tells that the network stands when the gateway does not answer (rule 6 of the design).

Before a reboot the agent notes which witnesses answer. On trial in the new slot, without a connection to the
gateway, it stays as long as they still do: then it is the control plane that is away, not this node.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from agent import blocking, routes

ROUTE = "route"
DNS = "dns"
URL = "url"


@dataclass(frozen=True)
class WitnessConfig:
    """Which witnesses there are. DNS names should be ones that exist for good, URLs absolute."""

    default_route: bool = True
    dns_names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    timeout_s: float = 10.0
    """For each of them; all are asked at once. Below 8 s a quiet gateway may count as silent."""
    root: Path = Path("/")

    def __post_init__(self) -> None:
        for url in self.urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"a witness URL must be http:// or https:// with a host, not {url!r}")
            _ = parts.port  # ValueError when it is not a number


async def probe(config: WitnessConfig) -> dict[str, bool]:
    """Whether each witness answers now, by name: `route`, `dns:NAME`, `url:URL`. Takes at most `timeout_s`."""
    asked: dict[str, Awaitable[bool]] = {}
    if config.default_route:
        asked[ROUTE] = _route_answers(config)
    for name in config.dns_names:
        asked[f"{DNS}:{name}"] = _name_resolves(name, config.timeout_s)
    for url in config.urls:
        asked[f"{URL}:{url}"] = _url_answers(url, config.timeout_s)
    answers = await asyncio.gather(*asked.values())
    return dict(zip(asked, answers, strict=True))


def still_standing(before: Mapping[str, bool], now: Mapping[str, bool]) -> bool:
    """Whether of each kind that answered before at least one answers now; False when none did before.

    One of a kind is enough: a single name or page may vanish for reasons of its own. Pure.
    """
    kinds_before = _kinds_that_answer(before)
    return bool(kinds_before) and kinds_before <= _kinds_that_answer(now)


def _kinds_that_answer(witnesses: Mapping[str, bool]) -> set[str]:
    return {name.partition(":")[0] for name, answers in witnesses.items() if answers}


async def _route_answers(config: WitnessConfig) -> bool:
    found = routes.default_routes(config.root)
    return any(await asyncio.gather(*(routes.answers(r, config.timeout_s, config.root) for r in found)))


async def _name_resolves(name: str, limit_s: float) -> bool:
    """Whether the system's resolver has an address; it may answer from its cache or its hosts file."""
    try:
        return bool(await blocking.call(f"resolve {name}", lambda: socket.getaddrinfo(name, None), limit_s))
    except (OSError, UnicodeError):  # TimeoutError is an OSError; UnicodeError: no name that DNS can have
        return False


async def _url_answers(url: str, limit_s: float) -> bool:
    """Whether anything that speaks HTTP answers there, whatever it says."""
    try:
        return await blocking.call(f"get {url}", lambda: _get(url, limit_s), limit_s)
    except (OSError, http.client.HTTPException, UnicodeError):
        return False


def _get(url: str, limit_s: float) -> bool:
    parts = urlsplit(url)
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, limit_s)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"User-Agent": "twinroot-agent", "Connection": "close"})
        return connection.getresponse().status > 0
    finally:
        connection.close()


def _connection(scheme: str, host: str, port: int | None, limit_s: float) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=limit_s)
    # The certificate is not looked at: its dates need a right clock, which a node may lack after a reboot,
    # and nothing is sent or believed but that someone answers.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=limit_s, context=context)
