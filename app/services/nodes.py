"""What operators do with a node: each function is one intention, in one transaction with its audit entry.

Gather (the node under its lock), decide (app.core.operations), apply. NotPossible, NotFound and Invalid change
nothing. `now` is Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.core.actors import Actor
from app.core.errors import Invalid, NotFound
from app.core.events import EventKind
from app.core.labels import check_labels
from app.core.nodes import Admission, Node, Target
from app.core.operations import (
    Action,
    refusal,
    refusal_of_image,
    refusal_to_roll_back,
    refusal_to_update,
)
from app.core.slots import way_back_of
from app.core.texts import fits_index
from app.services import service_scopes
from app.services.acting import done, need, possible, record
from app.services.failed_versions import allow_again, failed_here
from app.services.floor_overrides import override_way_back
from app.services.group_releases import node_stays_bound
from app.services.kept_ways_back import refusal_to_write
from app.services.orders import Wish, begin, give_order, locked_node, withdraw
from app.services.replacement import lock_with_replaced, retire_replaced
from app.services.retirement import leave_fleet
from app.services.rollout_reverse import reverse_node
from app.services.version_gates import refusal_of_version, refusal_of_way_back
from app.store import channels, fleet, images, nodes
from app.store.database import Change, Database
from wire.limits import NAME_CHARS
from wire.messages import OperationKind

# --- operations ---------------------------------------------------------------------------------------------


def update(
    db: Database,
    actor: Actor,
    node_id: str,
    image_id: str,
    reason: str,
    now: float,
    override_failed: bool = False,
    override_floor: bool = False,
    allow_downgrade: bool = True,
) -> str:
    """Bring the node to this image: stage, arm under a lease, reboot, confirm, soak. Returns the operation's id.
    NotPossible too while the rollout that moved it is not over, for which its way back is kept.

    `override_failed`: although this version failed here before, which it clears; `override_floor`: although a service
    falls below its floor; each needs a reason. Who names a version for one node chooses to go down, unless
    `allow_downgrade` is False.
    """
    if override_failed:
        need(reason, "Say why a version that failed here may be tried again.")
    _need_for_floor(override_floor, reason)
    with db.write() as change:
        node = locked_node(change, node_id)
        image = target(change, image_id)
        pinned = _pinned_image(change, node)
        possible(refusal_to_update(node, image, override_failed=override_failed, pinned_image_id=pinned))
        possible(refusal_of_version(change.conn, node, image, allow_downgrade=allow_downgrade))
        possible(refusal_to_write(change.conn, node))
        failed = failed_here(node, image.digest)
        if failed is not None:
            allow_again(change, actor, node, failed, reason, now)
        wish = Wish(
            OperationKind.ACTIVATE,
            image.id,
            image.version,
            image.digest,
            override_failed=override_failed,
            override_floor=override_floor,
        )
        return _instruct(change, actor, Action.UPDATE, node, wish, reason, now)


def reboot(db: Database, actor: Actor, node_id: str, reason: str, now: float, override_floor: bool = False) -> str:
    """Reboot into the booted slot, under a lease. Returns the operation's id. `override_floor`: as with `update`."""
    _need_for_floor(override_floor, reason)
    with db.write() as change:
        node = locked_node(change, node_id)
        possible(refusal(Action.REBOOT, node))
        wish = Wish(OperationKind.REBOOT, override_floor=override_floor)
        return _instruct(change, actor, Action.REBOOT, node, wish, reason, now)


def roll_back(db: Database, actor: Actor, node_id: str, reason: str, now: float, override_floor: bool = False) -> str:
    """Back to the version before: from the passive slot, else by downloading it. Returns the operation's id.
    `override_floor`: as with `update`; of a node that is going back already it is put on the order that does that."""
    _need_for_floor(override_floor, reason)
    under_way = override_way_back(db, actor, node_id, reason, now) if override_floor else None
    if under_way is not None:
        return under_way
    if _downloads_its_way_back(db, node_id):
        return reverse_node(db, actor, node_id, reason, now, override_floor=override_floor)
    with db.write() as change:
        node = locked_node(change, node_id)
        possible(refusal_to_roll_back(node))
        choice = way_back_of(node)
        assert choice is not None, "its gate asks for one"
        possible(refusal_of_way_back(change.conn, choice.digest or ""))
        kind = OperationKind.ROLLBACK if choice.local else OperationKind.ACTIVATE
        wish = Wish(kind, choice.image_id, choice.version, choice.digest or "", override_floor=override_floor)
        return _instruct(change, actor, Action.ROLL_BACK, node, wish, reason, now)


def _downloads_its_way_back(db: Database, node_id: str) -> bool:
    with db.read() as conn:
        node = nodes.get(conn, node_id)
    choice = way_back_of(node) if node is not None else None
    return choice is not None and not choice.local


