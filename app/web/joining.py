"""Joining: tokens, the command to run on a machine, who waits for approval, who was refused and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, make_response, request
from flask.typing import ResponseReturnValue

from app.core.errors import Invalid, NotFound
from app.core.labels import parse_labels
from app.services import joining, server_keys
from app.store import channels, join_tokens, joins
from app.web.context import actor, console, now
from app.web.form_pages import draw_form, submit
from app.web.htmx import render
from app.web.live import live_page, marks_of

blueprint = Blueprint("joining", __name__)

TOPICS = {"waiting": ("joining", "nodes"), "tokens": ("joining",), "attempts": ("joining",)}
LIFETIMES = (("1 hour", 3600), ("24 hours", 86_400), ("7 days", 7 * 86_400), ("30 days", 30 * 86_400))
"""How long a token may live, in seconds, with its words."""
_STALE_S = 60.0
"""A token expires without any change that would say so."""


@blueprint.get("/joining")
def index() -> Response:
    return live_page("joining/index.html", TOPICS, _lists, moment_s=_STALE_S)


def _lists() -> Mapping[str, Any]:
    with console().db.read() as conn:
        return {
            "tokens": [(token, token.state(now())) for token in join_tokens.newest(conn)],
            "attempts": joins.attempts(conn),
            "waiting": joins.waiting(conn),
            "joined_any": joins.any_node(conn),
        }


@blueprint.get("/joining/new")
def new_form() -> ResponseReturnValue:
    return draw_form("joining/new.html", _choices())


def _choices() -> Mapping[str, Any]:
    with console().db.read() as conn:
        return {"channels": channels.all_channels(conn), "lifetimes": LIFETIMES}


@blueprint.post("/joining/new")
def new() -> ResponseReturnValue:
    """The answer is the page with the command: the token is in no other answer, not even of the same form again."""
    made: list[tuple[str, str]] = []

    def create() -> None:
        form = request.form
        made.append(
            joining.create_token(
                console().db,
                actor(),
                note=form.get("note", ""),
                max_uses=_number(form.get("max_uses", "1")),
                expires_at=now() + _lifetime_s(form.get("lifetime", "86400")),
                networks=_words(form.get("networks", "")),
                labels=parse_labels(_words(form.get("labels", ""))),
                admit=form.get("admit") == "at-once",
                channel_id=form.get("channel") or None,
                reason=form.get("note", ""),
                now=now(),
            )
        )

    response = submit("joining/new.html", _choices, "/joining", create)
    return _shown_once(*made[0]) if made else response


def _shown_once(token_id: str, token: str) -> Response:
    settings = console().settings
    key = server_keys.current_key(console().db, settings, now())
    with console().db.read() as conn:
        row = join_tokens.get(conn, token_id)
        if row is None:
            raise NotFound("join token", token_id)
        attempts = joins.attempts(conn)
    text = render(
        "joining/made.html",
        token=row,
        command=joining.join_command(settings, key.fingerprint, token),
        fingerprint=key.fingerprint,
        attempts=attempts,
        live=marks_of(TOPICS, "/joining", _STALE_S),
    )
    response = make_response(text)
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/joining/<token_id>/revoke")
def revoke_form(token_id: str) -> ResponseReturnValue:
    return draw_form("joining/revoke.html", _token(token_id))


@blueprint.post("/joining/<token_id>/revoke")
def revoke(token_id: str) -> ResponseReturnValue:
    def end() -> None:
        reason = " ".join(request.form.get("reason", "").split())
        joining.revoke_token(console().db, actor(), token_id, reason, now())

    return submit("joining/revoke.html", lambda: _token(token_id), "/joining", end)


def _token(token_id: str) -> Mapping[str, Any]:
    with console().db.read() as conn:
        token = join_tokens.get(conn, token_id)
    if token is None:
        raise NotFound("join token", token_id)
    return {"token": token}


def _number(text: str) -> int:
    if not text.strip().isdecimal() or len(text.strip()) > 9:
        raise Invalid("max_uses", f"“{text}” is no number of uses.")
    return int(text)


def _lifetime_s(text: str) -> float:
    if text not in {str(seconds) for _, seconds in LIFETIMES}:
        raise Invalid("lifetime", "Choose how long the token may be used.")
    return float(text)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\n,]+", text) if word.strip()]
