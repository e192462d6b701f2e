"""The order of versions: runs of digits count as numbers, and letters come before nothing (`2.0-rc1` before `2.0`)."""

from __future__ import annotations

import re

VersionKey = tuple[tuple[int, int, str], ...]

_RUN = re.compile(r"[0-9]+|[^\W\d_]+")
_NUMBER, _END, _LETTERS = 2, 1, 0


def version_key(version: str) -> VersionKey:
    """Sorts versions: `4081.2.9` before `4081.2.10`, `2.0-rc1` before `2.0` before `2.0.1`."""
    runs = _RUN.findall(version)
    keys = [(_NUMBER, int(run), "") if run[0] in "0123456789" else (_LETTERS, 0, run.lower()) for run in runs]
    return (*keys, (_END, 0, ""))


def in_order(versions: set[str]) -> list[str]:
    """Oldest first; versions that count as equal in the order of their text."""
    return sorted(versions, key=lambda version: (version_key(version), version))
