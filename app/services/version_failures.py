"""A version that failed often enough is bad everywhere, until an operator clears it (rule 5): however nodes were led to
it, and whether or not a rollout stopped. What is enough says app.core.bad_versions.

`judge_versions` is a step of the conductor.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from app.core.actors import CONDUCTOR
from app.core.bad_versions import LEAST_NODES, strictest
from app.store import audit, bad_versions, version_failures
from app.store.bad_versions import BadVersion, Cause
from app.store.database import Change, Database, Priority

_NAMED = 3


def judge_versions(db: Database, now: float) -> int:
    """Versions that nodes failed with since the last look, by single orders or in rollouts; how many became bad."""
    with db.read() as conn:
        digests = [one.digest for one in version_failures.failing(conn, LEAST_NODES)]
    if not digests:
        return 0
    with db.write(Priority.BACKGROUND) as change:
        return len(remember_bad(change, digests, now))


def remember_bad(change: Change, digests: Collection[str], now: float) -> list[str]:
    """Those of them that failed on enough different nodes, wherever in the fleet, are bad from now on."""
    conn, found = change.conn, []
    for failing in version_failures.failing(conn, LEAST_NODES, digests):
        policies = version_failures.policies(conn, failing.digest)
        limit = strictest(policies, version_failures.tried(conn, failing.digest))
        if len(failing.nodes) < limit.enough:
            continue
        reason = f"failed on {len(failing.nodes):,} nodes: {_words(failing.nodes)} ({limit.words})"
        bad = BadVersion(failing.digest, failing.version, reason, Cause.FAILED, CONDUCTOR.name, now)
        if bad_versions.remember(conn, bad):
            after = {"digest": failing.digest, "reason": reason}
            subject = f"version:{failing.version}"
            audit.append(conn, CONDUCTOR, "version.bad", subject, reason, None, after, now)
            change.touch("images", "rollouts", "operations")
            found.append(failing.digest)
    return found


def _words(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
