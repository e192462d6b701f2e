"""What an image says of itself: the os-release block that images of the `files` driver begin with. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

HEADER_BYTES = 16 * 1024
"""An os-release is a few hundred bytes; more than this is no header."""
_END = b"\n--\n"


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Empty where the block does not say."""

    os: str = ""
    arch: str = ""
    version: str = ""


def read_header(start: bytes) -> ImageHeader:
    """The names in the block at the `start` of an image; an empty header where the image has none."""
    block, end, _ = start[:HEADER_BYTES].partition(_END)
    if not end:
        return ImageHeader()
    try:
        values = _values(block.decode("utf-8"))
    except ValueError:
        return ImageHeader()  # other formats begin with bytes of their own: then the operator names the image
    return ImageHeader(values.get("ID", ""), values.get("ARCHITECTURE", ""), values.get("VERSION_ID", ""))


def _values(text: str) -> dict[str, str]:
    """The assignments of os-release(5)."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise ValueError("not an assignment")
        values[key.strip()] = "".join(shlex.split(value))
    return values
