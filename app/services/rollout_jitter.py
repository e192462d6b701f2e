"""How long each node waits before it is told to stage: spread evenly, and the same every time."""

from __future__ import annotations

import hashlib


def jitter_s(rollout_id: str, node_id: str, over_s: float) -> float:
    """From 0 to `over_s` seconds. By the ids, so that whoever starts again finds the same moment."""
    digest = hashlib.sha256(f"{rollout_id} {node_id}".encode()).digest()
    return over_s * int.from_bytes(digest[:6], "big") / (1 << 48)
