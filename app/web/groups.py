"""Groups: which there are, what each demands of updates, when its windows open; made, changed and removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import partial
from math import isinf
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, redirect, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from app.core.errors import Invalid, NotFound
from app.core.freezes import freeze_hold
from app.core.group_policy import GroupPolicy
from app.core.groups import Group
from app.core.policy_text import FIELDS, field_texts, read_changes
from app.core.windows import is_open, next_opening, next_openings
from app.services import groups, rollout_reverse
from app.services.group_way_back import way_back_of_group
from app.services.groups import Wish
from app.store import channels, fleet, freezes
from app.store import groups as store
from app.store import rollouts as rollout_store
from app.web.context import actor, console, now, read
from app.web.form_pages import draw_form, submit
from app.web.forms import reason
from app.web.group_words import SECTIONS
from app.web.live import live_page
from app.web.preferences import preferences
from app.web.rollout_floors import overrides_floor
from app.web.rollout_words import title

blueprint = Blueprint("groups", __name__)

_ROLLOUTS = 8
_MOMENT_S = 60.0
"""Windows open and freezes end without anybody's doing."""


@dataclass(frozen=True, slots=True)
class Row:
    """A group in the list."""

    group: Group
    channel: str
    members: int
    open_now: bool
    opens_at: float | None
    frozen: bool


@dataclass(frozen=True, slots=True)
class Opening:
    """One opening of the windows, from and to, in each of the zones of the table."""

    at: float
    texts: tuple[str, ...]


@blueprint.get("/groups")
def index() -> Response:
    topics = {"groups": ("groups", "freezes", "nodes")}
    return live_page("groups/index.html", topics, lambda: read(_rows), moment_s=_MOMENT_S, pace_s=2.0)


def _rows(conn: Connection) -> Mapping[str, Any]:
    names = {channel.id: channel.name for channel in channels.all_channels(conn)}
    holding = freezes.not_over(conn, now())
    return {
        "rows": [
            Row(
                group,
                names.get(group.channel_id or "", ""),
                store.members(conn, group.selector),
                is_open(group.policy.windows, now()),
                next_opening(group.policy.windows, now()),
                freeze_hold(holding, (group.id,), now()) is not None,
            )
            for group in store.all_groups(conn)
        ]
    }


@blueprint.get("/groups/<group_id>")
def show(group_id: str) -> Response:
    topics = {
        "standing": ("groups", "freezes", "nodes"),
        "rollouts": ("rollouts",),
    }
    return live_page("groups/show.html", topics, lambda: read(partial(_show, group_id=group_id)), moment_s=_MOMENT_S)


def _show(conn: Connection, group_id: str) -> Mapping[str, Any]:
    found = groups.describe(conn, group_id, now())
    policy = found.group.policy
    zones = _zones(policy)
    return {
        "found": found,
        "group": found.group,
        "said": store.said(conn, group_id),
        "texts": field_texts(policy),
        "sections": SECTIONS,
        "hold": freeze_hold(found.freezes, (group_id,), now()),
        "zones": [name for name, _ in zones],
        "openings": [_opening(begins, ends, zones) for begins, ends in _openings(policy, open_now=found.open_now)],
        "rollouts": rollout_store.newest(conn, group_id=group_id, limit=_ROLLOUTS),
        "rollout_title": title,
    }


def _zones(policy: GroupPolicy) -> list[tuple[str, tzinfo]]:
    """The reader's zone, those of the windows, and UTC; each once."""
    zones: dict[str, tzinfo] = {f"{preferences().time_zone} (yours)": preferences().zone}
    for name in sorted({window.zone for window in policy.windows}):
        if name not in (preferences().time_zone, "UTC"):
            zones[name] = ZoneInfo(name)
    if preferences().time_zone != "UTC":
        zones["UTC"] = UTC
    return list(zones.items())


def _openings(policy: GroupPolicy, *, open_now: bool) -> list[tuple[float, float]]:
    """The stretch that is open, and the next five."""
    found = next_openings(policy.windows, now(), groups.OPENINGS + open_now)
    return found if policy.windows and not any(isinf(ends) for _, ends in found) else []


def _opening(begins: float, ends: float, zones: list[tuple[str, tzinfo]]) -> Opening:
    return Opening(begins, tuple(_stretch(begins, ends, zone) for _, zone in zones))


def _stretch(begins: float, ends: float, zone: tzinfo) -> str:
    first = datetime.fromtimestamp(begins, zone)
    last = datetime.fromtimestamp(ends, zone)
    day = "" if last.date() == first.date() else f"{last:%a} "
    return f"{first:%a %Y-%m-%d %H:%M} to {day}{last:%H:%M}"


