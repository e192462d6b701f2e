"""Where a node goes back to: the slot that is still there, else the old image, which is downloaded."""

from __future__ import annotations

from sqlalchemy import Connection

from app.core.nodes import Node
from app.core.slots import WayBackChoice, way_back_of
from app.services.failed_versions import failed_here
from app.services.orders import Wish
from app.store import bad_versions, images, rollout_facts, rollout_nodes
from app.store.rollout_nodes import RolloutNode
from app.store.rollouts import Rollout
from wire.messages import OperationKind


def way_back_wish(conn: Connection, rollout: Rollout, node: Node) -> Wish | str:
    """For a node of a reverse rollout: to what it ran before the rollout that is reversed, or why it stays."""
    if rollout.source_id is None:
        here = rollout_nodes.get(conn, rollout.id, node.id)
        if here is None or here.old_digest != node.booted_digest:  # it went somewhere since: back is not back any more
            return f"it runs {node.version or 'another version'} now, which it did not when it was to go back"
        return wish_of(conn, node, way_back_of(node), rollout)
    row = rollout_nodes.get(conn, rollout.source_id, node.id)
    if row is None:
        return "it was not moved by the rollout that is reversed"
    return way_back_from(conn, rollout, node, row)


def way_back_from(conn: Connection, rollout: Rollout, node: Node, row: RolloutNode) -> Wish | str:
    """To what the node ran before it moved in the rollout of `row`, or why it stays where it is."""
    if row.old_digest and node.booted_digest == row.old_digest:
        return f"it runs {row.old_version or node.version} already"
    reached = rollout_facts.reached(conn, row.rollout_id)
    if node.booted_digest not in reached:
        return f"it runs {node.version or 'another version'}, which that rollout did not lead to"
    return wish_of(conn, node, _choice(conn, node, row), rollout)


def _choice(conn: Connection, node: Node, row: RolloutNode) -> WayBackChoice | None:
    if not row.old_digest:  # a slot that was filled at the factory: the node knows best
        return way_back_of(node)
    passive = node.passive
    if passive is not None and passive.digest == row.old_digest and passive.good is not False:
        return WayBackChoice(row.old_version, row.old_digest, True, None, passive.good is True)
    found = images.of_digest(conn, row.old_digest)
    return WayBackChoice(row.old_version, row.old_digest, False, found[0].id) if found else None


def wish_of(conn: Connection, node: Node, choice: WayBackChoice | None, rollout: Rollout) -> Wish | str:
    """The order that leads there, or why there is none: gates stop no way back, but what is bad, or failed on the node,
    is none until an operator clears it (rule 5)."""
    if choice is None:
        return f"it has no way back: neither a slot nor an image of what {node.name} ran before is known"
    bad = bad_versions.get(conn, choice.digest or "")
    if bad is not None:
        return f"what it ran before, {bad.version}, is bad fleet-wide: {bad.reason}"
    failed = failed_here(node, choice.digest or "")
    if failed is not None and not (failed.only_late and choice.confirmed):
        return f"what it ran before, {failed.version}, failed on it: {failed.reason}"
    kind = OperationKind.ROLLBACK if choice.local else OperationKind.ACTIVATE
    return Wish(
        kind,
        choice.image_id,
        choice.version,
        choice.digest or "",
        override_floor=rollout.override_floor,
        rollout_id=rollout.id,
        policy=rollout.policy,
    )
