"""What an operator says of versions that failed on a node: they may be tried there again, and why (rule 5).

Nobody else clears this memory: no success and no way back does. What is taken back without a person was no failure
(app.services.operations).
"""

from __future__ import annotations

from app.core.actors import Actor
from app.core.events import EventKind
from app.core.nodes import FailedHere, Node
from app.core.operations import Action
from app.services.acting import done
from app.store import failed_versions
from app.store.database import Change


def failed_here(node: Node, digest: str) -> FailedHere | None:
    """What is remembered of this version on the node, while nobody has cleared it."""
    return next((one for one in node.failed if one.digest == digest and one.cleared_at is None), None)


def allow_again(change: Change, actor: Actor, node: Node, failed: FailedHere, reason: str, now: float) -> None:
    """Cleared by this operator for this reason, which the caller has asked for. The node hears of it with its next
    order."""
    failed_versions.clear(change.conn, node.id, failed.digest, actor.name, reason, now)
    before = {"version": failed.version, "failed": failed.reason}
    text = f"{failed.version} may be tried again"
    kind, action = EventKind.FAILED_VERSION_CLEARED, Action.CLEAR_FAILED_VERSION
    done(change, actor, action, node, kind, text, reason, before, None, now)
