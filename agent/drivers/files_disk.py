"""The few operations on disk that the `files` driver is made of.

A seam: tests count the operations, stop at each, and take back what was not synced, as a power cut does.
"""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """Each method is one step that a power cut may come before or after. Errors are OSError."""

    def write(self, path: Path, offset: int, chunk: bytes) -> None:
        """Write all of `chunk` at `offset`; the file is made when it is not there."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            rest = memoryview(chunk)
            while rest:
                count = os.pwrite(descriptor, rest, offset)
                rest, offset = rest[count:], offset + count
        finally:
            os.close(descriptor)

    def truncate(self, path: Path, size: int) -> None:
        os.truncate(path, size)

    def sync(self, path: Path) -> None:
        """All of the file, whoever wrote it, is on the medium when this returns."""
        self._sync(path, os.O_RDONLY)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def sync_folder(self, folder: Path) -> None:
        self._sync(folder, os.O_RDONLY | os.O_DIRECTORY)

    def replace(self, path: Path, content: bytes) -> None:
        """The old content or the new one, whenever the power goes."""
        new = path.with_name(path.name + ".new")
        self.write(new, 0, content)
        self.truncate(new, len(content))
        self.sync(new)
        self.rename(new, path)
        self.sync_folder(path.parent)

    @staticmethod
    def _sync(path: Path, flags: int) -> None:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
