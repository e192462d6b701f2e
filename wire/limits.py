"""The one table of limits on what messages contain, as types that wire.messages names at its fields.

Decoding checks them, building a message does not; a node's end cuts texts that are too long before it sends
them (wire.fitting). The limits are several times what real nodes send: their purpose is that no peer makes the
other end store, show or sort without bounds.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

_VISIBLE = r"^[\x21-\x7e]*\Z"

SLOTS = 8
CONTAINERS = 20_000
CHECKS = 256
REASONS = 64
LABELS = 64
FAILED_VERSIONS = 256
MIRRORS = 8

NAME_CHARS = 256
IMAGE_REFERENCE_CHARS = 1024
TEXT_CHARS = 4096
OUTPUT_CHARS = 8192

Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=_VISIBLE)]
"""Visible ASCII: ids stand in signed lines, in paths and in logs."""

Code = Annotated[str, Meta(min_length=1, max_length=64, pattern=_VISIBLE)]
"""A short word that programs compare."""

Name = Annotated[str, Meta(max_length=NAME_CHARS)]
"""Names and versions; may be empty."""

ImageReference = Annotated[str, Meta(max_length=IMAGE_REFERENCE_CHARS)]
"""A container image: registry, path, tag and digest."""

Text = Annotated[str, Meta(max_length=TEXT_CHARS)]
"""A sentence or a few for people."""

Output = Annotated[str, Meta(max_length=OUTPUT_CHARS)]
"""What a check printed: twice the 4 KiB that an agent keeps."""

Token = Annotated[str, Meta(min_length=1, max_length=256, pattern=_VISIBLE)]
Url = Annotated[str, Meta(max_length=4096)]

# Unpadded base64url whose unused last bits are zero, so that one key has one spelling.
Key = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]\Z")]
"""32 bytes: a public key or a nonce of the opening."""
Signature = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{85}[AQgw]\Z")]
"""64 bytes."""

Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]

LabelKey = Annotated[str, Meta(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*\Z")]
Labels = Annotated[dict[LabelKey, Name], Meta(max_length=LABELS)]

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""Sequence numbers, epochs, generations, bytes: exact in every JSON reader."""
Small = Annotated[int, Meta(ge=0, le=100_000)]
Milliseconds = Annotated[int, Meta(ge=0, le=10**9)]

Time = Annotated[float, Meta(ge=-62_135_596_800, le=253_402_300_799)]
"""Unix seconds from the year 1 to 9999: whatever a node's clock says, a date can be made of it."""
Seconds = Annotated[float, Meta(ge=0, le=10**9)]
SecondsLeft = Annotated[float, Meta(ge=-(10**9), le=10**9)]
"""Below zero when overdue."""
Share = Annotated[float, Meta(ge=0, le=1)]


def cut(text: str, chars: int = NAME_CHARS) -> str:
    """`text` within a limit and sendable: cut with an ellipsis, without NUL and lone surrogates."""
    clean = text.replace("\0", "").encode(errors="replace").decode()
    return clean if len(clean) <= chars else clean[: chars - 1] + "…"
