"""A version that failed often enough is bad everywhere, until an operator clears it (rule 5)."""

from __future__ import annotations

from app.core.actors import CONDUCTOR
from app.core.rollout_ends import failures_allowed
from app.store import audit, bad_versions, rollout_facts, rollout_nodes
from app.store.bad_versions import BadVersion, Cause
from app.store.database import Change
from app.store.rollouts import Rollout

LEAST_NODES = 2
"""A version that failed on one node may be that node's fault."""
_NAMED = 3


def remember_bad(change: Change, rollout: Rollout, now: float) -> list[str]:
    """Versions of a stopped rollout that failed on more nodes than its failure limit allows, wherever in the fleet,
    are bad; their digests."""
    targets = {target.digest: target for target in rollout_facts.targets(change.conn, rollout.targets)}
    attempted = rollout_nodes.tally(change.conn, rollout.id, None).attempted
    enough = max(LEAST_NODES, failures_allowed(rollout.policy, attempted) + 1)
    found = []
    for digest, names in bad_versions.nodes_failed(change.conn, targets).items():
        if len(names) < enough:
            continue
        reason = f"failed on {len(names):,} nodes: {_named(names)}"
        bad = BadVersion(digest, targets[digest].version, reason, Cause.FAILED, CONDUCTOR.name, now)
        if bad_versions.remember(change.conn, bad):
            after = {"digest": digest, "reason": reason}
            subject = f"version:{targets[digest].version}"
            audit.append(change.conn, CONDUCTOR, "version.bad", subject, reason, None, after, now)
            change.touch("images", "rollouts", "operations")
            found.append(digest)
    return found


def _named(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
