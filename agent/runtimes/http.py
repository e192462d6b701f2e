"""The little of HTTP/1.1 that container engines speak, without I/O: a request's bytes, a response's parser.

RFC 9112. Strict: what is ambiguous there is an error here, and every length has a limit, for the other end
is a program on the same machine that may be broken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

MAX_HEAD_BYTES = 32 * 1024
"""Status line and header fields together; engines send some 400 bytes."""

MAX_LINE_BYTES = 8 * 1024
"""One line of chunked framing (size and extensions, or a trailer field)."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")
_FIELD_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;.*)?", re.DOTALL)
_CONTENT_LENGTH = re.compile(r"[0-9]{1,15}")


class HttpError(Exception):
    """The answer is not HTTP as we accept it. Field: text (half a sentence)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True)
class Head:
    """Status code and header fields; names in lower case, the values of repeated ones joined by commas."""

    status: int
    fields: Mapping[str, str]


class _State(Enum):
    HEAD = "head"
    LENGTH = "body of known length"
    CHUNK_SIZE = "chunk size"
    CHUNK = "chunk"
    CHUNK_END = "end of chunk"
    TRAILER = "trailer"
    UNTIL_CLOSE = "body until close"
    DONE = "done"


def request(path: str) -> bytes:
    """A GET request for `path`, one per connection. The host is fixed: unix sockets have none."""
    if not path.startswith("/") or not path.isascii() or any(c.isspace() for c in path):
        raise ValueError(f"not a request path: {path!r}")
    return (f"GET {path} HTTP/1.1\r\nHost: engine\r\nAccept: application/json\r\nConnection: close\r\n\r\n").encode()


class ResponseParser:
    """Takes the bytes of one response in any pieces and gives back the body's bytes as they come.

    `head` is None until the header is complete; `done` is True at the end of the body.
    """

    def __init__(self) -> None:
        self.head: Head | None = None
        self._state = _State.HEAD
        self._buffer = bytearray()
        self._left = 0

    @property
    def done(self) -> bool:
        return self._state is _State.DONE

    def feed(self, received: bytes) -> bytes:
        """Body bytes that `received` completes; HttpError when it breaks the rules."""
        self._buffer += received
        body = bytearray()
        while self._step(body):
            pass
        return bytes(body)

    def closed(self) -> None:
        """The other end closed; HttpError unless the response was complete."""
        if self._state is _State.UNTIL_CLOSE:
            self._state = _State.DONE
        if self._state is not _State.DONE:
            raise HttpError("the answer broke off" if self.head or self._buffer else "closed without an answer")

    def _step(self, body: bytearray) -> bool:
        """One move of the machine; False when it needs more bytes."""
        match self._state:
            case _State.HEAD:
                return self._read_head()
            case _State.LENGTH | _State.CHUNK:
                return self._read_counted(body)
            case _State.UNTIL_CLOSE:
                body += self._buffer
                self._buffer.clear()
                return False
            case _State.DONE:
                if self._buffer:
                    raise HttpError("bytes after the end of the answer")
                return False
            case _:
                return self._read_framing()

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._buffer) > MAX_HEAD_BYTES):
            raise HttpError("the answer's header is too long")
        if end < 0:
            _reject_early(self._buffer)
            return False
        head = _parse_head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        if head.status < 200:
            return True  # 100 and 103 come before the real answer (RFC 9110 §15.2)
        self.head = head
        self._begin_body(head)
        return True

    def _begin_body(self, head: Head) -> None:
        coding = head.fields.get("transfer-encoding")
        length = head.fields.get("content-length")
        if coding is not None and length is not None:
            raise HttpError("the answer states its length in two ways")  # RFC 9112 §6.3: request smuggling
        if head.status in (204, 304):
            self._state = _State.DONE
        elif coding is not None:
            if coding.strip().lower() != "chunked":
                raise HttpError("the answer has an unknown transfer coding")
            self._state = _State.CHUNK_SIZE
        elif length is not None:
            if not _CONTENT_LENGTH.fullmatch(length):
                raise HttpError("the answer's length is not a number")
            self._left = int(length)
            self._state = _State.LENGTH if self._left else _State.DONE
        else:
            self._state = _State.UNTIL_CLOSE

    def _read_counted(self, body: bytearray) -> bool:
        taken = self._buffer[: self._left]
        if not taken:
            return False
        del self._buffer[: len(taken)]
        body += taken
        self._left -= len(taken)
        if self._left == 0:
            self._state = _State.DONE if self._state is _State.LENGTH else _State.CHUNK_END
        return True

    def _read_framing(self) -> bool:
        line = self._take_line()
        if line is None:
            return False
        if self._state is _State.CHUNK_SIZE:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise HttpError("a chunk's size is not a number")
            self._left = int(match[1], 16)
            self._state = _State.CHUNK if self._left else _State.TRAILER
        elif self._state is _State.CHUNK_END:
            if line:
                raise HttpError("a chunk is longer than it says")
            self._state = _State.CHUNK_SIZE
        elif not line:  # the empty line after the trailer
            self._state = _State.DONE
        return True

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end > MAX_LINE_BYTES or (end < 0 and len(self._buffer) > MAX_LINE_BYTES):
            raise HttpError("a line of the answer's framing is too long")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


def _reject_early(start: bytearray) -> None:
    """Something that does not even begin like HTTP need not be waited for."""
    magic = b"HTTP/1."
    if not magic.startswith(bytes(start[: len(magic)])):
        raise HttpError("the answer is not HTTP")


def _parse_head(raw: bytes) -> Head:
    status_line, *lines = raw.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(status_line)
    if match is None:
        raise HttpError("the answer is not HTTP")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _FIELD_NAME.fullmatch(name):
            raise HttpError("a header field of the answer is malformed")
        key = name.decode("ascii").lower()
        text = value.strip(b" \t").decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return Head(int(match[1]), fields)
