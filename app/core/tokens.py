"""Secrets handed to people and machines: only their hash is kept, so that a copy of the database opens nothing."""

from __future__ import annotations

import hashlib


def secret_hash(secret: str) -> str:
    """SHA-256 in hex. Enough without salt or stretching: our secrets are 256 random bits, not passwords."""
    return hashlib.sha256(secret.encode()).hexdigest()
