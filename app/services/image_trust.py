"""Signatures of images as this server sees them: an early warning for operators. Trust is the nodes' own.

Public keys that the server shall know lie in `DATA_DIR/image-keys/*.pub`; it never holds a private one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from app.config import Settings
from app.core.errors import Invalid, Misconfigured
from app.core.image_identity import ImageName
from wire.identity import image_statement, key_id, verify
from wire.image_keys import ImageSignature, parse_public_key


class SignatureState(StrEnum):
    UNSIGNED = "unsigned"
    VERIFIED = "verified"
    UNKNOWN_KEY = "unknown key"
    """Signed, by a key that this server does not know; nodes may."""
    FORGED = "does not match"


def known_keys(settings: Settings) -> dict[str, str]:
    """Public keys by key id; Misconfigured names a file that is none."""
    folder = settings.data_dir / "image-keys"
    keys = {}
    for file in sorted(folder.glob("*.pub")):
        try:
            public = parse_public_key(file.read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            raise Misconfigured("TWINROOT_DATA_DIR", f"image key {file} cannot be used: {error}") from error
        keys[key_id(public)] = public
    return keys


def signature_state(
    name: ImageName, digest: str, size: int, signature: ImageSignature | None, keys: Mapping[str, str]
) -> SignatureState:
    """What `keys` say about the signature of an image."""
    if signature is None:
        return SignatureState.UNSIGNED
    public = keys.get(signature.key_id)
    if public is None:
        return SignatureState.UNKNOWN_KEY
    statement = image_statement(name.os, name.arch, name.version, digest, size)
    return SignatureState.VERIFIED if verify(public, signature.signature, statement) else SignatureState.FORGED


def check_signature(
    name: ImageName, digest: str, size: int, signature: ImageSignature | None, keys: Mapping[str, str]
) -> None:
    """Invalid when the signature is wrong as far as the server can tell; unsigned images may be signed later."""
    state = signature_state(name, digest, size, signature, keys)
    if state is SignatureState.FORGED:
        assert signature is not None
        text = f"The signature is not by key {signature.key_id} for {name} with {digest} and {size} bytes."
        raise Invalid("signature", f"{text} Nothing was stored.")
    if state is SignatureState.UNKNOWN_KEY and keys:
        assert signature is not None
        known = ", ".join(sorted(keys))
        text = f"The signature is by key {signature.key_id}; this server knows {known}."
        raise Invalid("signature", f"{text} Add its public key to image-keys in the data folder, or sign again.")
