"""Composing a rollout: first which nodes, then where to and how. It drafts; the plan comes before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, redirect, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from app.core.errors import Invalid, NotFound
from app.core.group_policy import GroupPolicy, OnFailure
from app.core.groups import Group
from app.core.policy_json import changed_fields
from app.core.policy_text import FIELDS, field_texts, read_changes
from app.core.query import parse
from app.core.rollouts import RolloutKind
from app.core.versions import in_order
from app.services import rollouts as service
from app.services.rollout_spec import MOST_CHOSEN, RolloutSpec
from app.store import channels, fleet, groups, images, node_list
from app.store import rollouts as store
from app.store.node_query import condition, known_for
from app.web.context import actor, console, now, read
from app.web.form_pages import draw_form, submit
from app.web.forms import reason
from app.web.rollout_words import MISSING, group_lines, missing_words

blueprint = Blueprint("rollout_compose", __name__)

PAGE = "rollouts/new.html"
_ALLOWED = "yes"


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes that the address or the form names: a group, or those that match a filter now."""

    group: Group | None = None
    q: str = ""
    ids: tuple[str, ...] = ()
    """Those that match `q`."""

    @property
    def address(self) -> str:
        return "/rollouts/new?" + urlencode({"group": self.group.name} if self.group else {"q": self.q})


@blueprint.get("/rollouts/new")
def form() -> ResponseReturnValue:
    return draw_form(PAGE, read(_gather))


@blueprint.post("/rollouts/new")
def draft() -> ResponseReturnValue:
    made: list[str] = []

    def create() -> None:
        spec = read(_spec)
        made.append(service.draft(console().db, actor(), spec, now()))

    response = submit(PAGE, partial(read, _gather), "/rollouts", create)
    if not made:
        return response
    rollout = read(lambda conn: store.get(conn, made[0]))
    return redirect(f"/rollouts/{rollout.number}" if rollout else "/rollouts", 303)


def _gather(conn: Connection) -> Mapping[str, Any]:
    chosen, wrong = _nodes_or_error(conn)
    policy = _policy_of(conn, chosen)
    return {
        "chosen": chosen,
        "wrong": wrong,
        "q": request.values.get("q", ""),
        "size": groups.members(conn, chosen.group.selector) if chosen.group else len(chosen.ids),
        "groups": [(group, groups.members(conn, group.selector)) for group in groups.all_groups(conn)],
        "targets": _targets(conn),
        "target": request.values.get("target", "") or _linked_target(conn) or _usual_target(conn, chosen),
        "kind": request.values.get("kind", RolloutKind.UPDATE.value),
        "usual": field_texts(policy),
        "groups_own": [(MISSING, missing_words(policy)), *group_lines(policy)],
        "on_failure": list(OnFailure),
    }


def _nodes_or_error(conn: Connection) -> tuple[Nodes, str]:
    """A filter that cannot be read, or fits no node, is said where it was typed."""
    try:
        return _nodes(conn), ""
    except Invalid as error:
        return Nodes(), error.text


def _nodes(conn: Connection) -> Nodes:
    name, q = request.values.get("group", ""), " ".join(request.values.get("q", "").split())
    if name:
        group = groups.by_name(conn, name) or groups.get(conn, name)
        if group is None:
            raise NotFound("group", name)
        return Nodes(group)
    if not q:
        return Nodes()
    query = parse(q)
    ids = node_list.ids(conn, condition(query, known_for(conn, query, now())), MOST_CHOSEN + 1)
    if not ids:
        raise Invalid("q", "No node fits this filter.")
    if len(ids) > MOST_CHOSEN:
        raise Invalid("q", f"More than {MOST_CHOSEN:,} nodes fit this filter. Make a group of them.")
    return Nodes(q=q, ids=tuple(ids))


def _policy_of(conn: Connection, chosen: Nodes) -> GroupPolicy:
    return chosen.group.policy if chosen.group else GroupPolicy(timing=fleet.policy(conn))


@dataclass(frozen=True, slots=True)
class Target:
    value: str
    """As the form sends it."""
    words: str


def _targets(conn: Connection) -> dict[str, list[Target]]:
    """Heading → what can be chosen under it: channels with what they point at, versions with the newest first."""
    points: dict[str, list[str]] = {}
    for move in channels.pointers(conn):
        points.setdefault(move.channel_id, []).append(move.version)
    versions: dict[str, list[str]] = {}
    for image in images.newest(conn):
        if image.withdrawn_at is None:
            versions.setdefault(image.version, []).append(f"{image.os} {image.arch}")
    return {
        "Channel": [
            Target(f"channel:{channel.id}", f"{channel.name} ({', '.join(in_order(set(points[channel.id])))})")
            for channel in channels.all_channels(conn)
            if channel.id in points
        ],
        "Version": [
            Target(f"version:{version}", f"{version} ({', '.join(sorted(versions[version]))})")
            for version in reversed(in_order(set(versions)))
        ],
    }


def _linked_target(conn: Connection) -> str:
    """Where to, as links of other pages name it: an image stands for all of its version."""
    if (image := images.get(conn, request.args.get("image", ""))) is not None:
        return f"version:{image.version}"
    named = ((kind, request.args.get(kind, "")) for kind in ("version", "channel"))
    return next((f"{kind}:{what}" for kind, what in named if what), "")


def _usual_target(conn: Connection, chosen: Nodes) -> str:
    """The channel that the group follows, unless all its nodes run what that points at: then a person has to say."""
    if chosen.group is None or chosen.group.channel_id is None:
        return ""
    heads = {move.version for move in channels.pointers(conn) if move.channel_id == chosen.group.channel_id}
    there = groups.versions(conn, chosen.group.selector) <= heads
    return "" if there else f"channel:{chosen.group.channel_id}"


def _spec(conn: Connection) -> RolloutSpec:
    """What the form says; Invalid names the field."""
    chosen = _nodes(conn)
    if chosen.group is None and not chosen.ids:
        raise Invalid("q", "Choose a group, or say which nodes. Nothing was drafted.")
    kind = RolloutKind.REBOOT if request.form.get("kind") == RolloutKind.REBOOT else RolloutKind.UPDATE
    where, _, what = request.form.get("target", "").partition(":")
    if kind is RolloutKind.UPDATE and (where not in ("channel", "version") or not what):
        raise Invalid("target", "Choose where to: a channel or a version. Nothing was drafted.")
    update = kind is RolloutKind.UPDATE
    return RolloutSpec(
        kind=kind,
        group_id=chosen.group.id if chosen.group else None,
        node_ids=chosen.ids,
        channel_id=what if update and where == "channel" else None,
        version=what if update and where == "version" else "",
        overrides=_overrides(_policy_of(conn, chosen)),
        allow_downgrade=request.form.get("allow_downgrade") == _ALLOWED,
        break_glass=request.form.get("break_glass") == _ALLOWED,
        reason=reason(),
    )


def _overrides(usual: GroupPolicy) -> Mapping[str, Any]:
    """What was typed and is not as usual; what no rollout has of its own is refused with the others' errors."""
    texts = {name: request.form[name] for name in FIELDS if request.form.get(name, "").strip()}
    try:
        return changed_fields(usual, read_changes(texts))
    except Invalid as error:
        parts = error.field.removeprefix("timing.").split(".")
        raise Invalid(parts[0], error.text) from None
