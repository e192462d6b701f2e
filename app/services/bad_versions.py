"""Versions that are bad fleet-wide: cleared by an operator only; their staged copies are made unbootable first.

`disarm_copies` and `stop_orders` are steps of the conductor.
"""

from __future__ import annotations

from app.core.actors import CONDUCTOR, Actor
from app.core.errors import NotFound, NotPossible
from app.core.nodes import Node
from app.core.slots import ARMED
from app.services.acting import need
from app.services.orders import Wish, begin, locked_node, withdraw
from app.store import audit, bad_versions, images, operations, ways_back
from app.store.bad_versions import BadVersion, Cause
from app.store.database import Change, Database, Priority
from wire.messages import OperationKind, Phase

_AT_ONCE, _PER_LOOK = 20, 60
"""Orders in one transaction and in one look: operators, and admission, wait for no more than these."""


def clear(db: Database, actor: Actor, digest: str, reason: str, now: float) -> None:
    """The version may be tried again wherever it did not fail itself. Nothing is started."""
    need(reason, "Say why the version may be tried again.")
    with db.write() as change:
        found = bad_versions.get(change.conn, digest)
        if found is None:
            raise NotFound("bad version", digest)
        if found.cause is Cause.WITHDRAWN and not images.of_digest(change.conn, digest):
            raise NotPossible("withdrawn", f"{found.version} is withdrawn: take that back first.")
        bad_versions.clear(change.conn, digest, actor.name, reason, now, *Cause)
        before = {"digest": digest, "reason": found.reason, "cause": found.cause.value}
        audit.append(change.conn, actor, "version.clear", f"version:{found.version}", reason, before, None, now)
        change.touch("images", "rollouts", "operations", "nodes", "fleet")


def disarm_copies(db: Database, now: float) -> int:
    """Make staged copies of bad versions unbootable on nodes that do nothing else; how many nodes were told.

    The way back of a node is sacred (rule 2): a copy that ran there and was confirmed stays, unless somebody withdrew
    that version and the one that is booted has proved itself.
    """
    with db.read() as conn:
        todo = [
            (bad, held.node_id)
            for bad in bad_versions.not_cleared(conn).values()
            for held in bad_versions.holders(conn, bad.digest, bad.at, now)
            if held.disarmable(bad.digest, bad.cause)
        ]
    told = 0
    for start in range(0, min(len(todo), _PER_LOOK), _AT_ONCE):
        with db.write(Priority.BACKGROUND) as change:
            some = sorted(todo[start : start + _AT_ONCE], key=lambda one: one[1])
            told += sum([_disarm(change, bad, node_id, now) for bad, node_id in some])
    return told


def _disarm(change: Change, bad: BadVersion, node_id: str, now: float) -> bool:
    node = locked_node(change, node_id)
    if not _free(change, node) or bad_versions.get(change.conn, bad.digest) is None:
        return False
    wish = Wish(OperationKind.DISARM, version=bad.version, digest=bad.digest)
    reason = f"its copy of {bad.version} is made unbootable: {bad.reason}"
    operation = begin(change, CONDUCTOR, node, wish, reason, now)
    after = {"operation": operation.id, "digest": bad.digest}
    audit.append(change.conn, CONDUCTOR, "node.disarm", f"node:{node.id}", reason, None, after, now)
    return True


def _free(change: Change, node: Node) -> bool:
    usable = node.commandable and node.conflict is None and node.admission == "admitted"
    return usable and not operations.open_of(change.conn, node.id)


def stop_orders(db: Database, now: float) -> int:
    """Call back orders that lead to bad versions and have armed nothing: of operators, and ways back to what was
    withdrawn; how many. Orders that lead forth in rollouts go with these."""
    with db.read() as conn:
        bad = bad_versions.not_cleared(conn)
        found = operations.unarmed_towards(conn, list(bad)) if bad else []
        back = ways_back.among(conn, [one.id for one in found]) if found else set()
    found = [one for one in found if bad[one.target_digest].stops(one.id in back)]
    stopped = 0
    for one in found[:_PER_LOOK]:
        with db.write(Priority.BACKGROUND) as change:
            node = locked_node(change, one.node_id)
            operation = operations.get(change.conn, one.id, lock=True)
            current = bad_versions.get(change.conn, one.target_digest)
            if operation is None or not operation.open or operation.cancel_asked_at is not None or current is None:
                continue
            if not current.stops(one.id in back):
                continue
            if operation.phase in ARMED or operation.phase is Phase.SOAKING:
                continue
            reason = f"{current.version} is bad: {current.reason}"
            withdraw(change, CONDUCTOR, node, operation, reason, now)
            before = {"operation": operation.id}
            audit.append(change.conn, CONDUCTOR, "node.cancel", f"node:{node.id}", reason, before, None, now)
            stopped += 1
    return stopped
