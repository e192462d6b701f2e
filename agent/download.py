"""Fetch an image to a local file: resumed, bounded in size, verified by digest, synced.

The transfer runs in a thread. Beside the file stands `NAME.source` while it is partial, which says of which
image and which server version (ETag, RFC 9110 §8.8.3) the bytes are, so that a later call goes on where an
earlier one was cut off.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import FileIO
from pathlib import Path
from typing import Protocol

from agent.drivers.base import Progress
from agent.fetch import Answer, DownloadCode, DownloadError, Limits, Stop, Wanted, get
from agent.interruptible import interruptible
from wire.messages import Image

__all__ = ["DownloadCode", "DownloadError", "download"]

CHUNK_BYTES = 256 * 1024
"""Large enough that hashing dominates, small enough that progress moves and cancelling is prompt."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Hash(Protocol):
    def update(self, chunk: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


async def download(
    image: Image,
    into: Path,
    progress: Progress,
    *,
    connect_timeout_s: float = 10,
    stall_timeout_s: float = 60,
    allow_unencrypted: bool = False,
) -> None:
    """Make `into` the complete and verified bytes of `image`, or raise DownloadError.

    A file that is already complete costs no request. `progress` is called from the thread. Cancelling ends
    the transfer at once and keeps what has arrived for the next call.
    """
    limits = Limits(connect_timeout_s, stall_timeout_s, allow_unencrypted)
    stop = Stop()
    await interruptible(_Transfer(image, into, progress, limits, stop).run, stop.stop)


class _Transfer:
    """One download, in its thread."""

    def __init__(self, image: Image, into: Path, progress: Progress, limits: Limits, stop: Stop) -> None:
        self.image = image
        self.into = into
        self.source = into.with_name(into.name + ".source")
        self.progress = progress
        self.limits = limits
        self.stop = stop

    def run(self) -> None:
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", self.image.digest):
            raise DownloadError(DownloadCode.WRONG_DIGEST, f"not a SHA-256 digest: {self.image.digest!r}")
        with _local_file(self.into):
            size = self.into.stat().st_size if self.into.exists() else -1
        if size != self.image.size or self._digest_on_disk() != self.image.digest:
            self._fetch_all(self._wanted(size))
        with _local_file(self.into):
            self.source.unlink(missing_ok=True)
            sync_folder(self.into.parent)
        self.progress(1.0)

    def _wanted(self, size: int) -> Wanted:
        """Where to go on: only a beginning of this very image is worth keeping."""
        with _local_file(self.source):
            lines = self.source.read_text(encoding="utf-8").split("\n") if self.source.exists() else []
        if 0 < size < self.image.size and len(lines) == 2 and lines[0] == self.image.digest:
            return Wanted(start=size, etag=lines[1])
        return Wanted()

    def _fetch_all(self, wanted: Wanted) -> None:
        digest = self._fetch(wanted)
        if digest != self.image.digest and wanted.start:
            # What was there may have been the beginning of another file: once more, all from one answer.
            digest = self._fetch(Wanted())
        if digest != self.image.digest:
            with _local_file(self.into):
                self.into.unlink()
                self.source.unlink()
            text = f"what the server sent is {digest}, not {self.image.digest}"
            raise DownloadError(DownloadCode.WRONG_DIGEST, text)

    def _fetch(self, wanted: Wanted) -> str:
        """Bring the file to its full size and return its digest."""
        self._check_space(self.image.size - wanted.start)
        with closing(self._ask(wanted)) as answer, self._open(answer) as file:
            hashed = hashlib.sha256()
            with _local_file(self.into):
                self._hash(file, hashed, answer.start)
            self._receive(answer, file, hashed)
            with _local_file(self.into):
                os.fsync(file.fileno())
        return f"sha256:{hashed.hexdigest()}"

    def _ask(self, wanted: Wanted) -> Answer:
        """An answer that begins where we are, or at the beginning."""
        for asked in (wanted, Wanted()):
            answer = get(self.image.url, asked, self.limits, self.stop)
            if answer.start in (0, wanted.start):
                return answer
            answer.close()
        raise DownloadError(DownloadCode.HTTP, "the server sent a part that was not asked for", 206)

    def _open(self, answer: Answer) -> FileIO:
        """The file, cut to where the answer begins, with its source noted first."""
        with _local_file(self.into):
            if answer.start == 0:
                self.into.write_bytes(b"")
            self.source.write_text(f"{self.image.digest}\n{answer.etag}", encoding="utf-8")
            # Unbuffered: what a full disk refuses must fail here, not in close().
            return self.into.open("r+b", buffering=0)

    def _receive(self, answer: Answer, file: FileIO, hashed: Hash) -> None:
        done = answer.start
        while done < self.image.size:
            chunk = answer.read(min(CHUNK_BYTES, self.image.size - done))
            self.stop.check()
            if not chunk:
                text = f"the server ended after {done} of {self.image.size} bytes"
                raise DownloadError(DownloadCode.TRUNCATED, text)
            with _local_file(self.into):
                _write_all(file, chunk)
            hashed.update(chunk)
            done += len(chunk)
            self.progress(done / self.image.size)

    def _digest_on_disk(self) -> str:
        hashed = hashlib.sha256()
        with _local_file(self.into), self.into.open("rb", buffering=0) as file:
            self._hash(file, hashed, self.image.size)
        return f"sha256:{hashed.hexdigest()}"

    def _hash(self, file: FileIO, hashed: Hash, size: int) -> None:
        """Hash the first `size` bytes and leave the position there."""
        left = size
        while left:
            self.stop.check()
            chunk = file.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            hashed.update(chunk)
            left -= len(chunk)

    def _check_space(self, needed: int) -> None:
        with _local_file(self.into):
            volume = os.statvfs(self.into.parent)
        free = volume.f_bavail * volume.f_frsize
        if free < needed:
            text = f"{self.into.parent} has {free} bytes free and needs {needed}"
            raise DownloadError(DownloadCode.NO_SPACE, text)


@contextmanager
def _local_file(path: Path) -> Iterator[None]:
    """Word an error of the local disk."""
    try:
        yield
    except OSError as problem:
        code = DownloadCode.NO_SPACE if problem.errno in FULL else DownloadCode.DISK
        raise DownloadError(code, f"{path}: {problem.strerror or problem}") from problem


def _write_all(file: FileIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def sync_folder(folder: Path) -> None:
    """Make names created, renamed or removed in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
