"""Fetch an image to a local file: from the first source that has it, resumed, bounded, verified by digest, synced.

The transfer runs in a thread. Beside the file stands `NAME.source` while it is partial, which says of which
image, which server version (ETag, RFC 9110 §8.8.3) and which address the bytes are, so that a later call, or the
next source, goes on where an earlier one was cut off. The digest decides: what was put together from two sources
and is wrong is fetched once more from the second alone.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from agent.drivers.base import Progress
from agent.fetch import Answer, DownloadCode, DownloadError, Limits, Stop, Wanted, get
from agent.interruptible import interruptible
from agent.pace import SLOW_BYTES_S, SLOW_S, Bucket, Crawl
from wire.messages import Image

__all__ = ["DownloadCode", "DownloadError", "Supply", "download"]

CHUNK_BYTES = 256 * 1024
"""Large enough that hashing dominates, small enough that progress moves and cancelling is prompt."""

LOCAL = frozenset({DownloadCode.NO_SPACE, DownloadCode.DISK})
"""No other source helps against these."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True)
class Supply:
    """Where to fetch beside `image.url`, and how fast.

    `mirrors` are tried first, in order; `wrong` is called, from the thread, with one that served other bytes.
    """

    mirrors: Sequence[str] = ()
    bandwidth_bytes_s: int = 0
    wrong: Callable[[str], None] = lambda mirror: None


@dataclass(frozen=True)
class _Source:
    """One address; `mirror` is empty for the image's own, the last resort."""

    url: str
    mirror: str = ""

    @property
    def place(self) -> str:
        """What tells whether an ETag of earlier is this server's: the address without its short-lived end."""
        return self.url.partition("?")[0]

    @property
    def name(self) -> str:
        return urlsplit(self.mirror).netloc or self.mirror


