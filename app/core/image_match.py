"""Whether an image can run on a node. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_SPELLINGS = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armv8": "arm64"}
"""What kernels and tools call the architectures that images call amd64 and arm64."""


@dataclass(frozen=True, slots=True)
class Platform:
    """The OS name (`ID` in os-release) and architecture that an image is built for, or that a node has."""

    os: str
    arch: str

    def __str__(self) -> str:
        return f"{self.os or 'an unknown OS'} {self.arch or 'of unknown architecture'}"


def canonical_arch(arch: str) -> str:
    """One spelling for each architecture: amd64, arm64, others as they are."""
    return _SPELLINGS.get(arch.strip().lower(), arch.strip().lower())


def mismatch(version: str, image: Platform, node_name: str, node: Platform) -> str | None:
    """Why the image cannot go to the node, by name; None when it can."""
    if image.os == node.os and canonical_arch(image.arch) == canonical_arch(node.arch):
        return None
    return f"{version} is built for {image}; {node_name} is {node}."
