"""The names of an image, checked once before anything is stored or signed. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.core.errors import Invalid
from app.core.image_match import Platform, canonical_arch

MAX_IMAGE_BYTES = 32 * 1024**3
"""Several times the largest OS images there are; beyond it somebody sends the wrong file."""
NOTES_CHARS = 10_000

_OS = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_ARCH = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_:-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class ImageName:
    """What distinguishes one build from all others for operators: OS name, architecture, version."""

    os: str
    arch: str
    version: str

    @property
    def platform(self) -> Platform:
        return Platform(self.os, self.arch)

    def __str__(self) -> str:
        return f"{self.os} {self.version} for {self.arch}"


def image_name(os: str, arch: str, version: str) -> ImageName:
    """A checked name with the architecture in its one spelling; Invalid names the part that is wrong."""
    name = ImageName(os.strip(), canonical_arch(arch), version.strip())
    if not _OS.match(name.os):
        raise Invalid("os", f"“{os}” is no OS name: give ID of the image's os-release, such as flatcar.")
    if not _ARCH.match(name.arch):
        raise Invalid("arch", f"“{arch}” is no architecture such as amd64 or arm64.")
    if not _VERSION.match(name.version):
        raise Invalid("version", f"“{version}” is no version such as 4152.2.0.")
    return name


def check_digest(digest: str) -> str:
    """`digest` with its prefix, lower case; a bare SHA-256 is taken too."""
    text = digest.strip().lower()
    text = text if text.startswith("sha256:") else f"sha256:{text}"
    if not _DIGEST.match(text):
        raise Invalid("digest", f"“{digest}” is no SHA-256 digest: sha256: and 64 hexadecimal digits.")
    return text


def check_size(size: int) -> int:
    if not 0 < size <= MAX_IMAGE_BYTES:
        raise Invalid("size", f"An image has 1 to {MAX_IMAGE_BYTES} bytes, not {size}.")
    return size


def check_notes(notes: str) -> str:
    if len(notes) > NOTES_CHARS:
        raise Invalid("notes", f"The notes have at most {NOTES_CHARS} characters.")
    return notes.strip()
