"""Everything that happened, newest first: filtered by node and kind, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from app.core.events import EventKind
from app.store import events, nodes
from app.web.context import read
from app.web.live import live_page

blueprint = Blueprint("events", __name__)

PAGE_EVENTS = 50
NODE_KINDS = frozenset(
    {"boot", "boot-unknown", "staged", "armed", "disarmed", "confirmed", "soaked"}
    | {"check-failed", "going-back", "fell-back", "rescued"}
)
KINDS = sorted({*EventKind, *NODE_KINDS})
"""What can be chosen: the server's own kinds and the usual ones of nodes; the address takes any."""


@blueprint.get("/events")
def index() -> Response:
    return live_page("events/index.html", {"list": ("events",)}, lambda: read(_gather), pace_s=1.0)


def _gather(conn: Connection) -> Mapping[str, Any]:
    name, kind = request.args.get("node", "").strip(), request.args.get("kind", "").strip()
    before = request.args.get("before", "")
    place = int(before) if before.isdecimal() and len(before) < 19 else None
    node_id = nodes.find(conn, name) if name else None
    found = (
        []
        if name and node_id is None
        else events.recent(conn, node_id=node_id, kinds=[kind] if kind else (), before_id=place, limit=PAGE_EVENTS + 1)
    )
    older = found[PAGE_EVENTS - 1].id if len(found) > PAGE_EVENTS else None
    keep = {"node": name, "kind": kind}
    return {
        "events": found[:PAGE_EVENTS],
        "node": name,
        "unknown_node": bool(name) and node_id is None,
        "kind": kind,
        "kinds": KINDS,
        "newer": f"/events?{_query(keep)}" if place is not None else None,
        "older": f"/events?{_query(keep | {'before': str(older)})}" if older else None,
    }


def _query(values: Mapping[str, str]) -> str:
    return urlencode({name: value for name, value in values.items() if value})
