"""Why a version is nothing for a node now, whatever else the node does: one sentence for orders to single nodes."""

from __future__ import annotations

from sqlalchemy import Connection

from app.core.errors import NotPossible
from app.core.nodes import Node, Target
from app.core.rollout_entry import is_downgrade
from app.core.version_edges import edge
from app.store import bad_versions, rollout_facts


def refusal_of_version(conn: Connection, node: Node, image: Target, *, allow_downgrade: bool) -> NotPossible | None:
    """Bad fleet-wide, not to be reached from what runs, or older than it."""
    (found,) = rollout_facts.targets(conn, (image.id,))
    if found.bad:
        text = f"{image.version} is bad fleet-wide: {found.bad}. Clear the version first."
        return NotPossible("bad-version", text)
    refused = edge(found, node.version)
    if refused is not None:
        return NotPossible("version-edge", f"{node.name} runs {node.version or 'an unknown version'}: {refused}.")
    if not allow_downgrade and is_downgrade(image.version, node.version):
        text = f"{image.version} is older than {node.version}, which {node.name} runs; choose to go down, or roll back."
        return NotPossible("downgrade", text)
    return None


def refusal_of_way_back(conn: Connection, digest: str) -> NotPossible | None:
    """Gates stop no way back (rule 7), but a version that is bad fleet-wide is none (rule 5)."""
    bad = bad_versions.get(conn, digest)
    if bad is None:
        return None
    return NotPossible("bad-version", f"{bad.version} is bad fleet-wide: {bad.reason}. Clear the version first.")