def rescue(db: Database, actor: Actor, node_id: str, reason: str, now: float) -> str:
    """Confirm the booted slot as it is, failing checks or not. Returns the operation's id."""
    need(reason, "Say why the slot is confirmed although its checks do not pass.")
    with db.write() as change:
        node = locked_node(change, node_id)
        possible(refusal(Action.RESCUE, node))
        return _instruct(change, actor, Action.RESCUE, node, Wish(OperationKind.RESCUE), reason, now)


def cancel(db: Database, actor: Actor, node_id: str, reason: str, now: float) -> str:
    """Ask the node to stop what it has not armed yet. Returns the id of the operation that is to end."""
    with db.write() as change:
        node = locked_node(change, node_id)
        possible(refusal(Action.CANCEL, node))
        operation = node.operation
        assert operation is not None, "its gate asks for one"
        withdraw(change, actor, node, operation, reason, now)
        record(change, actor, Action.CANCEL, node, reason, {"operation": operation.id}, None, now)
        return operation.id


def clear_failed_version(db: Database, actor: Actor, node_id: str, digest: str, reason: str, now: float) -> None:
    """Allow a version that failed on this node to be tried there again."""
    need(reason, "Say why the version may be tried again.")
    with db.write() as change:
        node = locked_node(change, node_id)
        possible(refusal(Action.CLEAR_FAILED_VERSION, node))
        failed = failed_here(node, digest)
        if failed is None:
            raise NotFound("failed version", digest)
        allow_again(change, actor, node, failed, reason, now)
        give_order(change, node, node.desired_operation_id)  # the node hears of it with its next order


# --- what it follows ----------------------------------------------------------------------------------------


def pin(
    db: Database,
    actor: Actor,
    node_id: str,
    *,
    channel_id: str | None = None,
    image_id: str | None = None,
    until: float | None = None,
    reason: str,
    now: float,
) -> None:
    """The node follows exactly this channel or this version until then (None: until it is unpinned)."""
    need(reason, "Say why the node is pinned: others will meet the pin and wonder.")
    if (channel_id is None) == (image_id is None):
        raise Invalid("image_id", "Pin to a channel or to a version, one of the two.")
    if until is not None and until <= now:
        raise Invalid("until", "The pin would be over already.")
    with db.write() as change:
        node = locked_node(change, node_id)
        possible(refusal(Action.PIN, node))
        if image_id is not None:
            image = target(change, image_id)
            possible(refusal_of_image(node, image))
            to = {"version": image.version}
        else:
            to = {"channel": _channel_name(change, channel_id or "")}
        nodes.change(
            change.conn,
            node.id,
            {
                "pin_channel_id": channel_id,
                "pin_image_id": image_id,
                "pin_actor": actor.name,
                "pin_reason": reason,
                "pinned_at": now,
                "pin_until": until,
            },
        )
        text = f"Pinned to {' '.join(next(iter(to.items())))}"
        after = {**to, "until": until}
        done(change, actor, Action.PIN, node, EventKind.PINNED, text, reason, pin_of(node), after, now)


def unpin(db: Database, actor: Actor, node_id: str, reason: str, now: float) -> None:
    """The node follows its own channel again."""
    with db.write() as change:
        node = locked_node(change, node_id)
        possible(refusal(Action.UNPIN, node))
        nodes.change(change.conn, node.id, NO_PIN)
        was = node.pin.to if node.pin is not None else ""
        text = f"Unpinned from {was}"
        done(change, actor, Action.UNPIN, node, EventKind.UNPINNED, text, reason, pin_of(node), None, now)


def follow(db: Database, actor: Actor, node_id: str, channel_id: str | None, reason: str, now: float) -> None:
    """The channel that the node follows when it is not pinned; None: none."""
    with db.write() as change:
        node = locked_node(change, node_id)
        possible(refusal(Action.FOLLOW, node))
        name = None if channel_id is None else _channel_name(change, channel_id)
        nodes.change(change.conn, node.id, {"channel_id": channel_id})
        text = f"Follows channel {name}" if name else "Follows no channel"
        before, after = {"channel": node.channel_name}, {"channel": name}
        done(change, actor, Action.FOLLOW, node, EventKind.FOLLOWED, text, reason, before, after, now)


NO_PIN: dict[str, Any] = {
    "pin_channel_id": None,
    "pin_image_id": None,
    "pin_actor": None,
    "pin_reason": None,
    "pinned_at": None,
    "pin_until": None,
}


def pin_of(node: Node) -> dict[str, Any] | None:
    """The pin as the audit log keeps it."""
    pin = node.pin
    if pin is None:
        return None
    return {"to": pin.to, "by": pin.actor, "reason": pin.reason, "at": pin.at, "until": pin.until}


# --- membership ---------------------------------------------------------------------------------------------


def approve(db: Database, actor: Actor, node_id: str, reason: str, now: float) -> None:
    """Admit a node that joined with a token that asks for approval."""
    with db.write() as change:
        lock_with_replaced(change, node_id)
        node = locked_node(change, node_id)
        possible(refusal(Action.APPROVE, node))
        nodes.change(change.conn, node.id, {"admission": Admission.ADMITTED.value, "admitted_at": now})
        give_order(change, node, node.desired_operation_id)
        before, after = {"admission": node.admission.value}, {"admission": Admission.ADMITTED.value}
        done(change, actor, Action.APPROVE, node, EventKind.APPROVED, "Approved", reason, before, after, now)
        if node.replaces_id is not None:
            retire_replaced(change, node.replaces_id, node.id, node.name, actor, now)
        change.touch("joining")


