"""Ids: a prefix and 26 characters that sort by time of birth (ULID: 48 bits of milliseconds, 80 random)."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32, lower case: no letters that are read as digits."""


def new_id(prefix: str) -> str:
    """A fresh id such as `node_01jd…`; unique without asking anybody."""
    number = (int(time.time() * 1000) << 80) | secrets.randbits(80)
    digits = []
    for _ in range(26):
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(digits))}"
