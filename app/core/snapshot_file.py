"""A snapshot as a file: JSON that is read again with no database. Pure: text in, text out.

The document is `{"twinroot": "snapshot", "version": 1, "snapshot": {…}}` with the fields of app.core.snapshot; times
are Unix seconds. Files of another version are refused.
"""

from __future__ import annotations

import msgspec

from app.core.errors import Invalid
from app.core.snapshot import Snapshot

_KIND, _VERSION = "snapshot", 1


class _Head(msgspec.Struct):
    twinroot: str = ""
    version: int = 0


class _Document(msgspec.Struct):
    snapshot: Snapshot
    twinroot: str = _KIND
    version: int = _VERSION


def dump(snapshot: Snapshot) -> bytes:
    """As JSON, indented for eyes and diffs."""
    return msgspec.json.format(msgspec.json.encode(_Document(snapshot), order="deterministic"), indent=1) + b"\n"


def load(content: bytes, name: str = "the file") -> Snapshot:
    """Read back; Invalid says in one sentence why it is no snapshot, or that it points to what is not there."""
    try:
        head = msgspec.json.decode(content, type=_Head)
        if head.twinroot != _KIND:
            raise Invalid("snapshot", f"{name} is no snapshot of Twinroot.")
        if head.version != _VERSION:
            raise Invalid("snapshot", f"{name} has version {head.version}; this Twinroot reads version {_VERSION}.")
        snapshot = msgspec.json.decode(content, type=_Document).snapshot
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid("snapshot", f"{name} is no snapshot of Twinroot: {error}.") from error
    wrong = _points_nowhere(snapshot)
    if wrong is not None:
        raise Invalid("snapshot", f"{name} does not hold together: {wrong}.")
    return snapshot


def _points_nowhere(snapshot: Snapshot) -> str | None:
    groups = {group.id for group in snapshot.groups}
    services, nodes, rollouts = len(snapshot.services), len(snapshot.nodes), len(snapshot.rollouts)
    for node in snapshot.nodes:
        for id in node.groups:
            if id not in groups:
                return f"node {node.name} is in a group {id} that is not there"
        if len({service for service, _ in node.placements}) < len(node.placements):
            return f"node {node.name} names a service twice"
        if node.placements and not node.placement_known and not node.reserved:
            return f"node {node.name} says what it runs although that is not known"
        for service, replicas in (*node.placements, *node.returning):
            if not 0 <= service < services:
                return f"node {node.name} runs service number {service} of {services}"
            if replicas < 0:
                return f"node {node.name} runs {replicas} replicas of a service"
    for place, candidate in enumerate(snapshot.candidates):
        if not 0 <= candidate.node < nodes:
            return f"candidate {place} is node number {candidate.node} of {nodes}"
        if not 0 <= candidate.rollout < rollouts:
            return f"candidate {place} is of rollout number {candidate.rollout} of {rollouts}"
    return None
