"""Why nodes of rollouts wait without an order, written down for people. A step of the conductor, apart from giving
orders: giving looks at those whose turn it is, and this at all that something holds.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from app.core.holds import Hold, HoldCode
from app.core.rollout_entry import Targets
from app.core.rollouts import RolloutKind, RolloutState
from app.services.rollout_acting import touch
from app.services.rollout_leaving import hold_json
from app.services.rollout_spec import reader
from app.store import rollout_facts, rollout_nodes, rollout_queue, rollouts
from app.store.database import Database, Priority
from app.store.rollout_facts import Facts
from app.store.rollouts import Rollout

_AT_ONCE = 200

UNTIL_ITS_END = frozenset(
    {
        HoldCode.PINNED,
        HoldCode.VERSION_EDGE,
        HoldCode.DOWNGRADE,
        HoldCode.WITHDRAWN,
        HoldCode.BAD_VERSION,
        HoldCode.FAILED_HERE,
    }
)
"""Whoever has one of these written down is not ordered before this step has taken it away."""
_OWN = UNTIL_ITS_END | {
    HoldCode.NOT_COMMANDABLE,
    HoldCode.OFFLINE,
    HoldCode.OTHER_ROLLOUT,
    HoldCode.KEEPING_WAY_BACK,
}
"""Holds that are written and taken away here; all others are admission's."""


def note_holds(db: Database, now: float) -> int:
    """Bring what is written of waiting nodes of running rollouts up to date; how many holds changed."""
    with db.read() as conn:
        running = rollouts.in_states(conn, (RolloutState.RUNNING,))
    changed = 0
    for rollout in running:
        with db.read() as conn:
            targets = targets_of(conn, rollout)
            running_it = rollout_queue.platforms(conn, rollout.id)
            versions = {one.version for one in running_it if targets.version_hold(one, "") is not None}
            facts_now = reader(conn, rollout, now)
            updates = rollout.kind is RolloutKind.UPDATE
            found = rollout_queue.odd_ones(
                facts_now, rollout.id, versions, leads_back=rollout.leads_back, updates=updates
            )
        holds = [(facts, targets.staging_hold(facts) or _busy(facts)) for facts in found]
        changed += sum(_differs(facts, hold) for facts, hold in holds)
        write_holds(db, rollout, holds)
    return changed


def targets_of(conn: Connection, rollout: Rollout) -> Targets:
    """The images that it leads to, as they are now."""
    return Targets(rollout.kind, rollout_facts.targets(conn, rollout.targets), allow_downgrade=rollout.allow_downgrade)


def write_holds(db: Database, rollout: Rollout, holds: Iterable[tuple[Facts, Hold | None]]) -> set[str]:
    """Write down those that differ from what is stored; ids of all nodes that have one."""
    seen = list(holds)
    different = [(facts.id, hold_json(hold)) for facts, hold in seen if _differs(facts, hold)]
    for start in range(0, len(different), _AT_ONCE):
        with db.write(Priority.BACKGROUND) as change:
            rollout_nodes.write_holds(change.conn, rollout.id, different[start : start + _AT_ONCE])
            touch(change, rollout.id)
    return {facts.id for facts, hold in seen if hold is not None}


def _busy(facts: Facts) -> Hold | None:
    """Who has it is found out when it is its turn."""
    if not facts.busy:
        return None
    return Hold(HoldCode.OTHER_ROLLOUT, "waits for what is under way on it to end", facts.id)


def _differs(facts: Facts, hold: Hold | None) -> bool:
    stored = facts.hold
    if hold is None:
        return stored is not None and stored.get("code") in _OWN
    return stored is None or (stored.get("code"), stored.get("text")) != (hold.code.value, hold.text)
