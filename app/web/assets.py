"""Where templates and static files are, and which build they are."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "templates"
STATIC = ROOT / "static"


@functools.cache
def build_id() -> str:
    """Changes when a template or a file of ours in static/ does: part of each ETag and of asset addresses."""
    digest = hashlib.sha256()
    files = [path for folder in (TEMPLATES, STATIC) for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files):
        digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size} ".encode())
        if path.parent.name != "vendor":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@functools.cache
def has_vendor() -> bool:
    """False before scripts/vendor has run: pages then work without scripts and with the system's fonts."""
    return (STATIC / "vendor" / "stamp").is_file()
