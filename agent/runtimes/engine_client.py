"""GET requests to a container engine over its unix socket; every failure is an EngineError in plain words."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.runtimes.http import Head, HttpError, ResponseParser, request

READ_BYTES = 64 * 1024
"""Size of one read: a list of some 80 containers."""


class EngineError(Exception):
    """The engine cannot be read. Field: text (one sentence without its full stop)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Answering:
    """One request under way: its head is known, its body still comes."""

    def __init__(self, reader: asyncio.StreamReader, parser: ResponseParser, head: Head, early: bytes) -> None:
        self.head = head
        self._reader = reader
        self._parser = parser
        self._early = early

    async def read(self) -> bytes:
        """The next piece of the body, as long as it may take; empty at its end. Safe to cancel."""
        if self._early:
            early, self._early = self._early, b""
            return early
        while not self._parser.done:
            received = await self._reader.read(READ_BYTES)
            if not received:
                self._parser.closed()
                return b""
            body = self._parser.feed(received)
            if body:
                return body
        return b""

    async def read_all(self, max_bytes: int) -> bytes:
        """The whole body; EngineError when it is larger than `max_bytes`."""
        body = bytearray()
        while piece := await self.read():
            body += piece
            if len(body) > max_bytes:
                raise EngineError(f"the engine's answer is larger than {max_bytes // 1024} KiB")
        return bytes(body)


@asynccontextmanager
async def asking(socket: Path, path: str) -> AsyncIterator[Answering]:
    """Ask for `path` on a connection of its own, which closes at the end of the block.

    Errors inside the block that come from the connection or from what the engine sent become EngineError.
    There is no time limit here: the caller sets one.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError as error:
        raise EngineError(_why_not_connected(socket, error)) from error
    try:
        writer.write(request(path))
        yield await _read_head(reader)
    except HttpError as error:
        raise EngineError(f"the engine at {socket} sent garbage: {error.text}") from error
    except OSError as error:
        raise EngineError(f"the connection to the engine at {socket} broke ({_name(error)})") from error
    finally:
        # Not a polite close: that waits for a peer that may hang.
        writer.transport.abort()


async def _read_head(reader: asyncio.StreamReader) -> Answering:
    parser = ResponseParser()
    early = b""
    while parser.head is None:
        received = await reader.read(READ_BYTES)
        if not received:
            parser.closed()
        early += parser.feed(received)
    return Answering(reader, parser, parser.head, early)


def _why_not_connected(socket: Path, error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return f"there is no engine socket at {socket}"
        case PermissionError():
            return f"no permission to open the engine socket {socket}"
        case ConnectionRefusedError():
            return f"no engine listens at {socket}"
        case _:
            return f"the engine socket {socket} cannot be opened ({_name(error)})"


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "") or str(error) or type(error).__name__
