"""Leases that are out: their time, and the return of their budget. They are granted in app.services.admission."""

from __future__ import annotations

from app.core.clocks import step_s
from app.core.events import EventKind
from app.core.leases import Held, reason_to_return
from app.store import events, fleet, lease_clocks, leases, nodes
from app.store.database import Change, Database, Priority

Returnable = Held | leases.Lease

_BATCH = 200
"""Clocks in one transaction: operators wait for no more than this."""


def count_time(db: Database, now: float) -> int:
    """Count the time of the leases that are out; how many were written. At most half a minute for one look."""
    with db.read() as conn:
        due_now = lease_clocks.due(conn, now)
    for start in range(0, len(due_now), _BATCH):
        with db.write(Priority.BACKGROUND) as change:
            some = due_now[start : start + _BATCH]
            lease_clocks.count(change.conn, [(clock, step_s(clock[1], now)) for clock in some], now)
    return len(due_now)


def return_seen(db: Database, now: float) -> int:
    """Return the budget of leases whose nodes were seen through; how many that were."""
    with db.read() as conn:
        policy = fleet.policy(conn)
        over = [held for held in leases.maybe_over(conn) if reason_to_return(held, now, policy) is not None]
    return sum(_return(db, held.node_id, now) for held in over)


def _return(db: Database, node_id: str, now: float) -> bool:
    with db.write(Priority.BACKGROUND) as change:
        nodes.lock_row(change.conn, node_id)  # before the lease: everybody locks in this order
        held = leases.held(change.conn, node_id)
        reason = reason_to_return(held, now, fleet.policy(change.conn)) if held is not None else None
        if held is None or reason is None:
            return False
        give_back(change, held, reason, now)
    return True


def give_back(change: Change, lease: Returnable, reason: str, now: float) -> None:
    """Return the budget, once. The node's row is locked by the caller."""
    if not leases.end(change.conn, lease.id, lease.granted_at, reason, now):
        return
    events.append(
        change.conn,
        node_id=lease.node_id,
        at=now,
        kind=EventKind.LEASE_RETURNED,
        text=f"The lease is free again: {reason}",
        operation_id=lease.operation_id,
    )
    change.touch("operations", f"node:{lease.node_id}", "events")
