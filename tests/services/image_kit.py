"""Image files for tests, and who signs them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from app.config import Settings
from app.core.image_identity import ImageName, image_name
from wire import identity
from wire.image_keys import ImageSignature, public_key_line


def image_bytes(version: str = "1.0", *, os: str = "demo", arch: str = "amd64", payload: bytes = b"payload") -> bytes:
    """An image whose header says its names."""
    return f"ID={os}\nVERSION_ID={version}\nARCHITECTURE={arch}\n--\n".encode() + payload


def digest_of_bytes(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Signer:
    """An image key; `known_to` puts its public half where the server looks."""

    def __init__(self) -> None:
        self.private = identity.new_private_key()
        self.public = identity.public_key(self.private)
        self.key_id = identity.key_id(self.public)

    def sign(self, content: bytes, name: ImageName | None = None) -> ImageSignature:
        named = name or image_name("demo", "amd64", "1.0")
        return self.sign_digest(digest_of_bytes(content), len(content), named)

    def sign_digest(self, digest: str, size: int, name: ImageName) -> ImageSignature:
        statement = identity.image_statement(name.os, name.arch, name.version, digest, size)
        return ImageSignature(self.key_id, identity.sign(self.private, statement))

    def known_to(self, settings: Settings) -> Signer:
        folder = settings.data_dir / "image-keys"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.key_id}.pub").write_text(public_key_line(self.public, "test"))
        return self


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
