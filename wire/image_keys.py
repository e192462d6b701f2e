"""Files that go with images: public keys (`NAME.pub`) and detached signatures (`IMAGE.sig`), a line of text each.

`NAME.pub`: `ed25519:` and the public key as base64url, then optionally a comment.
`IMAGE.sig`: `twinroot-image-signature.v1`, the key id, the signature as base64url; separated by spaces.
What is signed is wire.identity.image_statement.
"""

from __future__ import annotations

from dataclasses import dataclass

from wire.identity import NONCE_BYTES, decode

KEY_PREFIX = "ed25519:"
SIGNATURE_TAG = "twinroot-image-signature.v1"
_KEY_BYTES = NONCE_BYTES
_SIGNATURE_BYTES = 64
_KEY_ID_DIGITS = 16


@dataclass(frozen=True, slots=True)
class ImageSignature:
    """`signature` by the key `key_id` (first 16 hex digits of the key's fingerprint)."""

    key_id: str
    signature: str


def public_key_line(public: str, comment: str = "") -> str:
    """The text of a `.pub` file."""
    return f"{KEY_PREFIX}{public}{' ' + comment if comment else ''}\n"


def parse_public_key(text: str) -> str:
    """The public key in the text of a `.pub` file; ValueError says what is wrong."""
    lines = text.strip().splitlines()
    word = lines[0].split(maxsplit=1)[0] if lines else ""
    public = word.removeprefix(KEY_PREFIX)
    if len(lines) != 1 or not word.startswith(KEY_PREFIX) or not _is_binary(public, _KEY_BYTES):
        raise ValueError(f"a key file is one line: {KEY_PREFIX} and 32 bytes as base64url, then a comment")
    return public


def signature_line(signature: ImageSignature) -> str:
    """The text of a `.sig` file."""
    return f"{SIGNATURE_TAG} {signature.key_id} {signature.signature}\n"


def parse_signature(text: str) -> ImageSignature:
    """The signature in the text of a `.sig` file; ValueError says what is wrong."""
    match text.split():
        case [tag, key_id, signature] if tag == SIGNATURE_TAG:
            if _is_key_id(key_id) and _is_binary(signature, _SIGNATURE_BYTES):
                return ImageSignature(key_id, signature)
    raise ValueError(f"a signature is one line: {SIGNATURE_TAG}, 16 hex digits of key id, 64 bytes as base64url")


def _is_key_id(text: str) -> bool:
    return len(text) == _KEY_ID_DIGITS and not set(text) - set("0123456789abcdef")


def _is_binary(text: str, length: int) -> bool:
    try:
        return len(decode(text)) == length
    except ValueError:
        return False
