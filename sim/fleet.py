"""What a demo fleet is made of: names, zones, services per node, and image files with real bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

OS = "twinroot-demo"
ARCH = "amd64"
_IMAGE_BYTES = 6 * 1024 * 1024
"""Big enough that staging is seen on the page, small enough for twelve nodes on a laptop."""


@dataclass(frozen=True)
class DemoNode:
    name: str
    labels: dict[str, str]
    containers: tuple[tuple[str, str, str], ...]
    """(compose project, service, image) of each."""


@dataclass(frozen=True)
class DemoImage:
    version: str
    notes: str
    channels: tuple[str, ...] = ()
    boot: str = "ok"
    web: str = "ok"
    """What the node's required check 10-web finds on this image."""


IMAGES = (
    DemoImage("1.0.0", "Where the demo fleet starts.", ("stable",)),
    DemoImage("1.1.0", "A good update.", ("beta",)),
    DemoImage(
        "1.2.0", "Boots, but its web server never answers: every node falls back and says why.", ("alpha",), web="down"
    ),
    DemoImage("1.3.0", "Does not boot at all: the boot record runs out of tries.", boot="panic"),
)

_ROLES = (
    (
        "web",
        (("shop", "frontend", "shop/frontend:8.14"), ("shop", "cart", "shop/cart:2.3"), ("", "envoy", "envoy:1.31")),
    ),
    ("db", (("shop", "postgres", "postgres:17"), ("", "node-exporter", "prom/node-exporter:1.9"))),
    ("edge", (("edge", "gateway", "edge/gateway:4.0"), ("edge", "cache", "varnish:7.6"))),
    ("batch", (("jobs", "worker", "jobs/worker:11"),)),
)
_SCHEDULER = 9
"""Node (by index) of the one service with a single replica, so that the console shows what that means."""
_ZONES = ("eu-west-1a", "eu-west-1b", "eu-west-1c")


def demo_nodes(count: int) -> list[DemoNode]:
    """The first `count` nodes of the demo fleet: four roles over three zones."""
    nodes = []
    for index in range(count):
        role, containers = _ROLES[index // 3 % len(_ROLES)]
        if index == _SCHEDULER:
            containers = (*containers, ("jobs", "scheduler", "jobs/scheduler:11"))
        number = index // 12 * 3 + index % 3 + 1
        labels = {"role": role, "zone": _ZONES[index % 3]}
        if index % 12 == 0:
            labels["canary"] = "true"
        nodes.append(DemoNode(f"{role}-{number:02}", labels, containers))
    return nodes


def write_image(image: DemoImage, folder: Path) -> Path:
    """A slot image as the `files` driver boots it: an os-release block, a line `--`, then a payload of fixed bytes."""
    header = (
        f'ID={OS}\nNAME="Twinroot demo"\nVERSION_ID={image.version}\nARCHITECTURE={ARCH}\n'
        f"TWINROOT_BOOT={image.boot}\nDEMO_WEB={image.web}\n--\n"
    )
    file = folder / f"{OS}-{image.version}.img"
    seed = hashlib.sha256(image.version.encode()).digest()
    block = b"".join(hashlib.sha256(seed + bytes([n])).digest() for n in range(256))
    body = block * (_IMAGE_BYTES // len(block))
    file.write_bytes(header.encode() + body)
    return file