@blueprint.get("/groups/new")
def new_form() -> ResponseReturnValue:
    return draw_form("groups/edit.html", read(_blank))


@blueprint.post("/groups/new")
def new() -> ResponseReturnValue:
    made: list[str] = []

    def create() -> None:
        made.append(groups.create(console().db, actor(), _wish(), reason(), now()))

    answer = submit("groups/edit.html", lambda: read(_blank), "/groups", create)
    return redirect(f"/groups/{made[0]}", 303) if made else answer


def _blank(conn: Connection) -> Mapping[str, Any]:
    return {
        "group": None,
        "selector": request.args.get("selector", ""),
        "channel": "",
        "texts": dict.fromkeys(FIELDS, ""),
        "defaults": field_texts(GroupPolicy(timing=fleet.policy(conn))),
        "sections": SECTIONS,
        "channels": channels.all_channels(conn),
    }


@blueprint.get("/groups/<group_id>/edit")
def edit_form(group_id: str) -> ResponseReturnValue:
    return draw_form("groups/edit.html", read(partial(_form, group_id=group_id)))


@blueprint.post("/groups/<group_id>/edit")
def edit(group_id: str) -> ResponseReturnValue:
    def change() -> None:
        groups.change(console().db, actor(), group_id, _wish(), reason(), now())

    return submit("groups/edit.html", lambda: read(partial(_form, group_id=group_id)), f"/groups/{group_id}", change)


def _form(conn: Connection, group_id: str) -> Mapping[str, Any]:
    """What an operator said stands in the fields, what they follow while they are empty beside them."""
    found = groups.describe(conn, group_id, now())
    said = store.said(conn, group_id)
    named = {*said, *said.get("timing", {})}
    whole = field_texts(found.group.policy)
    return {
        "group": found.group,
        "selector": found.group.selector.text,
        "channel": found.channel,
        "texts": {name: text if name in named else "" for name, text in whole.items()},
        "defaults": field_texts(GroupPolicy(timing=fleet.policy(conn))),
        "sections": SECTIONS,
        "channels": channels.all_channels(conn),
    }


def _wish() -> Wish:
    typed = request.form
    precedence = typed.get("precedence", "0").strip() or "0"
    if not precedence.removeprefix("-").isdecimal() or len(precedence) > 9:
        raise Invalid("precedence", f"“{precedence}” is no whole number.")
    return Wish(
        name=typed.get("name", ""),
        selector=typed.get("selector", ""),
        precedence=int(precedence),
        channel=typed.get("channel", ""),
        policy=read_changes({name: typed[name] for name in FIELDS if name in typed}),
    )


@blueprint.get("/groups/<group_id>/roll-back")
def roll_back_form(group_id: str) -> ResponseReturnValue:
    return draw_form("groups/roll_back.html", read(partial(_way_back, group_id=group_id)))


@blueprint.post("/groups/<group_id>/roll-back")
def roll_back(group_id: str) -> ResponseReturnValue:
    made: list[str] = []

    def send_back() -> None:
        db, why, floor = console().db, reason(), overrides_floor()
        made.append(rollout_reverse.reverse_group(db, actor(), group_id, why, now(), override_floor=floor))

    values = partial(read, partial(_way_back, group_id=group_id))
    answer = submit("groups/roll_back.html", values, f"/groups/{group_id}", send_back)
    rollout = read(lambda conn: rollout_store.get(conn, made[0])) if made else None
    return redirect(f"/rollouts/{rollout.number}", 303) if rollout is not None else answer


def _way_back(conn: Connection, group_id: str) -> Mapping[str, Any]:
    found = way_back_of_group(conn, group_id)
    return {"group": found.group, "way_back": found}


@blueprint.get("/groups/<group_id>/remove")
def remove_form(group_id: str) -> ResponseReturnValue:
    return draw_form("groups/remove.html", read(partial(_named, group_id=group_id)))


@blueprint.post("/groups/<group_id>/remove")
def remove(group_id: str) -> ResponseReturnValue:
    def gone() -> None:
        group = read(partial(_named, group_id=group_id))["group"]
        if request.form.get("typed_name", "").strip() != group.name:
            raise Invalid("typed_name", f"Type {group.name} to remove it. Nothing was changed.")
        groups.remove(console().db, actor(), group_id, reason(), now())

    return submit("groups/remove.html", lambda: read(partial(_named, group_id=group_id)), "/groups", gone)


def _named(conn: Connection, group_id: str) -> Mapping[str, Any]:
    group = store.get(conn, group_id)
    if group is None:
        raise NotFound("group", group_id)
    return {"group": group, "members": store.members(conn, group.selector)}
