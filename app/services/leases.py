"""Leases: granted by the conductor, one per fleet for now; the unique index on leases is the last guard."""

from __future__ import annotations

from sqlalchemy import Connection

from app.core.clocks import due, step_s
from app.core.events import EventKind
from app.core.leases import Asking, Held, Round, Waiting, decide, reason_to_return
from app.ids import new_id
from app.store import events, fleet, leases, nodes, operations
from app.store.database import Change, Database, Priority

Returnable = Held | leases.Lease

_BATCH = 200
"""Answers in one transaction: operators wait for no more than this."""


def count_time(db: Database, now: float) -> bool:
    """Count the time of the lease that is out; whether it was written. At most half a minute for one look."""
    with db.read() as conn:
        held = leases.held(conn)
    if held is None or not due(held.counted_at, now):
        return False
    with db.write(Priority.BACKGROUND) as change:
        return leases.count(change.conn, held, step_s(held.counted_at, now), now)


def grant_leases(db: Database, now: float) -> bool:
    """Look at the queue once: return what can be returned, grant at most one, tell the others why they wait.

    Returning and granting are one transaction that holds the fleet's row, so that any number of conductors grants
    one lease; the answers to the others are another, for they only have to be right in the end.
    """
    with db.read() as conn:
        if not _anything_to_do(conn, now):
            return False
    with db.write(Priority.BACKGROUND) as change:
        fleet.lock(change.conn)
        _return_seen(change, now)
        found = _grant(change, now)
    _answer(db, found.waiting)
    return found.grant is not None


def _anything_to_do(conn: Connection, now: float) -> bool:
    held = leases.held(conn)
    if held is not None and reason_to_return(held, now, fleet.policy(conn)) is not None:
        return True
    found = decide(leases.asking(conn), held.node_name if held else None, now)
    return found.grant is not None or bool(found.waiting)


def _return_seen(change: Change, now: float) -> None:
    held = leases.held(change.conn)
    if held is None:
        return
    nodes.lock_row(change.conn, held.node_id)  # before the lease: everybody locks in this order
    held = leases.held(change.conn)
    reason = reason_to_return(held, now, fleet.policy(change.conn)) if held is not None else None
    if held is not None and reason is not None:
        give_back(change, held, reason, now)


def _grant(change: Change, now: float) -> Round:
    held = leases.held(change.conn)
    found = decide(leases.asking(change.conn), held.node_name if held else None, now)
    if found.grant is None:
        return found
    nodes.lock_row(change.conn, found.grant.node_id)
    if not _still_wanted(change, found.grant) or not _take(change, found.grant, now):
        return Round(None, ())  # looked at again in a second
    return found


def _still_wanted(change: Change, asking: Asking) -> bool:
    """Between looking and locking the operation may have been cancelled or have ended, or asked anew."""
    operation_ids = {(one.operation_id, one.nonce) for one in leases.asking(change.conn)}
    return (asking.operation_id, asking.nonce) in operation_ids


def _take(change: Change, asking: Asking, now: float) -> bool:
    conn = change.conn
    node = nodes.get(conn, asking.node_id)
    assert node is not None, "an operation has a node"
    granted = leases.grant(
        conn,
        lease_id=new_id("lease"),
        asking=asking,
        duration_s=fleet.policy(conn).lease_s,
        old_boot_id=node.boot_id,
        now=now,
    )
    if granted:
        operations.start_under_lease(conn, asking.operation_id, asking.node_id)
        events.append(
            conn,
            node_id=node.id,
            at=now,
            kind=EventKind.LEASE_GRANTED,
            text="Has the lease: it may reboot now, and no other node may",
            operation_id=asking.operation_id,
            boot_id=node.boot_id,
        )
        change.touch(f"desired:{node.id}", f"node:{node.id}", "events")
    return granted


def _answer(db: Database, waiting: tuple[Waiting, ...]) -> None:
    for start in range(0, len(waiting), _BATCH):
        _answer_some(db, waiting[start : start + _BATCH])


def _answer_some(db: Database, waiting: tuple[Waiting, ...]) -> None:
    with db.write(Priority.BACKGROUND) as change:
        free = operations.claim(change.conn, [one.asking.operation_id for one in waiting])
        for one in waiting:
            if one.asking.operation_id not in free:
                continue  # its turn comes with the next round
            hold = {"code": one.code, "text": one.text, "retry_s": one.retry_s, "nonce": one.asking.nonce}
            if operations.answer_to_wait(change.conn, one.asking.operation_id, one.asking.nonce, hold):
                change.touch(f"desired:{one.asking.node_id}")


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
