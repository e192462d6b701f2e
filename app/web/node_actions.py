"""What an operator does with a node: a confirmation page for each action, shown as a dialog where scripts run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from app.core.errors import Invalid, NotFound, NotPossible
from app.core.image_match import Platform, mismatch
from app.core.labels import parse_labels
from app.core.nodes import Node
from app.core.operations import Action, refusal, refusal_to_roll_back
from app.core.services import label_of
from app.core.slots import way_back_of
from app.services import nodes as service
from app.services import services
from app.services.floor_overrides import waiting_way_back
from app.services.version_gates import refusal_of_way_back
from app.store import channels, declared, images
from app.store.images import Image
from app.web.context import actor, console, now, read
from app.web.form_pages import draw_form, submit
from app.web.forms import reason
from app.web.node_page import found, led_to
from app.web.preferences import preferences
from app.web.rollout_floors import overrides_floor

blueprint = Blueprint("node_actions", __name__)

PAGE = "nodes/action.html"

Change = Callable[[str], object]
"""Does what the form says with the node of this id."""


@dataclass(frozen=True, slots=True)
class Page:
    """How an action is asked for. `text` says what it does and what it does not."""

    title: str
    button: str
    text: str
    change: Change
    dangerous: bool = False
    needs_reason: bool = False


def _update(node_id: str) -> None:
    image_id = request.form.get("image_id", "")
    if not image_id:
        raise Invalid("image_id", "Choose the version to update to. Nothing was changed.")
    failed, floor = request.form.get("override_failed") == "yes", overrides_floor()
    why = reason(needed=failed or floor)
    service.update(console().db, actor(), node_id, image_id, why, now(), override_failed=failed, override_floor=floor)


def _pin(node_id: str) -> None:
    kind, _, id = request.form.get("to", "").partition(":")
    if kind not in ("channel", "image"):
        raise Invalid("to", "Choose a channel or a version to pin the node to. Nothing was changed.")
    target = {"channel_id": id} if kind == "channel" else {"image_id": id}
    why = reason()
    service.pin(console().db, actor(), node_id, **target, until=_until(), reason=why, now=now())


def _until() -> float | None:
    """The end of a pin: a time without a zone, as browsers send it, in the reader's."""
    text = request.form.get("until", "").strip()
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid("until", f"“{text}” is no time such as 2030-12-01T06:00. Nothing was changed.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=preferences().zone)).timestamp()


def _follow(node_id: str) -> None:
    channel_id = request.form.get("channel_id", "")
    service.follow(console().db, actor(), node_id, channel_id or None, reason(needed=False), now())


def _retire(node_id: str) -> None:
    node = read(partial(found, node_id=node_id))
    if request.form.get("confirm", "").strip() != node.name:
        raise Invalid("confirm", f"Type the node's name, {node.name}, to retire it. Nothing was changed.")
    service.retire(console().db, actor(), node_id, reason(), now())


def _clear(node_id: str) -> None:
    digest = request.form.get("digest", "")
    service.clear_failed_version(console().db, actor(), node_id, digest, reason(), now())


def _relabel(node_id: str) -> None:
    labels = parse_labels(request.form.get("labels", "").splitlines())
    service.relabel(console().db, actor(), node_id, labels, reason(needed=False), now())


def _rename(node_id: str) -> None:
    service.rename(console().db, actor(), node_id, request.form.get("name", ""), reason(needed=False), now())


def _plain(change: Callable[..., object], needs_reason: bool = False) -> Change:
    """An action that takes a reason and nothing else."""

    def run(node_id: str) -> None:
        change(console().db, actor(), node_id, reason(needed=needs_reason), now())

    return run


def _takes_down(change: Callable[..., object]) -> Change:
    """An action for which the node is away for a while."""

    def run(node_id: str) -> None:
        floor = overrides_floor()
        change(console().db, actor(), node_id, reason(needed=floor), now(), override_floor=floor)

    return run


_TAKE_DOWN = frozenset({Action.UPDATE, Action.REBOOT, Action.ROLL_BACK})

PAGES: dict[Action, Page] = {
    Action.UPDATE: Page(
        "Update {name}",
        "Update",
        "The version is written to the slot that is not running, then the node reboots into it when it is its turn,"
        " and proves itself there. If it does not, it goes back by itself.",
        _update,
    ),
    Action.REBOOT: Page(
        "Reboot {name}",
        "Reboot",
        "The node reboots into the slot that it runs now, when it is its turn. Its containers are away meanwhile.",
        _takes_down(service.reboot),
    ),
    Action.ROLL_BACK: Page(
        "Roll back {name}",
        "Roll back",
        "Pins and gates do not stop it.",
        _takes_down(service.roll_back),
        dangerous=True,
    ),
    Action.CANCEL: Page(
        "Cancel on {name}",
        "Cancel it",
        "The node is asked to stop. What is written in the passive slot stays there and is made unbootable; nothing"
        " is rebooted.",
        _plain(service.cancel),
        dangerous=True,
    ),
    Action.RESCUE: Page(
        "Rescue {name}",
        "Confirm as it is",
        "The booted slot is confirmed as it is, although its checks do not pass. On trial this ends the operation, and"
        " the way back stays for the soak time and as long as the policy keeps it; one that waits for a decision is"
        " given up.",
        _plain(service.rescue, needs_reason=True),
        dangerous=True,
        needs_reason=True,
    ),
    Action.PIN: Page(
        "Pin {name}",
        "Pin",
        "The node follows exactly this until then, whatever its channel does. Pinning alone moves nothing.",
        _pin,
        needs_reason=True,
    ),
    Action.UNPIN: Page(
        "Unpin {name}",
        "Unpin",
        "The node follows its own channel again. This alone moves nothing.",
        _plain(service.unpin),
    ),
    Action.FOLLOW: Page(
        "Channel of {name}",
        "Follow",
        "What the node follows while it is not pinned. This alone moves nothing.",
        _follow,
    ),
    Action.APPROVE: Page(
        "Approve {name}",
        "Approve",
        "The node is admitted to the fleet and may be commanded. If it replaces another node, that one is retired.",
        _plain(service.approve),
    ),
    Action.RETIRE: Page(
        "Retire {name}",
        "Retire",
        "The node leaves the fleet: its key is refused from now on, and what it was doing ends. The machine itself"
        " keeps running as it is. Only joining again, as a new node, brings it back.",
        _retire,
        dangerous=True,
        needs_reason=True,
    ),
    Action.SETTLE_CONFLICT: Page(
        "Settle the conflict of {name}",
        "It is settled",
        "Say this when only one machine has the node's key any more. Both connections are dropped, and the rightful"
        " one comes back by itself.",
        _plain(service.settle_conflict),
    ),
    Action.CLEAR_FAILED_VERSION: Page(
        "Try a failed version again on {name}",
        "Clear it",
        "The version failed on this node, so it is not tried there again. Clearing allows it; it starts nothing.",
        _clear,
        needs_reason=True,
    ),
    Action.RENAME: Page("Rename {name}", "Rename", "The name is for people; the node's id stays.", _rename),
    Action.RELABEL: Page("Labels of {name}", "Save labels", "These labels and no others.", _relabel),
}


@blueprint.get("/nodes/<node_id>/<action>")
def ask(node_id: str, action: str) -> ResponseReturnValue:
    return draw_form(PAGE, _gather(node_id, _known(action)))


@blueprint.post("/nodes/<node_id>/<action>")
def do(node_id: str, action: str) -> ResponseReturnValue:
    known = _known(action)
    change = partial(PAGES[known].change, node_id)
    return submit(PAGE, partial(_gather, node_id, known), f"/nodes/{node_id}", change)


def _known(action: str) -> Action:
    if action not in PAGES:
        raise NotFound("action", action)
    return Action(action)


def _gather(node_id: str, action: Action) -> Mapping[str, Any]:
    return read(lambda conn: _asked(conn, found(conn, node_id), action))


def _asked(conn: Connection, node: Node, action: Action) -> Mapping[str, Any]:
    waits = waiting_way_back(conn, node) if action is Action.ROLL_BACK else None
    refused = _refusal_to_go_back(conn, node) if action is Action.ROLL_BACK else refusal(action, node)
    digest = request.values.get("digest", "")
    values: dict[str, Any] = {
        "node": node,
        "action": action.value,
        "asked": PAGES[action],
        "refused": refused.text if isinstance(refused, NotPossible) and waits is None else "",
        "waits": waits,
        "way_back": way_back_of(node),
        "failed": next((each for each in node.failed if each.digest == digest and each.cleared_at is None), None),
        "channels": [],
        "images": [],
        "led_to": None,
        "below": [],
        "unknown": False,
    }
    if action in _TAKE_DOWN:
        values["unknown"] = not node.placement_known and declared.standing(conn, node.id).runs is None
        values["below"] = [each for each in services.what_if(conn, [node.id], now()) if each.below_floor]
        values["label_of"] = label_of
    if action in (Action.PIN, Action.FOLLOW):
        values["channels"] = channels.all_channels(conn)
    if action in (Action.PIN, Action.UPDATE):
        values["images"] = [Choice.of(image, node) for image in _fitting(conn, node)]
        values["led_to"] = led_to(conn, node)
    return values


def _refusal_to_go_back(conn: Connection, node: Node) -> NotPossible | None:
    choice = way_back_of(node)
    found = refusal_to_roll_back(node)
    return found or (refusal_of_way_back(conn, choice.digest or "") if choice is not None else None)


@dataclass(frozen=True, slots=True)
class Choice:
    """An image that fits the node, and what should be known of it here."""

    id: str
    version: str
    runs: bool
    failed: str
    """Why it failed on this node before; empty when it did not."""

    @staticmethod
    def of(image: Image, node: Node) -> Choice:
        failed = (
            each.reason or "failed" for each in node.failed if each.digest == image.digest and not each.cleared_at
        )
        return Choice(image.id, image.version, image.digest == node.booted_digest, next(failed, ""))


def _fitting(conn: Connection, node: Node) -> list[Image]:
    """Images for the node's OS and architecture that are not withdrawn, the newest first."""
    platform = Platform(node.os_id, node.arch)
    return [
        image
        for image in images.newest(conn, os=node.os_id)
        if image.withdrawn_at is None
        and mismatch(image.version, Platform(image.os, image.arch), node.name, platform) is None
    ]
