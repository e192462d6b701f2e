"""Rolling back: every node that moved gets its way back, one by one as they can take it. Steps of the conductor.

Gates do not bind it (rule 7); its leases pass admission like all others, where unhealthy replicas cost no floor.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from app.core.actors import CONDUCTOR
from app.core.errors import NotPossible
from app.core.holds import Hold, HoldCode
from app.core.nodes import Admission, Node
from app.core.nodes import Connection as Standing
from app.core.rollout_ends import nothing_attempted
from app.core.rollout_entry import offline_hold
from app.core.rollouts import RolloutNodeState, RolloutState
from app.core.slots import ARMED, SWITCHING
from app.services.orders import Wish, begin, locked_node, withdraw
from app.services.rollout_acting import RolloutEventKind, tell, touch
from app.services.rollout_leaving import hold_json
from app.services.rollout_orders import AT_ONCE, PER_LOOK, author, reason_of
from app.services.rollout_spec import reader
from app.services.rollout_ways_back import way_back_from
from app.store import audit, nodes, operations, rollout_facts, rollout_nodes, rollout_seen, rollouts
from app.store.database import Change, Database, Priority
from app.store.rollout_nodes import RolloutNode
from app.store.rollout_seen import Seen
from app.store.rollouts import Rollout
from wire.messages import Phase, Result

_BATCH = 200


def send_back(db: Database, now: float) -> int:
    """Order the way back of nodes that moved in rollouts that roll back; how many were ordered or need not go."""
    with db.read() as conn:
        found = [
            (rollout.id, _due(conn, rollout, rollout_nodes.to_send_back(conn, rollout.id, _BATCH), now))
            for rollout in rollouts.in_states(conn, (RolloutState.ROLLING_BACK,))
        ]
    sent = 0
    for rollout_id, node_ids in found:
        for start in range(0, len(node_ids), AT_ONCE):
            sent += _send(db, rollout_id, node_ids[start : start + AT_ONCE], now)
            if sent >= PER_LOOK:
                break
    return sent


def _due(conn: Connection, rollout: Rollout, rows: Sequence[RolloutNode], now: float) -> list[str]:
    """Those with which something can be done now: most wait for their reboot to be over, or to be seen again, and no
    lock is taken for a look at these."""
    found = []
    for row in rows:
        node = nodes.get(conn, row.node_id)
        if node is None or not _may_be_told(node):
            continue
        hold = _out_of_reach(node)
        known = hold is not None and row.hold is not None and row.hold["code"] == hold.code
        if not known or _absent(conn, rollout, node, now):
            found.append(row.node_id)
    return found


def _send(db: Database, rollout_id: str, node_ids: list[str], now: float) -> int:
    with db.write(Priority.BACKGROUND) as change:
        rollout = rollouts.get(change.conn, rollout_id, lock=True)
        if rollout is None or rollout.state is not RolloutState.ROLLING_BACK:
            return 0
        sent = [node_id for node_id in sorted(node_ids) if _send_one(change, rollout, node_id, now)]
        if sent:
            after = {"nodes": sent}
            subject = f"rollout:{rollout.id}"
            audit.append(change.conn, CONDUCTOR, "rollout.send-back", subject, rollout.reason, None, after, now)
            rollouts.note_movement(change.conn, rollout.id, now)
            touch(change, rollout.id)
    return len(sent)


def _out_of_reach(node: Node) -> Hold | None:
    """Why an order would run out unheard; None: it can be told, or was retired."""
    if node.admission is Admission.RETIRED:
        return None
    if node.conflict is not None:
        return Hold(HoldCode.NOT_COMMANDABLE, "two machines claim to be it, so neither is commanded", node.id)
    return None if node.connection is Standing.ONLINE else offline_hold(node.id)


def _may_be_told(node: Node) -> bool:
    """Nobody knows which slot a node is in while it switches; it is told when it is up again."""
    if node.admission is Admission.RETIRED:
        return True  # to be written down as one that stays
    operation = node.operation
    return operation is None or operation.phase not in SWITCHING


def _send_one(change: Change, rollout: Rollout, node_id: str, now: float) -> bool:
    node = locked_node(change, node_id)
    row = rollout_nodes.get(change.conn, rollout.id, node_id)
    if row is None or row.back_operation_id is not None or row.back_ended_at is not None or not _may_be_told(node):
        return False
    forward = operations.get(change.conn, row.operation_id) if row.operation_id is not None else None
    under_way = forward is not None and forward.open
    if under_way and forward is not None and forward.phase is Phase.CONFIRMING:
        return False  # it proves itself or goes back by itself; either is known soon
    if not under_way and not _moved(row):
        return False
    wish: Wish | str
    hold = _out_of_reach(node)
    if hold is not None and not _absent(change.conn, rollout, node, now):
        rollout_nodes.change(change.conn, row, hold=hold_json(hold))
        touch(change, rollout.id)
        return False  # an order would run out unheard: it is told when it is seen again
    if node.admission is Admission.RETIRED:
        wish = "it was retired"
    elif hold is not None:
        wish = "it counts as absent"
    else:
        wish = way_back_from(change.conn, rollout, node, row)
    if isinstance(wish, str):
        return False if under_way else _stays(change, rollout, node, row, wish, now)
    try:
        operation = begin(change, author(rollout), node, wish, reason_of(rollout), now)
    except NotPossible:
        return False
    return rollout_nodes.change(change.conn, row, back_operation_id=operation.id, back_at=now, hold=None)


def _absent(conn: Connection, rollout: Rollout, node: Node, now: float) -> bool:
    return any(facts.absent for facts in reader(conn, rollout, now).of([node.id]))


def _moved(row: RolloutNode) -> bool:
    left_moved = row.state is RolloutNodeState.LEFT and row.moving_at is not None
    return left_moved or row.state in (RolloutNodeState.DONE, RolloutNodeState.FAILED)


def _stays(change: Change, rollout: Rollout, node: Node, row: RolloutNode, why: str, now: float) -> bool:
    text = f"{row.text}; {why}" if row.text else why
    if node.booted_digest in rollout_facts.reached(change.conn, rollout.id):
        told = f"{row.name} is not sent back: {why}"
        tell(change, rollout, RolloutEventKind.NODE_FAILED, told, now, node_id=row.node_id)
    return rollout_nodes.change(change.conn, row, back_ended_at=now, text=text, hold=None)


def call_back(db: Database, now: float) -> int:
    """Call back orders to go back of rollouts that were aborted meanwhile, where nothing is armed; how many."""
    with db.read() as conn:
        found = rollout_seen.back_to_take_back(conn, PER_LOOK)
    called = 0
    for seen in found:
        with db.write(Priority.BACKGROUND) as change:
            rollout = rollouts.get(change.conn, seen.row.rollout_id, lock=True)
            called += rollout is not None and _call_back(change, rollout, seen, now)
    return called


def _call_back(change: Change, rollout: Rollout, seen: Seen, now: float) -> bool:
    assert seen.row.back_operation_id is not None, "it was sent back"
    node = locked_node(change, seen.row.node_id)
    operation = operations.get(change.conn, seen.row.back_operation_id, lock=True)
    if operation is None or not operation.open or operation.cancel_asked_at is not None or operation.phase in ARMED:
        return False
    if operation.phase is Phase.SOAKING:
        return False
    withdraw(change, author(rollout), node, operation, f"{rollout.name} is aborted", now)
    touch(change, rollout.id)
    return True


def observe_back(db: Database, now: float) -> int:
    """Write down ways back that have ended; how many."""
    with db.read() as conn:
        found = rollout_seen.back_ended(conn, _BATCH)
    for seen in found:
        with db.write(Priority.BACKGROUND) as change:
            rollout = rollouts.get(change.conn, seen.row.rollout_id, lock=True)
            if rollout is not None:
                _write_down(change, rollout, seen, now)
    return len(found)


def _write_down(change: Change, rollout: Rollout, seen: Seen, now: float) -> None:
    row = seen.row
    if rollout.state is RolloutState.ROLLING_BACK and not seen.cancel_asked and _waited_in_vain(seen):
        hold = None if seen.online else hold_json(offline_hold(row.node_id))
        rollout_nodes.change(change.conn, row, back_operation_id=None, back_at=None, hold=hold)
        touch(change, rollout.id)
        return
    back = seen.result is Result.SUCCEEDED
    words = "is back" if back else f"did not get back: {seen.result_text or (seen.result or Result.UNKNOWN).value}"
    text = row.text if back else f"{row.text}; {words}".removeprefix("; ")
    if not rollout_nodes.change(change.conn, row, back_ended_at=seen.ended_at or now, text=text, hold=None):
        return
    if not back:
        tell(change, rollout, RolloutEventKind.NODE_FAILED, f"{row.name} {words}", now, node_id=row.node_id)
    rollouts.note_movement(change.conn, rollout.id, now)
    touch(change, rollout.id)


def _waited_in_vain(seen: Seen) -> bool:
    """Its deadline passed before it had a lease, whether it had begun or not: it is sent again when it is seen."""
    result = seen.result or Result.UNKNOWN
    return nothing_attempted(result, seen.phase, asked=True, had_lease=seen.granted_at is not None)
