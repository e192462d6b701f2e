"""What the conductor ends because time has passed: operations, presence, pins. Clocks run as app.core.clocks says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.core.actors import CONDUCTOR
from app.core.clocks import (
    GatewaySeen,
    could_hear,
    deadline_s,
    due,
    presumed_gone,
    step_s,
    timed_out_text,
)
from app.core.events import EventKind
from app.core.leases import LONG_RETRY_S
from app.core.nodes import Connection as Standing
from app.core.nodes import Node, Operation
from app.core.policy import Policy
from app.core.slots import ARMED
from app.services import domain_losses, rollout_canaries
from app.services.endings import end_operation, name_of
from app.services.nodes import NO_PIN, pin_of
from app.services.operations import learn_of_silence
from app.services.orders import give_order
from app.store import audit, canary_clocks, events, fleet, gateways, nodes, operation_clocks, operations, rollouts
from app.store.database import Database, Priority
from wire.messages import Phase, Result

_BATCH = 200
_ASKS_S = 2 * LONG_RETRY_S
"""A node that asked for a lease within this is waiting for us, not we for it."""
_OWES_S = 60.0
"""A connected node has sent whatever it knew of a cancelled operation long before this."""


def advance_clocks(db: Database, now: float) -> int:
    """Count what goes on by steps: the time of operations, and that others wait after the canaries of a rollout; how
    many clocks moved."""
    return _count_canary_soaks(db, now) + _count_operations(db, now)


def _count_canary_soaks(db: Database, now: float) -> int:
    with db.read() as conn:
        waiting = [(id, clock_at) for id, clock_at in canary_clocks.running(conn) if due(clock_at, now)]
    for rollout_id, clock_at in waiting:
        with db.write(Priority.BACKGROUND) as change:
            rollout = rollouts.get(change.conn, rollout_id)
            well = rollout is not None and not rollout_canaries.unwell(change.conn, [rollout], now)
            passed_s = step_s(clock_at, now) if well else 0.0
            canary_clocks.count(change.conn, rollout_id, clock_at, passed_s, now)
    return len(waiting)


def _count_operations(db: Database, now: float) -> int:
    """Count the time of open operations that we could hear; how many clocks moved. Of nodes that say themselves what
    holds them they stand. Nothing is written for those that wait for us: thousands may, for hours."""
    with db.read() as conn:
        waiting = operation_clocks.due(conn, now - _ASKS_S, now)
        seen, policy = gateways.all_seen(conn), fleet.policy(conn)
        on = nodes.gateway_of(conn, [operation.node_id for operation in waiting])
        lost = {node_id for loss in domain_losses.current(conn, now) for node_id in loss.nodes} if waiting else set()
        held = operation_clocks.held_by_nodes(conn, waiting)
    for start in range(0, len(waiting), _BATCH):
        some = waiting[start : start + _BATCH]
        with db.write(Priority.BACKGROUND) as change:
            free = operations.claim(change.conn, [operation.id for operation in some])
            heard = []
            for operation in some:
                if operation.id not in free:
                    continue  # looked at again in a second
                heard_s = operation.heard_s
                gateway_id = on.get(operation.node_id)
                says_why = operation.id in held and _on_a_live_connection(seen, gateway_id, now)
                if operation.node_id not in lost and not says_why:  # its domain's loss says nothing of the node
                    heard_s += _counted_s(operation, seen, gateway_id, now, policy)
                heard.append((operation, heard_s))
            operation_clocks.advance(change.conn, heard, now)
    return len(waiting)


def _on_a_live_connection(seen: Mapping[str, GatewaySeen], gateway_id: str | None, now: float) -> bool:
    gateway = seen.get(gateway_id) if gateway_id is not None else None
    return gateway is not None and gateway.fresh(now)


def _counted_s(
    operation: Operation, seen: Mapping[str, GatewaySeen], gateway_id: str | None, now: float, policy: Policy
) -> float:
    if waits_for_us(operation, now):
        return 0.0
    return step_s(operation.clock_at, now) if could_hear(seen, gateway_id, now, policy) else 0.0


def waits_for_us(operation: Operation, now: float) -> bool:
    """The node asked for its lease and was not given it: its deadline stands meanwhile. One that is asked to stop does
    not wait for us any more, but owes us its word."""
    asked_at = operation.lease_nonce_at
    waits = operation.phase not in ARMED and operation.phase is not Phase.SOAKING and operation.cancel_asked_at is None
    return waits and asked_at is not None and abs(now - asked_at) <= _ASKS_S


def end_overdue(db: Database, now: float) -> int:
    """End operations whose phase took longer than its deadline; a lease stays until its node is seen."""
    with db.read() as conn:
        late = [one for one in operation_clocks.maybe_overdue(conn, now - _ASKS_S, now) if _overdue(one)]
    return sum(_end_overdue(db, operation, now) for operation in late)


def _overdue(operation: Operation) -> bool:
    return operation.heard_s > deadline_s(operation, Policy(**operation.policy))


def _end_overdue(db: Database, found: Operation, now: float) -> bool:
    with db.write(Priority.BACKGROUND) as change:
        node = nodes.get(change.conn, found.node_id, lock=True)
        operation = operations.get(change.conn, found.id, lock=True)
        if node is None or operation is None or not operation.open or not _overdue(operation):
            return False
        text = timed_out_text(operation, Policy(**operation.policy))
        end_operation(change, node, operation, Result.TIMED_OUT, text, now, actor=CONDUCTOR.name)
        learn_of_silence(change, operation, text, now)
        if node.desired_operation_id == operation.id:
            give_order(change, node, None)  # should it still be at it, it stops where it can
        before, after = {"phase": operation.phase.value}, {"result": Result.TIMED_OUT.value}
        subject = f"operation:{operation.id}"
        audit.append(change.conn, CONDUCTOR, "operation.time-out", subject, text, before, after, now)
    return True


def end_unowned(db: Database, now: float) -> int:
    """End cancelled operations that their node, long connected, does not know: it never got them (newest wins)."""
    with db.read() as conn:
        found = [operation for operation in operations.with_cancel_asked(conn) if _cancelled_long_ago(operation, now)]
    return sum(_end_unowned(db, operation, now) for operation in found)


def _cancelled_long_ago(operation: Operation, now: float) -> bool:
    asked_at = operation.cancel_asked_at
    return asked_at is not None and operation.phase is Phase.IDLE and _long_ago(asked_at, now)


def _long_ago(at: float, now: float) -> bool:
    """A time of the future is from before our clock was set back: nobody waits until that is reached again."""
    return not 0 <= now - at <= _OWES_S


def _end_unowned(db: Database, found: Operation, now: float) -> bool:
    with db.write(Priority.BACKGROUND) as change:
        node = nodes.get(change.conn, found.node_id, lock=True)
        operation = operations.get(change.conn, found.id, lock=True)
        if node is None or operation is None or not operation.open or not _unknown_to(node, operation, now):
            return False
        text = "cancelled before the node heard of it"
        end_operation(change, node, operation, Result.CANCELLED, text, now, actor=CONDUCTOR.name)
        subject = f"operation:{operation.id}"
        before, after = {"operation": name_of(operation)}, {"result": Result.CANCELLED.value}
        audit.append(change.conn, CONDUCTOR, "operation.cancel", subject, text, before, after, now)
    return True


def _unknown_to(node: Node, operation: Operation, now: float) -> bool:
    connected = node.connection is Standing.ONLINE and node.gateway_id is not None
    since = node.connected_at
    long_connected = connected and since is not None and _long_ago(since, now)
    return long_connected and node.activity.operation_id != operation.id and _cancelled_long_ago(operation, now)


def mark_gone(db: Database, now: float) -> int:
    """Nodes whose gateway died and that did not come to another one are offline. While no gateway could have heard
    them they stay as they were: the page says that there is no gateway."""
    with db.read() as conn:
        seen, policy = gateways.all_seen(conn), fleet.policy(conn)
        dead = [id for id in nodes.gateways_in_use(conn) if presumed_gone(seen, id, now, policy)]
        gone = nodes.online_on(conn, dead, _BATCH) if dead else []
    if gone:
        _turn_offline(db, gone, seen, now)
    return len(gone)


def _turn_offline(db: Database, gone: Sequence[tuple[str, str]], seen: Mapping[str, GatewaySeen], now: float) -> None:
    with db.write(Priority.BACKGROUND) as change:
        for node_id, gateway_id in gone:
            seen_at = (seen[gateway_id].lost_at(now) or now) if gateway_id in seen else now
            if nodes.turn_offline(change.conn, node_id, gateway_id, seen_at):
                text = "Offline: it did not come back after its gateway went away"
                events.append(change.conn, node_id=node_id, at=now, kind=EventKind.OFFLINE, text=text)
                change.touch(f"node:{node_id}", "nodes", "fleet", "events")


def remove_expired_pins(db: Database, now: float) -> int:
    """Pins end when they said they would."""
    with db.read() as conn:
        expired = nodes.expired_pins(conn, now, _BATCH)
    return sum(_remove_pin(db, node_id, now) for node_id in expired)


def _remove_pin(db: Database, node_id: str, now: float) -> bool:
    with db.write(Priority.BACKGROUND) as change:
        node = nodes.get(change.conn, node_id, lock=True)
        if node is None or node.pin is None or node.pin.until is None or node.pin.until > now:
            return False  # an operator was faster
        nodes.change(change.conn, node.id, NO_PIN)
        text = f"The pin to {node.pin.to} by {node.pin.actor} is over"
        events.append(change.conn, node_id=node.id, at=now, kind=EventKind.PIN_EXPIRED, text=text)
        subject = f"node:{node.id}"
        audit.append(change.conn, CONDUCTOR, "node.unpin", subject, "the pin is over", pin_of(node), None, now)
        change.touch(f"node:{node.id}", "nodes", "fleet", "events")
    return True