class Hash(Protocol):
    def update(self, chunk: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


async def download(
    image: Image,
    into: Path,
    progress: Progress,
    supply: Supply = Supply(),
    *,
    connect_timeout_s: float = 10,
    stall_timeout_s: float = 60,
    allow_unencrypted: bool = False,
) -> None:
    """Make `into` the complete and verified bytes of `image`, or raise DownloadError.

    A file that is already complete costs no request. `progress` is called from the thread. Cancelling ends
    the transfer at once and keeps what has arrived for the next call. When every source failed, the error is that of
    the last one, and names the others.
    """
    limits = Limits(connect_timeout_s, stall_timeout_s, allow_unencrypted)
    stop = Stop()
    await interruptible(_Transfer(image, into, progress, supply, limits, stop).run, stop.stop)


class _Transfer:
    """One download, in its thread."""

    def __init__(
        self, image: Image, into: Path, progress: Progress, supply: Supply, limits: Limits, stop: Stop
    ) -> None:
        self.image = image
        self.into = into
        self.source = into.with_name(into.name + ".source")
        self.progress = progress
        self.supply = supply
        self.limits = limits
        self.stop = stop
        self.bucket = Bucket(supply.bandwidth_bytes_s) if supply.bandwidth_bytes_s else None

    def run(self) -> None:
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", self.image.digest):
            raise DownloadError(DownloadCode.WRONG_DIGEST, f"not a SHA-256 digest: {self.image.digest!r}")
        with _local_file(self.into):
            size = self.into.stat().st_size if self.into.exists() else -1
        if size != self.image.size or self._digest_on_disk() != self.image.digest:
            self._fetch_from_any()
        with _local_file(self.into):
            self.source.unlink(missing_ok=True)
            sync_folder(self.into.parent)
        self.progress(1.0)

    def _all_sources(self) -> list[_Source]:
        name = self.image.digest.removeprefix("sha256:")
        found = [_Source(f"{mirror.rstrip('/')}/{name}", mirror) for mirror in self.supply.mirrors]
        return [*found, _Source(self.image.url)] if self.image.url or not found else found

    def _fetch_from_any(self) -> None:
        """From the first source that has it; a local fault is no source's."""
        failures: list[tuple[_Source, DownloadError]] = []
        for source in self._all_sources():
            try:
                self._fetch_all(source)
            except DownloadError as problem:
                if problem.code in LOCAL:
                    raise
                failures.append((source, problem))
                if problem.code == DownloadCode.WRONG_DIGEST and source.mirror:
                    self.supply.wrong(source.mirror)
            else:
                return
        _raise_last(failures)

    def _wanted(self, source: _Source) -> Wanted:
        """Where to go on: only a beginning of this very image is worth keeping."""
        with _local_file(self.source):
            size = self.into.stat().st_size if self.into.exists() else -1
            lines = self.source.read_text(encoding="utf-8").split("\n") if self.source.exists() else []
        if not 0 < size < self.image.size or len(lines) != 3 or lines[0] != self.image.digest:
            return Wanted()
        return Wanted(start=size, etag=lines[1] if lines[2] == source.place else "")

    def _fetch_all(self, source: _Source) -> None:
        wanted = self._wanted(source)
        digest = self._fetch(source, wanted)
        if digest != self.image.digest and wanted.start:
            # What was there may have been the beginning of another file: once more, all from one answer.
            digest = self._fetch(source, Wanted())
        if digest != self.image.digest:
            with _local_file(self.into):
                self.into.unlink()
                self.source.unlink()
            text = f"what the server sent is {digest}, not {self.image.digest}"
            raise DownloadError(DownloadCode.WRONG_DIGEST, text)

    def _fetch(self, source: _Source, wanted: Wanted) -> str:
        """Bring the file to its full size and return its digest."""
        self._check_space(self.image.size - wanted.start)
        with closing(self._ask(source, wanted)) as answer, self._open(answer, source) as file:
            hashed = hashlib.sha256()
            with _local_file(self.into):
                self._hash(file, hashed, answer.start)
            self._receive(answer, file, hashed, Crawl() if source.mirror else None)
            with _local_file(self.into):
                os.fsync(file.fileno())
        return f"sha256:{hashed.hexdigest()}"

    def _ask(self, source: _Source, wanted: Wanted) -> Answer:
        """An answer that begins where we are, or at the beginning."""
        limits = replace(self.limits, stall_s=min(self.limits.stall_s, SLOW_S)) if source.mirror else self.limits
        for asked in (wanted, Wanted()):
            answer = get(source.url, asked, limits, self.stop)
            if answer.start in (0, wanted.start):
                return answer
            answer.close()
        raise DownloadError(DownloadCode.HTTP, "the server sent a part that was not asked for", 206)

    def _open(self, answer: Answer, source: _Source) -> FileIO:
        """The file, cut to where the answer begins, with its source noted first."""
        with _local_file(self.into):
            if answer.start == 0:
                self.into.write_bytes(b"")
            note = f"{self.image.digest}\n{answer.etag}\n{source.place}"
            self.source.write_text(note, encoding="utf-8")
            # Unbuffered: what a full disk refuses must fail here, not in close().
            return self.into.open("r+b", buffering=0)

    def _receive(self, answer: Answer, file: FileIO, hashed: Hash, crawl: Crawl | None) -> None:
        done = answer.start
        while done < self.image.size:
            chunk = self._read(answer, self.image.size - done, crawl)
            if not chunk:
                text = f"the server ended after {done} of {self.image.size} bytes"
                raise DownloadError(DownloadCode.TRUNCATED, text)
            with _local_file(self.into):
                _write_all(file, chunk)
            hashed.update(chunk)
            done += len(chunk)
            self.progress(done / self.image.size)

    def _read(self, answer: Answer, most: int, crawl: Crawl | None) -> bytes:
        """Some bytes as they come, no faster than the cap; DownloadError when a mirror crawls."""
        if crawl is not None:
            crawl.waits()
        chunk = answer.read(min(CHUNK_BYTES, most, self.bucket.piece if self.bucket else CHUNK_BYTES))
        self.stop.check()
        if crawl is not None and crawl.got(len(chunk)):
            raise DownloadError(DownloadCode.STALLED, f"slower than {SLOW_BYTES_S} bytes/s for {SLOW_S:.0f} s")
        if self.bucket is not None:
            self.stop.sleep(self.bucket.spend(len(chunk)))
        return chunk

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


def _raise_last(failures: list[tuple[_Source, DownloadError]]) -> None:
    """The error of the last source, with what the others said; another try may help if it may at any of them."""
    *others, (_, last) = failures
    if not others:
        raise last
    said = "; ".join(f"{source.name}: {problem.text}" for source, problem in others)
    transient = any(problem.transient for _, problem in failures)
    raise DownloadError(
        DownloadCode(last.code), f"{last.text} (before it {said})", last.status, transient=transient
    ) from last


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
