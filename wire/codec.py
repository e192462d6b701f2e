"""Frames to messages and back. No I/O; every fault of the other end is a WireError.

Decoding checks types, sizes and the limits that are written at the fields in wire.messages, so that whoever
gets a message may store and show it as it is.
"""

from __future__ import annotations

import re
from typing import Generic, Protocol, TypeVar

import msgspec
from msgspec import UNSET

from wire.close import CloseCode, WireError
from wire.messages import (
    MAX_FRAME_BYTES,
    MAX_WHOLE_BYTES,
    PART_CHARS,
    FromNode,
    FromServer,
    Message,
    Part,
    Status,
)

DETAIL_CHARS = 110
"""Longest detail of a WireError made here, plain ASCII: fits a close frame (RFC 6455 §5.5: 123 bytes)."""

PART_HEADER_BYTES = 128
"""Room for everything in a `part` frame but its text."""

_encoder = msgspec.json.Encoder()
_from_node: msgspec.json.Decoder[FromNode] = msgspec.json.Decoder(FromNode)
_from_server: msgspec.json.Decoder[FromServer] = msgspec.json.Decoder(FromServer)

# An escaped NUL, that is one whose backslash is not itself escaped. PostgreSQL stores no NUL in text, and one
# refused row would fail the batch of all other nodes.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

M = TypeVar("M", FromNode, FromServer)
Got = TypeVar("Got", bound=Message, covariant=True)


class Decode(Protocol[Got]):
    """One of the two decoders below; `limit` in bytes of UTF-8."""

    def __call__(self, frame: str | bytes, limit: int = MAX_FRAME_BYTES) -> Got: ...


def decode_from_node(frame: str | bytes, limit: int = MAX_FRAME_BYTES) -> FromNode:
    """The message that a node sent; WireError TOO_BIG above `limit` bytes, MALFORMED for anything invalid."""
    message = _decode(_from_node, frame, limit)
    if type(message) is Status:
        _check_status(message)
    return message


def decode_from_server(frame: str | bytes, limit: int = MAX_FRAME_BYTES) -> FromServer:
    """The message that a gateway sent; errors as in `decode_from_node`."""
    return _decode(_from_server, frame, limit)


def encode(message: Message) -> list[str]:
    """The frames of `message`, in the order to be sent: itself, or the parts of one that is too long.

    WireError TOO_BIG when it is longer than MAX_WHOLE_BYTES; ValueError when a text cannot be UTF-8.
    """
    raw = _encoder.encode(message)
    if len(raw) <= MAX_FRAME_BYTES:
        return [raw.decode()]
    if len(raw) > MAX_WHOLE_BYTES:
        raise WireError(CloseCode.TOO_BIG, f"a message of {len(raw)} bytes; the limit is {MAX_WHOLE_BYTES}")
    pieces = _split(raw.decode())
    return [
        _encoder.encode(Part(index=index, count=len(pieces), text=piece)).decode() for index, piece in enumerate(pieces)
    ]


def is_acceptable(message: FromNode) -> bool:
    """Whether a gateway takes what this message says; looks at all of it."""
    try:
        decode_from_node(_encoder.encode(message), MAX_WHOLE_BYTES)
    except (WireError, UnicodeEncodeError):
        return False
    return True


class Assembler(Generic[Got]):
    """Puts the parts of a message together; at most MAX_WHOLE_BYTES are ever held.

    After an error it is empty again, but the connection is to be closed anyway.
    """

    __slots__ = ("_bytes", "_count", "_decode", "_texts")

    def __init__(self, decode: Decode[Got]) -> None:
        self._decode = decode
        self._clear()

    def _clear(self) -> None:
        self._texts: list[str] = []
        self._count = 0
        self._bytes = 0

    @property
    def waiting(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._texts)

    def feed(self, message: Got | Part) -> Got | None:
        """The message itself, or the whole one with its last part; None while parts are missing.

        WireError OUT_OF_ORDER when a part is missing, repeated or interrupted, TOO_BIG and MALFORMED as in
        the decoders.
        """
        try:
            return self._feed(message)
        except WireError:
            self._clear()
            raise

    def _feed(self, message: Got | Part) -> Got | None:
        if not isinstance(message, Part):
            if self._texts:
                raise WireError(CloseCode.OUT_OF_ORDER, f"a message began after {len(self._texts)} parts")
            return message
        if message.index != len(self._texts) or (self._texts and message.count != self._count):
            place = f"part {message.index} of {message.count}"
            raise WireError(CloseCode.OUT_OF_ORDER, f"{place} after {len(self._texts)} of {self._count}")
        self._bytes += len(message.text.encode())
        if self._bytes > MAX_WHOLE_BYTES:
            raise WireError(CloseCode.TOO_BIG, f"parts of more than {MAX_WHOLE_BYTES} bytes")
        self._count = message.count
        self._texts.append(message.text)
        if len(self._texts) < self._count:
            return None
        text = "".join(self._texts)
        self._clear()
        whole = self._decode(text, MAX_WHOLE_BYTES)
        if isinstance(whole, Part):
            raise WireError(CloseCode.OUT_OF_ORDER, "a part within parts")
        return whole


def _decode(decoder: msgspec.json.Decoder[M], frame: str | bytes, limit: int) -> M:
    try:
        raw = frame.encode() if isinstance(frame, str) else frame
        if len(raw) > limit:
            raise WireError(CloseCode.TOO_BIG, f"{len(raw)} bytes; the limit is {limit}")
        message = decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _malformed(str(error)) from error
    if b"\\u0000" in raw and _NUL.search(raw):
        raise _malformed("a text contains NUL")
    if isinstance(message, Part) and message.index >= message.count:
        raise _malformed(f"part {message.index} of {message.count} - at `$.index`")
    return message


def _check_status(status: Status) -> None:
    if status.slots is not UNSET and len({slot.name for slot in status.slots}) != len(status.slots):
        raise _malformed("two slots with one name - at `$.slots`")
    if status.placement is not UNSET:
        containers = status.placement.containers
        if len({container.id for container in containers}) != len(containers):
            raise _malformed("two containers with one id - at `$.placement.containers`")


def _malformed(detail: str) -> WireError:
    # The text may quote what the other end sent, at any length; where it went wrong stands at its end.
    plain = detail.encode("ascii", "backslashreplace").decode()
    if len(plain) > DETAIL_CHARS:
        plain = plain[: DETAIL_CHARS // 2 - 3] + "..." + plain[-(DETAIL_CHARS // 2) :]
    return WireError(CloseCode.MALFORMED, "".join(char if char.isprintable() else "?" for char in plain))


def _split(text: str) -> list[str]:
    """Pieces of `text`, each of which fits one `part` frame whatever its characters cost."""
    pieces = []
    start = 0
    while start < len(text):
        chars = PART_CHARS
        # A character costs 1 to 4 bytes, and quotes and backslashes are escaped once more.
        while len(_encoder.encode(text[start : start + chars])) > MAX_FRAME_BYTES - PART_HEADER_BYTES:
            chars //= 2
        pieces.append(text[start : start + chars])
        start += chars
    return pieces
