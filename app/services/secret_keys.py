"""Keys derived from the one secret of the installation, one per purpose, so that none serves for another."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.config import Settings

KEY_BYTES = 32


def derived_key(settings: Settings, purpose: str) -> bytes:
    """32 bytes that depend on `TWINROOT_SECRET_KEY` and `purpose` (HKDF, RFC 5869)."""
    info = f"twinroot {purpose}".encode()
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(settings.secret_key.encode())
