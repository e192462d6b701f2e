"""A disk that loses its power: stops at the n-th operation and takes back what was never synced."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from agent.drivers.files_disk import Disk


class PowerCut(BaseException):
    """The machine is off; no handler of ours may run on."""


class Loss(Enum):
    """What becomes of operations that were not synced."""

    NONE = "all of it got through"
    ALL = "nothing of it got through"
    HALF = "half of each file got through"


class PowerDisk(Disk):
    """`left` operations work, the next one is the power cut; None for no limit."""

    def __init__(self, left: int | None = None) -> None:
        self.left = left
        self.count = 0
        self._dirty: dict[Path, bytes | None] = {}
        """Content before the first write that was not synced."""
        self._renamed: list[tuple[Path, bytes | None]] = []
        """Name and what stood there before, until the folder is synced."""

    def write(self, path: Path, offset: int, chunk: bytes) -> None:
        self._step()
        self._dirty.setdefault(path, _content(path))
        super().write(path, offset, chunk)

    def truncate(self, path: Path, size: int) -> None:
        self._step()
        self._dirty.setdefault(path, _content(path))
        super().truncate(path, size)

    def sync(self, path: Path) -> None:
        self._step()
        super().sync(path)
        self._dirty.pop(path, None)

    def rename(self, old: Path, new: Path) -> None:
        self._step()
        self._renamed.append((new, _content(new)))
        if old in self._dirty:
            self._dirty[new] = self._dirty.pop(old)
        super().rename(old, new)

    def sync_folder(self, folder: Path) -> None:
        self._step()
        super().sync_folder(folder)
        self._renamed = [(path, content) for path, content in self._renamed if path.parent != folder]

    def lose(self, loss: Loss) -> None:
        """The power is back: this is what the disk holds."""
        if loss is Loss.NONE:
            return
        for path, before in self._dirty.items():
            now = _content(path)
            if now is not None:
                _restore(path, now[: len(now) // 2] if loss is Loss.HALF else before)
        if loss is Loss.ALL:
            for path, before in reversed(self._renamed):
                _restore(path, before)

    def _step(self) -> None:
        if self.left is not None and self.count >= self.left:
            raise PowerCut
        self.count += 1


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _restore(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(content)
