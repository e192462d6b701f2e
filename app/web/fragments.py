"""The cache of rendered fragments, so that two hundred open pages cost one rendering for each change at most.

A fragment is kept under (what it shows, what the reader's settings change in it) with the ETag of its revision. A
paced fragment is not rendered again before its pace is over, however often it changes: readers get the last one,
whose ETag and revisions say how old it is, and app.js asks again a little later.
"""

from __future__ import annotations

import gzip
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

_MOST = 512
"""Some tens of pages in a few views each; at 5,000 nodes the largest fragment is a few hundred KiB."""
_MOST_BYTES = 64 * 1024 * 1024
"""Fragments together; the oldest go first."""
_GZIP_FROM_BYTES = 4 * 1024
"""Smaller ones fit into a few packets anyway."""
_GZIP_LEVEL = 4
"""Half the size of level 1 for lists of alike rows, at little more time; done once a rendering."""


@dataclass(frozen=True, slots=True)
class Fragment:
    etag: str
    at: float
    """When it was rendered, Unix seconds."""
    body: bytes
    packed: bytes | None
    """The body in gzip; None where that is not worth it."""


@dataclass(slots=True)
class _Place:
    fragment: Fragment | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while rendering: others wait for the result instead of rendering the same."""


class FragmentCache:
    """Least recently used, bounded by number and size. Safe between threads."""

    def __init__(self, most: int = _MOST, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._places: OrderedDict[Hashable, _Place] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, key: Hashable, etag: str, now: float, render: Callable[[], str], *, pace_s: float = 0.0
    ) -> tuple[Fragment, bool]:
        """The fragment of `etag` (or a paced one that is younger than `pace_s`), and whether it was there already."""
        place = self._place(key)
        with place.lock:
            kept = place.fragment
            if kept is not None and (kept.etag == etag or 0 <= now - kept.at < pace_s):
                return kept, True
            body = render().encode()
            packed = gzip.compress(body, _GZIP_LEVEL, mtime=0) if len(body) >= _GZIP_FROM_BYTES else None
            place.fragment = fragment = Fragment(etag, now, body, packed)
        self._trim()
        return fragment, False

    def _place(self, key: Hashable) -> _Place:
        with self._lock:
            place = self._places.setdefault(key, _Place())
            self._places.move_to_end(key)
            return place

    def _trim(self) -> None:
        with self._lock:
            size = sum(_bytes(place) for place in self._places.values())
            while len(self._places) > self._most or (size > self._most_bytes and len(self._places) > 1):
                _, dropped = self._places.popitem(last=False)
                size -= _bytes(dropped)


def _bytes(place: _Place) -> int:
    fragment = place.fragment
    return 0 if fragment is None else len(fragment.body) + len(fragment.packed or b"")
