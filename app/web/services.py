"""Services: floors and replicas, who said what of them, what would happen, and what has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from app.core.errors import Invalid
from app.core.query import BadQuery, parse, quoted
from app.core.services import label_of
from app.core.snapshot import ServiceKey
from app.services import services
from app.services.services import Listed, WhatIf
from app.store import node_list
from app.store.node_query import condition, known_for
from app.web.context import actor, console, now, read
from app.web.form_pages import draw_form, submit
from app.web.forms import reason
from app.web.live import live_page

blueprint = Blueprint("services", __name__)

_ROWS = 200
_LINE_ROWS = 50
_PLACES = 50
"""Nodes of a service on its page, those without a healthy replica first; the list of nodes has them all."""
_PACE_S = 2.0
_WHAT_IF_NODES = 5_000
"""More nodes at once would be the fleet."""


def path_of(key: ServiceKey) -> str:
    return "/service?" + urlencode({"scope": key[0], "name": key[1]})


@blueprint.get("/services")
def index() -> Response:
    topics = {"services": ("services",)}
    return live_page("services/index.html", topics, lambda: read(_listing), pace_s=_PACE_S)


def _listing(conn: Connection) -> Mapping[str, Any]:
    wanted = request.args.get("q", "").strip()
    found = [each for each in services.listing(conn, now()) if wanted.lower() in label_of(each.key).lower()]
    page = request.args.get("page", "1")
    place = max(1, int(page)) if page.isdecimal() and len(page) < 6 else 1
    shown = found[(place - 1) * _ROWS : place * _ROWS]

    def at(number: int) -> str:
        return "/services?" + urlencode({"q": wanted, "page": number})

    return {
        "q": wanted,
        "rows": shown,
        "count": len(found),
        "below": sum(1 for each in found if each.headroom is not None and each.headroom < 0),
        "tight": sum(1 for each in found if each.headroom == 0),
        "free": sum(1 for each in found if each.headroom is not None and each.headroom > 0),
        "floorless": sum(1 for each in found if each.headroom is None),
        "newer": at(place - 1) if place > 1 else None,
        "older": at(place + 1) if len(found) > place * _ROWS else None,
        "path_of": path_of,
        "label_of": label_of,
    }


@blueprint.get("/service")
def show() -> Response:
    key = _key()
    topics = {"standing": ("services",), "line": ("services",), "placement": ("services",)}
    return live_page("services/show.html", topics, lambda: read(partial(_show, key=key)), pace_s=_PACE_S)


def _key() -> ServiceKey:
    return request.values.get("scope", ""), request.values.get("name", "")


def _show(conn: Connection, key: ServiceKey) -> Mapping[str, Any]:
    before = request.args.get("before", "")
    before_id = int(before) if before.isdecimal() and len(before) < 16 else None
    found = services.one(conn, key, now())
    line = services.time_line(conn, key, before_id=before_id, limit=_LINE_ROWS + 1)
    own = path_of(key)
    return {
        "service": found,
        "name": label_of(key),
        "own": own,
        "source": _source(found),
        "nodes": sorted(services.where(conn, key), key=lambda place: place[2] > 0),
        "places": _PLACES,
        "line": line[:_LINE_ROWS],
        "below": services.below_floor(conn, found, line),
        "older": f"{own}&before={line[_LINE_ROWS - 1].id}" if len(line) > _LINE_ROWS else None,
        "newer": own if before_id is not None else None,
        "what_if": "/services/what-if?" + urlencode({"q": f"service:{quoted(key[1])}"}),
    }


def _source(found: Listed) -> str:
    """Where the number of expected replicas comes from."""
    if found.word is not None and found.word.said.expected is not None:
        return "an operator said so"
    if found.labelled is not None:
        return "label of its containers"
    return "the most seen healthy in seven days"


# --- what operators say -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Verb:
    title: str
    text: str
    button: str
    field: str = ""
    """The number that is asked for; empty: none."""
    label: str = ""


_VERBS = {
    "floor": _Verb(
        "Set the floor",
        "Never fewer healthy replicas than this by our own actions. Unless you say more, it is one less than expected.",
        "Set the floor",
        "floor",
        "Fewest healthy replicas",
    ),
    "expected": _Verb(
        "Set the expected replicas",
        "So many replicas are expected, whatever labels say and was seen. It also lowers what a running rollout froze.",
        "Set it",
        "expected",
        "Expected replicas",
    ),
    "allow": _Verb(
        "Allow the single replica to move",
        "It is the only replica: while its node reboots, the service is down. Allowed, its node moves anyway.",
        "Allow it",
    ),
    "forbid": _Verb(
        "Take the allowance back", "Its node waits from now on until there is a second replica.", "Take it back"
    ),
    "clear": _Verb(
        "Clear what was said", "Labels and what was seen decide again: floor, expected replicas, allowance.", "Clear it"
    ),
}


@blueprint.get("/service/<verb>")
def say_form(verb: str) -> ResponseReturnValue:
    return draw_form("services/say.html", read(partial(_saying, verb=verb)))


@blueprint.post("/service/<verb>")
def say(verb: str) -> ResponseReturnValue:
    key = _key()
    return submit("services/say.html", lambda: read(partial(_saying, verb=verb)), path_of(key), _change(verb, key))


def _saying(conn: Connection, verb: str) -> Mapping[str, Any]:
    if verb not in _VERBS:
        raise Invalid("verb", "There is no such change of a service.")
    key = _key()
    return {
        "service": services.one(conn, key, now()),
        "name": label_of(key),
        "verb": _VERBS[verb],
        "own": path_of(key),
        "action": f"/service/{verb}",
    }


def _change(verb: str, key: ServiceKey) -> Callable[[], None]:
    db, who = console().db, actor()

    def change() -> None:
        match verb:
            case "floor":
                services.set_floor(db, who, key, _number("floor"), reason(), now())
            case "expected":
                services.set_expected(db, who, key, _number("expected"), reason(), now())
            case "allow" | "forbid":
                services.allow_single(db, who, key, verb == "allow", reason(), now())
            case "clear":
                services.clear(db, who, key, reason(), now())
            case _:
                raise Invalid("verb", "There is no such change of a service.")

    return change


def _number(field: str) -> int:
    text = request.form.get(field, "").strip()
    if not text.isdecimal() or len(text) > 9:
        raise Invalid(field, f"“{text}” is no number of replicas.")
    return int(text)


# --- what if ------------------------------------------------------------------------------------------------


@blueprint.get("/services/what-if")
def what_if() -> ResponseReturnValue:
    return draw_form("services/what_if.html", read(_what_if))


def _what_if(conn: Connection) -> Mapping[str, Any]:
    """The services touched when the nodes of a filter go away."""
    wanted = request.args.get("q", "").strip()
    problem = ""
    ids: list[str] = []
    rows: list[WhatIf] = []
    if wanted:
        try:
            query = parse(wanted)
            ids = node_list.ids(conn, condition(query, known_for(conn, query, now())), _WHAT_IF_NODES)
            rows = services.what_if(conn, ids, now())
        except BadQuery as error:
            problem = error.text
    return {
        "q": wanted,
        "wrong": problem,
        "nodes": len(ids),
        "rows": rows,
        "below": sum(1 for row in rows if row.below_floor),
        "path_of": path_of,
        "label_of": label_of,
    }
