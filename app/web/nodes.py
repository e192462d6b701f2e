"""The list of nodes: rows, facets and count of the view that the address names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection

from app.core.query import Field, quoted
from app.core.why import why
from app.services.saved_views import TOPIC
from app.store import node_list, saved_views
from app.store.node_list import ListedNode, Sort
from app.store.node_query import ZONE, Condition, condition, known_for
from app.store.saved_views import SavedView
from app.web.context import actor, now, read
from app.web.live import live_page
from app.web.node_view import Column, View, token, view

blueprint = Blueprint("nodes", __name__)

PAGE_ROWS = 50
_FACETS_EACH = 6
"""More would push the table off the first screen."""
_PACE_S = 1.0
_BY_TIME_S = 15.0
"""A filter by `seen:` is looked at again this often."""


@blueprint.get("/nodes")
def index() -> Response:
    """Saved views stand outside the live list: its fragment is the same for all readers."""
    shown = view()
    moment = _BY_TIME_S if shown.query.by_time else None
    topics = {"list": ("nodes",), "views": (TOPIC,)}
    return live_page("nodes/index.html", topics, lambda: _gather(shown), moment_s=moment, pace_s=_PACE_S)


def _gather(shown: View) -> Mapping[str, Any]:
    page: dict[str, Any] = {"view": shown, "columns": Column, "sorts": tuple(Sort), "saved": _saved}
    if shown.error:
        return page | {"rows": [], "facets": [], "total": 0, "newer": None, "older": None, "any_nodes": True}
    return page | read(lambda conn: _listing(conn, shown))


def _saved() -> list[SavedView]:
    """The reader's own."""
    return read(lambda conn: saved_views.of(conn, actor().id))


def _listing(conn: Connection, shown: View) -> dict[str, Any]:
    where = matching(conn, shown, now())
    rows, newer, older = _page(conn, where, shown)
    found = node_list.facets(conn, where)
    return {
        "rows": [(row, reason_of(row)) for row in rows],
        "total": found.total,
        "facets": facets_of(found),
        "newer": newer and shown.url(before=token(newer)),
        "older": older and shown.url(after=token(older)),
        "any_nodes": bool(found.total or shown.query.terms),
    }


def matching(conn: Connection, shown: View, now: float) -> Condition:
    return condition(shown.query, known_for(conn, shown.query, now))


def _page(
    conn: Connection, where: Condition, shown: View
) -> tuple[list[ListedNode], ListedNode | None, ListedNode | None]:
    """Rows, and the rows that a newer and an older page begin beside (None: there is none)."""
    if shown.before is not None:
        rows = node_list.before(conn, where, shown.order, first=shown.before, limit=PAGE_ROWS + 1)
        more = len(rows) > PAGE_ROWS
        rows = rows[-PAGE_ROWS:]
        if rows:
            return rows, rows[0] if more else None, rows[-1]
    after = shown.after
    rows = node_list.page(conn, where, shown.order, after=after, limit=PAGE_ROWS + 1)
    older = rows[PAGE_ROWS - 1] if len(rows) > PAGE_ROWS else None
    rows = rows[:PAGE_ROWS]
    return rows, rows[0] if rows and after is not None else None, older


def reason_of(row: ListedNode) -> str:
    return why(
        state=row.state,
        conflict=row.conflict,
        phase=row.phase,
        activity=row.activity,
        operation_hold=row.operation_hold,
        pinned_to=row.pinned_to,
        pin_reason=row.pin_reason,
    )


# --- facets -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Facet:
    term: str
    count: int


def facets_of(found: node_list.Facets) -> list[Facet]:
    """Terms that split what matches now; each count is what the list has when its term is added."""
    groups: list[list[tuple[str, int]]] = [
        [(f"{Field.STATE}:{state}", number) for state, number in found.states],
        [(f"{Field.VERSION}:{quoted(version)}", number) for version, number in found.versions],
        [(f"{Field.PHASE}:{phase}", number) for phase, number in found.phases],
        [(f"{Field.SLOT}:{quoted(slot)}", number) for slot, number in found.slots],
        [(f"{Field.CHANNEL}:{quoted(channel)}", number) for channel, number in found.channels],
        [(f"{Field.LABEL}:{ZONE}={quoted(zone)}", number) for zone, number in found.zones],
    ]
    return [Facet(term, number) for group in groups for term, number in group[:_FACETS_EACH]]
