"""Ids: a prefix and 26 characters that sort by time of birth (ULID: 48 bits of milliseconds, 80 random)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32, lower case: no letters that are read as digits."""


def _fresh() -> int:
    return (int(time.time() * 1000) << 80) | secrets.randbits(80)


_next_number: Callable[[], int] = _fresh


def new_id(prefix: str) -> str:
    """A fresh id such as `node_01jd…`; unique without asking anybody."""
    number = _next_number()
    digits = []
    for _ in range(26):
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(digits))}"


@contextmanager
def repeatable(numbers: Callable[[], int]) -> Iterator[None]:
    """Meanwhile ids are made of `numbers` (128 bits each, none twice): a simulated run has to be the same again."""
    global _next_number
    before, _next_number = _next_number, numbers
    try:
        yield
    finally:
        _next_number = before
