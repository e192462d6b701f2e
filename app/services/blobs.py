"""The content-addressed store of image files: `DATA_DIR/images/ab/abcdef…`, named by SHA-256.

A file appears under its name only when it is whole and on the medium. What an upload leaves behind when its
process is killed is removed by a later upload.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from app.config import Settings
from app.core.errors import NoSpace, TooLarge
from app.core.image_header import HEADER_BYTES
from app.core.image_identity import MAX_IMAGE_BYTES

_CHUNK_BYTES = 1024 * 1024
_ABANDONED_S = 24 * 3600.0
"""An upload that takes longer than a day is dead."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Received:
    """A whole upload that has no name yet. `start` is its first bytes."""

    path: Path
    digest: str
    size: int
    start: bytes


class Blobs:
    """The image files of one installation."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.data_dir / "images"
        self._incoming = self._root / "incoming"

    def path(self, digest: str) -> Path:
        """Where the file of a checked digest is, if it is there."""
        name = digest.removeprefix("sha256:")
        return self._root / name[:2] / name

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    @contextmanager
    def receive(self, stream: Readable, now: float, limit: int = MAX_IMAGE_BYTES) -> Iterator[Received]:
        """Write `stream` to a temporary file that is gone afterwards, unless it was kept.

        TooLarge beyond `limit` bytes, NoSpace when the disk is full; nothing is left behind.
        """
        with no_space_said():
            self._incoming.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned(now)
            handle, name = tempfile.mkstemp(dir=self._incoming)
        path = Path(name)
        try:
            with no_space_said(), os.fdopen(handle, "wb") as out:
                received = _copy(stream, out, path, limit)
            yield received
        finally:
            path.unlink(missing_ok=True)

    def keep(self, received: Received) -> None:
        """Give the file its name; the same content twice is fine."""
        target = self.path(received.digest)
        with no_space_said():
            target.parent.mkdir(parents=True, exist_ok=True)
            received.path.chmod(0o644)
            received.path.rename(target)
            _sync_folder(target.parent)
            _sync_folder(self._root)

    def _remove_abandoned(self, now: float) -> None:
        for path in self._incoming.iterdir():
            try:
                if path.stat().st_mtime < now - _ABANDONED_S:
                    path.unlink()
            except FileNotFoundError:
                continue  # its own upload has just ended


def _copy(stream: Readable, out: IO[bytes], path: Path, limit: int) -> Received:
    digest, size, start = hashlib.sha256(), 0, b""
    while chunk := stream.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"An image has at most {limit} bytes; this one is larger. Nothing was stored.")
        start += chunk[: HEADER_BYTES - len(start)]
        digest.update(chunk)
        out.write(chunk)
    out.flush()
    os.fsync(out.fileno())
    return Received(path, f"sha256:{digest.hexdigest()}", size, start)


@contextmanager
def no_space_said() -> Iterator[None]:
    """Whatever is written to disk for an upload: a full disk is said as such, other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        text = "The server has no space left for this image. Nothing was stored: free some and send it again."
        raise NoSpace(text) from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
