"""Giving a node its next order, within the change of an operator's action: what was desired before gives way."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from app.core.actors import Actor
from app.core.errors import NotFound, NotPossible
from app.core.events import EventKind
from app.core.group_policy import GroupPolicy
from app.core.nodes import Delivery, Node, Operation, OperationState
from app.core.operations import ends_at_once
from app.ids import new_id
from app.services.endings import end_operation, name_of
from app.services.groups import policy_for
from app.store import events, fleet, nodes, operations
from app.store.database import Change
from wire.messages import OperationKind, Order, Phase, Result


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operation shall do: the target is empty where the booted slot is meant."""

    kind: OperationKind
    image_id: str | None = None
    version: str = ""
    digest: str = ""
    override_failed: bool = False
    override_floor: bool = False
    rollout_id: str | None = None
    policy: GroupPolicy | None = None
    """Of its rollout; None: of the node's policy group now."""


def locked_node(change: Change, node_id: str) -> Node:
    """The node, its row held until the end of the change; NotFound."""
    node = nodes.get(change.conn, node_id, lock=True)
    if node is None:
        raise NotFound("node", node_id)
    return node


def begin(change: Change, actor: Actor, node: Node, wish: Wish, reason: str, now: float) -> Operation:
    """Make a new operation the node's desired state; an open one is superseded."""
    operation_id = new_id("op")
    if node.operation is not None:
        _supersede(change, node, node.operation, operation_id, now)
    order = give_order(change, node, operation_id)
    operation = _new(change, actor, node, wish, operation_id, order, reason, now)
    operations.add(change.conn, operation)
    events.append(
        change.conn,
        node_id=node.id,
        at=now,
        kind=EventKind.OPERATION_BEGUN,
        text=f"{name_of(operation)} asked for by {actor.name}{_because(reason)}",
        actor=actor.name,
        operation_id=operation_id,
    )
    change.touch(f"node:{node.id}", "nodes", "fleet", "events", "operations")
    return operation


def withdraw(change: Change, actor: Actor, node: Node, operation: Operation, reason: str, now: float) -> None:
    """Ask the node to stop: a newer order without an operation. It ends by the node's word, or at once when the node
    cannot have heard of it."""
    text = f"cancelled by {actor.name}{_because(reason)}"
    if ends_at_once(node, operation):
        end_operation(change, node, operation, Result.CANCELLED, text, now, actor=actor.name)
    else:
        operations.ask_to_cancel(change.conn, operation, text, now)
        events.append(
            change.conn,
            node_id=node.id,
            at=now,
            kind=EventKind.CANCEL_ASKED,
            text=f"{name_of(operation)}: {text}; the node is asked to stop",
            actor=actor.name,
            operation_id=operation.id,
        )
    give_order(change, node, None)
    change.touch(f"node:{node.id}", "nodes", "fleet", "events", "operations")


def give_order(change: Change, node: Node, operation_id: str | None) -> Order:
    """The next order for the node; it is sent as soon as the node can be reached."""
    order = nodes.give_order(change.conn, node, fleet.epoch(change.conn), operation_id)
    if order is None:
        raise NotPossible("changed", f"{node.name} was given another order at this moment; look again.")
    change.touch(f"desired:{node.id}")
    return order


def _supersede(change: Change, node: Node, old: Operation, successor: str, now: float) -> None:
    if ends_at_once(node, old):
        before = "the node heard of it" if old.claim is None else "its soak was seen to be over"
        end_operation(change, node, old, Result.CANCELLED, f"superseded before {before}", now)
        return
    if old.cancel_asked_at is None:
        operations.ask_to_cancel(change.conn, old, "a newer operation took its place", now)
        events.append(
            change.conn,
            node_id=node.id,
            at=now,
            kind=EventKind.OPERATION_SUPERSEDED,
            text=f"{name_of(old)} gives way to a newer operation",
            operation_id=old.id,
        )


def _new(
    change: Change,
    actor: Actor,
    node: Node,
    wish: Wish,
    operation_id: str,
    order: Order,
    reason: str,
    now: float,
) -> Operation:
    policy = wish.policy or policy_for(change.conn, node)
    return Operation(
        id=operation_id,
        node_id=node.id,
        kind=wish.kind,
        image_id=wish.image_id,
        target_version=wish.version,
        target_digest=wish.digest,
        order=order,
        state=OperationState.OPEN,
        phase=Phase.IDLE,
        result=None,
        result_text="",
        failed_checks=(),
        actor=actor.name,
        reason=reason,
        override_failed=wish.override_failed,
        policy=asdict(policy.timing),
        old_boot_id=node.boot_id,
        old_slot=node.booted_slot,
        old_version=node.version,
        old_digest=node.booted_digest,
        heard_s=0.0,
        clock_at=now,
        lease_nonce=None,
        lease_nonce_at=None,
        lease_asked_at=None,
        hold=None,
        created_at=now,
        phase_at=now,
        cancel_asked_at=None,
        ended_at=None,
        rollout_id=wish.rollout_id,
        override_floor=wish.override_floor,
        delivery=_delivery(wish.kind, policy),
    )


def _delivery(kind: OperationKind, policy: GroupPolicy) -> Delivery:
    reboots = kind in (OperationKind.ACTIVATE, OperationKind.ROLLBACK, OperationKind.REBOOT)
    downloads = kind in (OperationKind.ACTIVATE, OperationKind.STAGE)
    drains = reboots and policy.drain != ""
    return Delivery(
        drain=policy.drain if drains else "",
        drain_s=policy.drain_s if drains else 0.0,
        mirrors=policy.mirrors if downloads else (),
        bandwidth_bytes_s=policy.bandwidth_bytes_s if downloads else 0,
    )


def _because(reason: str) -> str:
    return f": “{reason}”" if reason else ""
