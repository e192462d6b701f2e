"""Orders of rollouts to their nodes: given early and widely, taken back where nothing is armed. Steps of the conductor.

Nothing here moves a node: it stages, and moves when admission grants its lease.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.core.actors import CONDUCTOR, Actor
from app.core.errors import NotPossible
from app.core.group_policy import GroupPolicy
from app.core.groups import Grouping
from app.core.nodes import Node, Operation
from app.core.rollout_ends import CALLED_BACK
from app.core.rollout_entry import Targets
from app.core.rollouts import RolloutKind, RolloutNodeState, RolloutState
from app.core.slots import ARMED
from app.services.orders import Wish, begin, locked_node, withdraw
from app.services.rollout_acting import record, touch
from app.services.rollout_groups import order_policy
from app.services.rollout_leaving import stopped_before, tell_stayed
from app.services.rollout_spec import reader
from app.services.rollout_waiting import UNTIL_ITS_END, targets_of, write_holds
from app.services.rollout_ways_back import way_back_wish
from app.store import (
    audit,
    groups,
    images,
    kept_ways_back,
    operations,
    rollout_nodes,
    rollout_queue,
    rollout_seen,
    rollouts,
)
from app.store.database import Change, Database, Priority
from app.store.rollout_nodes import RolloutNode
from app.store.rollout_seen import Seen
from app.store.rollouts import Rollout
from wire.messages import OperationKind, Phase

AT_ONCE = 20
"""Orders in one transaction: each is a dozen statements, and operators wait for no more than this."""
PER_LOOK = 60
"""Orders of one rollout in one look: admission, which the same conductor does, waits for no more than this."""
_LOOKS = 5
"""At one look, where those whose turn it is turn out to be held: their turn passes to the next ones at once."""
_BEGUN_S = 120.0
"""An order that did not begin to stage within this does not count as a download: the node holds it."""

UNDER_WAY = (RolloutNodeState.WAITING, RolloutNodeState.ORDERED, RolloutNodeState.MOVING)
STOPPED = (RolloutState.PAUSED, RolloutState.HALTED, RolloutState.ROLLING_BACK, RolloutState.ABORTED)


def author(rollout: Rollout) -> Actor:
    """Who an order of the rollout is by, as histories of nodes say it."""
    return Actor(CONDUCTOR.kind, CONDUCTOR.id, rollout.actor)


def reason_of(rollout: Rollout) -> str:
    return f"{rollout.name}: {rollout.reason}" if rollout.reason else rollout.name


# --- giving -------------------------------------------------------------------------------------------------


def give_orders(db: Database, now: float) -> int:
    """Order waiting nodes of running rollouts, as many as may download at once; how many were ordered."""
    with db.read() as conn:
        running = rollouts.in_states(conn, (RolloutState.RUNNING,))
    return sum(_give(db, rollout, now) for rollout in running)


def _give(db: Database, rollout: Rollout, now: float) -> int:
    ordered = 0
    for _ in range(_LOOKS):
        with db.read() as conn:
            if not rollout_queue.anybody(conn, rollout.id):
                return ordered
            downloading = rollout_seen.downloading(conn, rollout.id, now - _BEGUN_S)
            places = rollout.policy.stage_parallel - downloading if rollout.kind is RolloutKind.UPDATE else PER_LOOK
            most = min(places, PER_LOOK - ordered)
            if most <= 0:
                return ordered
            found = rollout_queue.next_ones(
                reader(conn, rollout, now),
                rollout.id,
                leads_back=rollout.leads_back,
                updates=rollout.kind is RolloutKind.UPDATE,
                but=UNTIL_ITS_END,
                jitter_s=rollout.policy.stage_jitter_s,
                limit=most,
            )
            targets = targets_of(conn, rollout)
        held = write_holds(db, rollout, [(facts, targets.staging_hold(facts)) for facts in found])
        free = [facts.id for facts in found if facts.id not in held]
        for start in range(0, len(free), AT_ONCE):
            ordered += _order(db, rollout.id, free[start : start + AT_ONCE], now)
        if not held:
            break
    return ordered


def _order(db: Database, rollout_id: str, node_ids: Sequence[str], now: float) -> int:
    with db.write(Priority.BACKGROUND) as change:
        rollout = rollouts.get(change.conn, rollout_id, lock=True)
        if rollout is None or rollout.state is not RolloutState.RUNNING:
            return 0
        targets = targets_of(change.conn, rollout)
        able = [
            one.id for one in reader(change.conn, rollout, now).of(sorted(node_ids)) if not targets.staging_hold(one)
        ]
        grouping = Grouping(groups.all_groups(change.conn))
        ordered = [node_id for node_id in able if _order_one(change, rollout, node_id, grouping, now)]
        if ordered:
            after = {"nodes": ordered}
            subject = f"rollout:{rollout.id}"
            audit.append(change.conn, CONDUCTOR, "rollout.order", subject, rollout.reason, None, after, now)
            touch(change, rollout.id)
    return len(ordered)


def _order_one(change: Change, rollout: Rollout, node_id: str, grouping: Grouping, now: float) -> bool:
    node = locked_node(change, node_id)
    row = rollout_nodes.get(change.conn, rollout.id, node_id)
    if row is None or row.state is not RolloutNodeState.WAITING or row.operation_id is not None:
        return False
    if any(_in_the_way(rollout, operation) for operation in operations.open_of(change.conn, node_id)):
        return False  # somebody was faster; the next look says so
    if rollout.kind is RolloutKind.UPDATE and kept_ways_back.keeper_of(change.conn, node_id) is not None:
        return False  # what moved it ended at this moment, and its rollout goes on (rule 2)
    wish = _wish(change, rollout, node, order_policy(grouping, rollout, node))
    if isinstance(wish, str):
        values = {"state": RolloutNodeState.LEFT.value, "text": wish, "hold": None, "ended_at": now}
        rollout_nodes.change(change.conn, row, **values)
        return False
    try:
        operation = begin(change, author(rollout), node, wish, reason_of(rollout), now)
    except NotPossible:
        return False
    return mark_ordered(change, row, node, operation, now)


def mark_ordered(change: Change, row: RolloutNode, node: Node, operation: Operation, now: float) -> bool:
    """The node has its order; what it is now is what it leaves behind."""
    values = {
        "state": RolloutNodeState.ORDERED.value,
        "operation_id": operation.id,
        "hold": None,
        "ordered_at": now,
        "staged_at": None,
        "old_version": node.version,
        "old_digest": node.booted_digest,
        "old_slot": node.booted_slot,
    }
    return rollout_nodes.change(change.conn, row, **values)


def _in_the_way(rollout: Rollout, operation: Operation) -> bool:
    """A way back does not wait for what has armed nothing, nor for a soak (rule 7)."""
    if not rollout.leads_back or operation.holds_lease or operation.kind is OperationKind.ROLLBACK:
        return True
    return operation.phase in ARMED


def _wish(change: Change, rollout: Rollout, node: Node, policy: GroupPolicy) -> Wish | str:
    """What the node is to do, or why there is nothing that it could do."""
    if rollout.kind is RolloutKind.REBOOT:
        return Wish(OperationKind.REBOOT, rollout_id=rollout.id, policy=policy)
    if rollout.kind is RolloutKind.ROLLBACK:
        return way_back_wish(change.conn, rollout, node)
    for image_id in rollout.targets:
        image = images.get(change.conn, image_id)
        if image is not None and Targets.fits(image.os, image.arch, node.os_id, node.arch):
            return Wish(
                OperationKind.ACTIVATE,
                image.id,
                image.version,
                image.digest,
                rollout_id=rollout.id,
                policy=policy,
            )
    return f"there is no image for {node.os_id} {node.arch}"


# --- taking back --------------------------------------------------------------------------------------------


def take_back(db: Database, now: float) -> int:
    """Call back orders of rollouts that do not run any more, where nothing is armed; how many.

    Paused: only from nodes that have a lease and have not used it, the others go on staging. Halted, aborted, rolling
    back: from all. Who arms at this moment finishes: its row follows what its operation shows.
    """
    with db.read() as conn:
        stopped = rollouts.unsettled(conn, STOPPED)
    return sum(_take_back(db, rollout, now) for rollout in stopped)


def _take_back(db: Database, rollout: Rollout, now: float) -> int:
    paused = rollout.state is RolloutState.PAUSED
    if rollout.state in (RolloutState.ROLLING_BACK, RolloutState.ABORTED):
        _let_go(db, rollout, now)
    with db.read() as conn:
        found = rollout_seen.to_take_back(conn, rollout.id, unused_leases_only=paused, limit=PER_LOOK)
    taken = 0
    for start in range(0, len(found), AT_ONCE):
        with db.write(Priority.BACKGROUND) as change:
            current = rollouts.get(change.conn, rollout.id, lock=True)
            if current is None or current.state is not rollout.state:
                return taken
            some = sorted(found[start : start + AT_ONCE], key=lambda seen: seen.row.node_id)
            ids = [seen.row.node_id for seen in some if _take_one(change, current, seen, now)]
            if ids:
                record(change, CONDUCTOR, "take-back", current, _stopped(current), None, {"nodes": ids}, now)
            taken += len(ids)
    return taken


def _let_go(db: Database, rollout: Rollout, now: float) -> None:
    """Nodes that wait without an order stay as they are."""
    with db.write(Priority.BACKGROUND) as change:
        current = rollouts.get(change.conn, rollout.id, lock=True)
        if current is None or current.state is not rollout.state:
            return
        left = rollout_nodes.leave_waiting(change.conn, rollout.id, stopped_before(rollout), now)
        if left:
            tell_stayed(change, rollout, now)
            why = f"{rollout.name} was stopped before they moved"
            record(change, CONDUCTOR, "let-go", rollout, why, None, {"count": left}, now)


def _take_one(change: Change, rollout: Rollout, seen: Seen, now: float) -> bool:
    row = rollout_nodes.get(change.conn, rollout.id, seen.row.node_id)  # it may have got its lease since it was seen
    if row is None or row.state not in UNDER_WAY or row.operation_id != seen.row.operation_id:
        return False
    return take_order(change, rollout, row, _stopped(rollout), now)


def _stopped(rollout: Rollout) -> str:
    return f"{rollout.name} is {rollout.state.value.replace('-', ' ')}"


def take_order(change: Change, rollout: Rollout, row: RolloutNode, why: str, now: float) -> bool:
    """Call back the order of a node of the locked rollout; it waits again. False when it is too late for that."""
    assert row.operation_id is not None, "it was ordered"
    node = locked_node(change, row.node_id)
    operation = operations.get(change.conn, row.operation_id, lock=True)
    if operation is None or not operation.open or operation.cancel_asked_at is not None:
        return False
    if operation.phase in ARMED or operation.phase is Phase.SOAKING:
        return False
    withdraw(change, author(rollout), node, operation, why, now)
    touch(change, rollout.id)
    again = {"state": RolloutNodeState.WAITING.value, "text": CALLED_BACK, "hold": None}
    return rollout_nodes.change(change.conn, row, **again, moving_at=None, confirmed_at=None)
