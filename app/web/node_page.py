"""A node's own page: slots, what it does and why it waits, checks, containers, time line, facts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from app.core.errors import NotFound
from app.core.fleet import SlotDrawing, draw_slots, state_of
from app.core.groups import effective
from app.core.nodes import Node
from app.core.operations import Action, refusal, refusal_to_roll_back
from app.core.rollouts import TERMINAL, RolloutState
from app.core.slots import way_back_of
from app.services.endings import name_of
from app.services.floor_overrides import held_way_back
from app.services.groups import groups_of_node
from app.services.version_gates import refusal_of_way_back
from app.services.waiting import waiting
from app.store import channels, declared, events, images, nodes, rollout_counts
from app.web.context import now, read
from app.web.live import live_page
from app.web.node_waiting import chain_rows

blueprint = Blueprint("node_page", __name__)

_EVENTS = 30
_UNDER_WAY = tuple(state.value for state in RolloutState if state not in TERMINAL and state is not RolloutState.DRAFT)
_MOMENT_S = 60.0
"""Windows open and deadlines run without anybody's doing."""
_NO_GATEWAY_S = 30.0
"""A gateway that has not written its heartbeat for this long is down: what it said last may be old."""


@blueprint.get("/nodes/<node_id>")
def show(node_id: str) -> Response:
    before = request.args.get("before", "")
    place = int(before) if before.isdecimal() and len(before) < 19 else None
    topics = {"node": (f"node:{node_id}", "images", "groups", "freezes")}
    gather = partial(_gather, node_id=node_id, before=place)
    return live_page("nodes/show.html", topics, lambda: read(gather), moment_s=_MOMENT_S)


def _gather(conn: Connection, node_id: str, before: int | None) -> Mapping[str, Any]:
    node = found(conn, node_id)
    history = events.recent(conn, node_id=node_id, before_id=before, limit=_EVENTS + 1)
    groups = groups_of_node(conn, node)
    related = [id for id in (node.replaces_id, node.replaced_by_id) if id]
    way_back = way_back_of(node)
    shut = refusal_of_way_back(conn, way_back.digest or "") if way_back is not None else None
    return {
        "node": node,
        "state": state_of(node.admission, node.connection, node.on_trial, node.health_state),
        "slots": large_slots(node),
        "chain": chain_rows(conn, waiting(conn, node, now())),
        "groups": groups,
        "group_notes": effective(groups).notes,
        "declared": declared.standing(conn, node_id),
        "doing": name_of(node.operation) if node.operation is not None else "",
        "newer_image": _pointed_elsewhere(conn, node),
        "way_back": way_back if shut is None else None,
        "no_way_back": shut.text if shut is not None else "",
        "containers": nodes.containers(conn, node_id),
        "rollout": rollout_counts.of_node(conn, node_id, _UNDER_WAY),
        "events": history[:_EVENTS],
        "older": history[_EVENTS - 1].id if len(history) > _EVENTS else None,
        "first_events": before is None,
        "related": {id: other.name for id in related if (other := nodes.get(conn, id)) is not None},
        "failed": [each for each in node.failed if each.cleared_at is None],
        "held_back": held_way_back(conn, node),
        "possible": {action.value: _allowed(action, node) for action in Action},
        "no_gateway": node.gateway_heartbeat_at is not None and now() - node.gateway_heartbeat_at > _NO_GATEWAY_S,
    }


def _allowed(action: Action, node: Node) -> bool:
    return (refusal_to_roll_back(node) if action is Action.ROLL_BACK else refusal(action, node)) is None


def found(conn: Connection, node_id: str) -> Node:
    """NotFound when there is none."""
    node = nodes.get(conn, node_id)
    if node is None:
        raise NotFound("node", node_id)
    return node


def large_slots(node: Node) -> list[tuple[SlotDrawing, Any, str]]:
    """Each slot's drawing, the slot itself, and one line of what it is."""
    drawings = draw_slots(node.slots, node.phase, node.on_trial)
    return [(drawing, slot, _tag(drawing)) for drawing, slot in zip(drawings, node.slots, strict=True)]


def _tag(drawing: SlotDrawing) -> str:
    names = {
        "booted": "booted",
        "trial": "booted, on trial",
        "staged": "staged, not armed",
        "kept": "passive",
        "bad": "bad",
        "empty": "empty",
    }
    words = [names[mark] for mark in drawing.marks if mark in names]
    if "next" in drawing.marks and "booted" not in drawing.marks and "trial" not in drawing.marks:
        words.append("armed: boots next")
    return ", ".join(words)


def led_to(conn: Connection, node: Node) -> images.Image | None:
    """The image that the node's pin or channel leads to now."""
    if node.pin is not None and node.pin.image_id is not None:
        return images.get(conn, node.pin.image_id)
    channel = (node.pin.channel_id if node.pin is not None else None) or node.channel_id
    image_id = channels.current(conn, channel, node.os_id, node.arch) if channel else None
    return images.get(conn, image_id) if image_id else None


def _pointed_elsewhere(conn: Connection, node: Node) -> images.Image | None:
    image = led_to(conn, node)
    return image if image is not None and image.digest != node.booted_digest else None
