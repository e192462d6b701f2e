"""A page as a browser keeps it live: what static/live.js and htmx do, without drawing.

The page is fetched, its live parts are found, and `/live` is told their topics. When a topic's revision is beyond
that of the part, the part is fetched with its ETag as htmx does (one request at a time, the last one that was wanted
waits) and takes the place of the old one; a part that is still behind is fetched again a little later,
unless news come before.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from app.services.sign_in import SESSION_COOKIE
from bench.console import Console

AGAIN_S = 3.0
"""AGAIN_MS of static/live.js."""
_PART = re.compile(r'id="([^"]+)" data-topics="([^"]*)" data-revisions="([^"]*)" data-etag="([^"]*)" hx-get="([^"]*)"')

_FRAME = "freeze-banner"
"""On every page, and asked for again when somebody freezes."""

Shown = Callable[[str], None]
"""Called with the text of the page and of each new fragment, at once."""


@dataclass(slots=True)
class Part:
    id: str
    topics: list[str]
    revisions: list[int]
    etag: str
    path: str


def parts_of(text: str) -> list[Part]:
    """The live parts of a page, or of a fragment, as templates mark them (app.web.live); not those of the frame."""
    return [
        Part(id, topics.split(), [int(each) for each in revisions.split()], unescape(etag), unescape(path))
        for id, topics, revisions, etag, path in _PART.findall(text)
        if id != _FRAME
    ]


class Page:
    """One open page. Field: answers, how often a part was fetched, by status."""

    def __init__(self, site: Console, path: str, shown: Shown | None = None) -> None:
        self._site = site
        self._path = path
        self._shown = shown
        self._latest: dict[str, int] = {}
        self._http = _Http(site)
        self._part: Part | None = None
        self._wanted = asyncio.Event()
        self._again: asyncio.TimerHandle | None = None
        self.opened = asyncio.Event()
        self.answers: Counter[int] = Counter()

    @property
    def behind(self) -> bool:
        """Whether a topic changed since what is shown was rendered."""
        part = self._part
        assert part is not None, "the page is open"
        pairs = zip(part.topics, part.revisions, strict=True)
        return any(self._latest.get(topic, 0) > revision for topic, revision in pairs)

    async def run(self) -> None:
        """Open, and stay live until cancelled."""
        status, text = await self._http.get(self._path, {})
        parts = parts_of(text)
        if status != 200 or len(parts) != 1:
            raise RuntimeError(f"{self._path} answered {status} with {len(parts)} live parts")
        self._part = parts[0]
        if self._shown is not None:
            self._shown(text)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                group.create_task(self._fetch_on())
        finally:
            self._http.close()

    async def _listen(self) -> None:
        assert self._part is not None
        headers = {"Cookie": f"{SESSION_COOKIE}={self._site.secret}"}
        async with connect(
            f"ws://{self._site.gateway}/live",
            origin=self._site.origin,  # type: ignore[arg-type]
            additional_headers=headers,
            compression=None,
            proxy=None,
        ) as socket:
            await socket.send(msgspec.json.encode({"topics": self._part.topics}).decode())
            try:
                async for frame in socket:
                    news = msgspec.json.decode(frame)["topics"]
                    self._latest |= {topic: int(revision) for topic, revision in news.items()}
                    self.opened.set()
                    if self.behind:
                        self._wanted.set()
            except ConnectionClosed as error:
                raise RuntimeError(f"the gateway closed a page: {error}") from error

    async def _fetch_on(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._again is not None:
                self._again.cancel()
            await self._fetch()
            if self.behind:
                self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        if self.behind:
            self._wanted.set()

    async def _fetch(self) -> None:
        part = self._part
        assert part is not None
        headers = {
            "HX-Request": "true",
            "HX-Request-Type": "partial",
            "HX-Target": f"div#{part.id}",
            "If-None-Match": part.etag,
        }
        status, text = await self._http.get(part.path, headers)
        self.answers[status] += 1
        if status == 304:
            return
        if status != 200:
            raise RuntimeError(f"{part.path} answered {status}")
        [self._part] = parts_of(text)
        if self._shown is not None:
            self._shown(text)


class _Http:
    """One kept-alive HTTP/1.1 connection; enough of the protocol for the console's answers (RFC 9112)."""

    def __init__(self, site: Console) -> None:
        self._site = site
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """Status and text."""
        try:
            return await self._ask(path, headers)
        except (asyncio.IncompleteReadError, ConnectionError):
            if self._streams is None:
                raise
            self.close()  # an idle connection was closed by the server: browsers try once more
            return await self._ask(path, headers)

    async def _ask(self, path: str, headers: dict[str, str]) -> tuple[int, str]:
        address = self._site.http
        if self._streams is None:
            self._streams = await asyncio.open_connection(address.host, address.port)
        reader, writer = self._streams
        fields = {
            "Host": str(address),
            "Accept-Encoding": "gzip",
            "Cookie": f"{SESSION_COOKIE}={self._site.secret}",
            **headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        got = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        status = int(first.split()[1])
        body = b"" if status == 304 else await reader.readexactly(int(got["content-length"]))
        return status, (gzip.decompress(body) if got.get("content-encoding") == "gzip" else body).decode()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
