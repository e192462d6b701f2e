"""Close codes of `/agent` (RFC 6455 §7.4.2: 4000 to 4999 are private use) and the error that carries one."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    RESTART = 1012
    """The gateway drains; come back with full jitter."""
    TOO_BIG = 1009
    MALFORMED = 4400
    BAD_PROOF = 4401
    REVOKED = 4403
    UNKNOWN_NODE = 4404
    TIMEOUT = 4408
    OUT_OF_ORDER = 4409
    RETIRED = 4410
    TOO_MANY = 4429
    JOIN_REFUSED = 4430
    UNSUPPORTED = 4426
    SILENT = 4440
    """No heartbeat for several intervals."""
    REPLACED = 4441
    """The same machine came back on a new connection while this one was dead."""


FINAL = frozenset({CloseCode.REVOKED, CloseCode.UNKNOWN_NODE, CloseCode.RETIRED, CloseCode.JOIN_REFUSED})
"""Codes after which an agent does not hurry back: it tries once an hour, since an operator may undo it."""


class WireError(Exception):
    """The other end broke the protocol; the connection closes with `code`.

    Fields: code (CloseCode), detail (one sentence, safe to show).
    """

    def __init__(self, code: CloseCode, detail: str) -> None:
        super().__init__(f"{code.name.lower().replace('_', ' ')}: {detail}")
        self.code = code
        self.detail = detail
