"""Which images this node trusts: detached signatures against keys in its own configuration (rule 11).

A key file is `NAME.pub` with one line: `ed25519:` and the public key as base64url, then optionally a comment.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from wire.identity import decode, image_statement, key_id, verify
from wire.messages import Image

KEY_PREFIX = "ed25519:"
KEY_BYTES = 32


class TrustCode(StrEnum):
    NO_KEYS = "no-keys"
    UNSIGNED = "unsigned"
    UNKNOWN_KEY = "unknown-key"
    BAD_SIGNATURE = "bad-signature"
    BAD_KEY_FILE = "bad-key-file"


class TrustError(Exception):
    """The image is not to be trusted, or a key file cannot be read.

    Fields: code (TrustCode), text (one sentence).
    """

    def __init__(self, code: TrustCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def load_image_keys(folder: Path) -> dict[str, str]:
    """Public keys of `folder` by key id; empty when there is no folder. TrustError names a malformed file."""
    if not folder.is_dir():
        return {}
    public_keys = [_read_key(path) for path in sorted(folder.glob("*.pub"))]
    return {key_id(public): public for public in public_keys}


def check_image(image: Image, keys: Mapping[str, str]) -> None:
    """Return when `image` carries a valid signature by one of `keys` (by key id); TrustError otherwise."""
    name = f"image {image.os} {image.version} for {image.arch}"
    if not keys:
        raise TrustError(TrustCode.NO_KEYS, "this node has no image keys, so it trusts no image")
    if not image.signature:
        raise TrustError(TrustCode.UNSIGNED, f"{name} carries no signature")
    public = keys.get(image.key_id)
    if public is None:
        raise TrustError(
            TrustCode.UNKNOWN_KEY,
            f"{name} is signed with key {image.key_id or 'without an id'}, which this node does not trust",
        )
    if not verify(public, image.signature, _statement(image, name)):
        raise TrustError(TrustCode.BAD_SIGNATURE, f"the signature of {name} does not match key {image.key_id}")


def _statement(image: Image, name: str) -> bytes:
    try:
        return image_statement(image.os, image.arch, image.version, image.digest, image.size)
    except ValueError as problem:
        raise TrustError(TrustCode.BAD_SIGNATURE, f"{name} cannot have been signed: {problem}") from problem


def _read_key(path: Path) -> str:
    try:
        lines = path.read_text(encoding="ascii").strip().splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise TrustError(TrustCode.BAD_KEY_FILE, f"image key {path} cannot be read as text: {problem}") from problem
    word = lines[0].split(maxsplit=1)[0] if lines else ""
    public = word.removeprefix(KEY_PREFIX)
    if len(lines) != 1 or not word.startswith(KEY_PREFIX) or not _is_key(public):
        raise TrustError(
            TrustCode.BAD_KEY_FILE,
            f"image key {path} must be one line: {KEY_PREFIX} and 32 bytes as base64url, then a comment",
        )
    return public


def _is_key(public: str) -> bool:
    try:
        return len(decode(public)) == KEY_BYTES
    except ValueError:
        return False
