"""How long a text may be that lists are ordered and filtered by. Pure."""

from __future__ import annotations

INDEXED_BYTES = 512
"""Three such texts stand in one index; a row of an index on PostgreSQL holds 2,704 bytes."""


def fits_index(text: str) -> bool:
    return len(text.encode()) <= INDEXED_BYTES


def for_index(text: str) -> str:
    """As much of `text` as fits."""
    return text if fits_index(text) else text.encode()[:INDEXED_BYTES].decode(errors="ignore")
