"""Images for `files` nodes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from wire.messages import Image


def content_of(version: str, *, boot: str = "ok", payload: bytes = b"payload", more: str = "") -> bytes:
    header = (
        f'ID=demo-os\nNAME="Demo OS"\nPRETTY_NAME="Demo OS {version}"\nVERSION_ID={version}\n'
        f"ARCHITECTURE=amd64\nTWINROOT_BOOT={boot}\n{more}--\n"
    )
    return header.encode() + payload


def write_image(path: Path, content: bytes, version: str) -> Image:
    """The image of `content`, which now stands in `path`."""
    path.write_bytes(content)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Image(os="demo-os", arch="amd64", version=version, digest=digest, size=len(content))