def retire(db: Database, actor: Actor, node_id: str, reason: str, now: float) -> None:
    """The node leaves the fleet: its key is refused from now on, what it was doing ends, its lease is free."""
    need(reason, "Say why the node is retired.")
    with db.write() as change:
        node = locked_node(change, node_id)
        possible(refusal(Action.RETIRE, node))
        leave_fleet(change, node, f"the node was retired by {actor.name}", actor.name, now)
        before, after = {"admission": node.admission.value}, {"admission": Admission.RETIRED.value}
        done(change, actor, Action.RETIRE, node, EventKind.RETIRED, "Retired", reason, before, after, now)
        change.touch("joining")


def settle_conflict(db: Database, actor: Actor, node_id: str, reason: str, now: float) -> None:
    """The operator has seen to it that one machine has this identity: both are dropped, the rightful one returns."""
    with db.write() as change:
        node = locked_node(change, node_id)
        possible(refusal(Action.SETTLE_CONFLICT, node))
        nodes.change(change.conn, node.id, {"conflict": None})
        change.touch(f"desired:{node.id}")
        text = "Identity conflict settled"
        kind = EventKind.CONFLICT_SETTLED
        done(change, actor, Action.SETTLE_CONFLICT, node, kind, text, reason, node.conflict, None, now)


# --- how it is shown ----------------------------------------------------------------------------------------


def relabel(db: Database, actor: Actor, node_id: str, labels: Mapping[str, str], reason: str, now: float) -> None:
    """These labels and no others; NotPossible where what holds the node back would not any more (group_releases)."""
    checked = check_labels(labels)
    with db.write() as change:
        fleet.lock(change.conn)  # its services may be held to floors under another name
        service_scopes.lock(change)
        node = locked_node(change, node_id)
        possible(refusal(Action.RELABEL, node))
        nodes.change(change.conn, node.id, {"labels": checked})
        kind = EventKind.RELABELLED
        before = dict(node.labels)
        done(change, actor, Action.RELABEL, node, kind, "Labels changed", reason, before, checked, now)
        cause = service_scopes.Cause(actor, f"the labels of {node.name} changed", now)
        service_scopes.labels_changed(change, node.id, before, checked, cause)
        node_stays_bound(change.conn, node.id, before, now)


def rename(db: Database, actor: Actor, node_id: str, name: str, reason: str, now: float) -> None:
    """Another display name; the id stays."""
    wanted = name.strip()
    if not wanted or len(wanted) > NAME_CHARS or not fits_index(wanted) or not wanted.isprintable():
        raise Invalid("name", f"A name has 1 to {NAME_CHARS} visible characters.")
    with db.write() as change:
        node = locked_node(change, node_id)
        possible(refusal(Action.RENAME, node))
        nodes.change(change.conn, node.id, {"name": wanted})
        text = f"Renamed from {node.name} to {wanted}"
        before, after = {"name": node.name}, {"name": wanted}
        done(change, actor, Action.RENAME, node, EventKind.RENAMED, text, reason, before, after, now)


# --- shared -------------------------------------------------------------------------------------------------


def target(change: Change, image_id: str) -> Target:
    """The image as decisions see it; NotFound."""
    image = images.get(change.conn, image_id)
    if image is None:
        raise NotFound("image", image_id)
    withdrawn = image.withdrawn_at is not None
    return Target(image.id, image.os, image.arch, image.version, image.digest, withdrawn)


def _need_for_floor(override_floor: bool, reason: str) -> None:
    if override_floor:
        need(reason, "Say why a service may fall below its floor.")


def _pinned_image(change: Change, node: Node) -> str | None:
    """The image that the node's pin leads to now."""
    pin = node.pin
    if pin is None or pin.channel_id is None:
        return None if pin is None else pin.image_id
    return channels.current(change.conn, pin.channel_id, node.os_id, node.arch)


def _channel_name(change: Change, channel_id: str) -> str:
    channel = channels.get(change.conn, channel_id)
    if channel is None:
        raise NotFound("channel", channel_id)
    return channel.name


def _instruct(change: Change, actor: Actor, action: Action, node: Node, wish: Wish, reason: str, now: float) -> str:
    before = {
        "version": node.version,
        "slot": node.booted_slot,
        "operation": node.operation.id if node.operation is not None else None,
    }
    operation = begin(change, actor, node, wish, reason, now)
    after = {
        "operation": operation.id,
        "kind": wish.kind.value,
        "version": wish.version,
        "digest": wish.digest,
        "order": [operation.order.epoch, operation.order.generation],
        "override_failed": wish.override_failed,
        "override_floor": wish.override_floor,
    }
    record(change, actor, action, node, reason, before, after, now)
    return operation.id
