"""Freezes: the banner on every page, their list, setting and lifting them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from flask import Blueprint, Flask, Response, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from app.core.errors import Invalid, NotFound
from app.services import freezes
from app.store import freezes as store
from app.store import groups
from app.web.context import actor, console, now, read
from app.web.form_pages import draw_form, submit
from app.web.forms import reason
from app.web.live import live_page, marks_of
from app.web.preferences import preferences

blueprint = Blueprint("freezes", __name__)

_BANNER = {"freeze_banner": ("freezes",)}
_BANNER_PATH = "/freezes/banner"
_MOMENT_S = 30.0
"""Freezes begin and end without anybody's doing."""


def install(app: Flask) -> None:
    """`freeze_marks()` and `freezes_now()` for the frame of every page."""
    app.jinja_env.globals.update(
        freeze_marks=lambda: marks_of(_BANNER, _BANNER_PATH, _MOMENT_S),
        freezes_now=lambda: read(_holding)["holding"],
    )


@blueprint.get(_BANNER_PATH)
def banner() -> Response:
    return live_page("freezes/banner.html", _BANNER, lambda: read(_holding), moment_s=_MOMENT_S)


def _holding(conn: Connection) -> Mapping[str, Any]:
    return {"holding": store.active(conn, now())}


@blueprint.get("/freezes")
def index() -> Response:
    return live_page("freezes/index.html", {"freezes": ("freezes",)}, lambda: read(_all), moment_s=_MOMENT_S)


def _all(conn: Connection) -> Mapping[str, Any]:
    return {"freezes": store.all_freezes(conn), "now": now()}


@blueprint.get("/freezes/new")
def new_form() -> ResponseReturnValue:
    return draw_form("freezes/new.html", read(_choices))


@blueprint.post("/freezes/new")
def new() -> ResponseReturnValue:
    def set_it() -> None:
        freezes.freeze(
            console().db,
            actor(),
            group_id=request.form.get("group") or None,
            reason=reason(),
            now=now(),
            starts_at=_moment("starts_at"),
            ends_at=_moment("ends_at"),
        )

    return submit("freezes/new.html", lambda: read(_choices), "/freezes", set_it)


def _choices(conn: Connection) -> Mapping[str, Any]:
    chosen = request.form.get("group", request.args.get("group", ""))
    return {
        "groups": groups.all_groups(conn),
        "chosen": chosen,
        "standing": freezes.standing(conn, chosen or None, now()),
        "zone": preferences().time_zone,
    }


def _moment(field: str) -> float | None:
    """A date and time as typed, in the reader's zone."""
    text = request.form.get(field, "").strip()
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid(field, f"“{text}” is no date and time such as 2027-01-31 18:00.") from error
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=preferences().zone)).timestamp()


@blueprint.get("/freezes/<freeze_id>/end")
def end_form(freeze_id: str) -> ResponseReturnValue:
    return draw_form("freezes/end.html", read(partial(_one, freeze_id=freeze_id)))


@blueprint.post("/freezes/<freeze_id>/end")
def end(freeze_id: str) -> ResponseReturnValue:
    def change_it() -> None:
        freezes.change_end(console().db, actor(), freeze_id, _moment("ends_at"), reason(), now())

    return submit("freezes/end.html", lambda: read(partial(_one, freeze_id=freeze_id)), "/freezes", change_it)


@blueprint.get("/freezes/<freeze_id>/lift")
def lift_form(freeze_id: str) -> ResponseReturnValue:
    return draw_form("freezes/lift.html", read(partial(_one, freeze_id=freeze_id)))


@blueprint.post("/freezes/<freeze_id>/lift")
def lift(freeze_id: str) -> ResponseReturnValue:
    def lift_it() -> None:
        freezes.lift(console().db, actor(), freeze_id, reason(), now())

    return submit("freezes/lift.html", lambda: read(partial(_one, freeze_id=freeze_id)), "/freezes", lift_it)


def _one(conn: Connection, freeze_id: str) -> Mapping[str, Any]:
    found = store.get(conn, freeze_id)
    if found is None:
        raise NotFound("freeze", freeze_id)
    ends_at = (
        "" if found.ends_at is None else f"{datetime.fromtimestamp(found.ends_at, preferences().zone):%Y-%m-%dT%H:%M}"
    )
    return {"freeze": found, "ends_at": ends_at, "zone": preferences().time_zone}
