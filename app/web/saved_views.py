"""Saved views: name the list as it is, take the name away again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from app.services import saved_views
from app.web.context import actor, console, now
from app.web.form_pages import draw_form, submit
from app.web.forms import once
from app.web.node_view import View, view, view_of

blueprint = Blueprint("saved_views", __name__)


@blueprint.get("/nodes/views/new")
def new_form() -> ResponseReturnValue:
    return draw_form("nodes/save_view.html", _shown(view()))


@blueprint.post("/nodes/views/new")
def new() -> ResponseReturnValue:
    """The form carries the address that the page was opened with; only what a view knows is kept of it."""
    shown = view_of(request.form.get("address", ""))

    def save() -> None:
        saved_views.save(console().db, actor(), request.form.get("name", ""), shown.address, now())

    return submit("nodes/save_view.html", lambda: _shown(shown), shown.url(), save)


def _shown(shown: View) -> Mapping[str, Any]:
    return {"view": shown}


@blueprint.post("/nodes/views/<view_id>/remove")
def remove(view_id: str) -> ResponseReturnValue:
    """Back to the list as it is: only the name is gone."""
    shown = view_of(request.form.get("address", ""))
    return once(shown.url(), lambda: saved_views.remove(console().db, actor(), view_id, now()))
