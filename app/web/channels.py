"""Channels: history, promotion, new ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from app.core.errors import Invalid, NotFound
from app.services import channels
from app.store import channels as store
from app.store import images
from app.web.context import actor, console, now
from app.web.form_pages import draw_form, submit
from app.web.forms import reason
from app.web.live import live_page

blueprint = Blueprint("channels", __name__)


@blueprint.get("/channels/<channel_id>")
def show(channel_id: str) -> Response:
    topics = {"pointers": ("images",), "history": ("images",)}
    return live_page("channels/show.html", topics, lambda: _history(channel_id))


def _history(channel_id: str) -> Mapping[str, Any]:
    with console().db.read() as conn:
        channel = store.get(conn, channel_id)
        if channel is None:
            raise NotFound("channel", channel_id)
        history = store.history(conn, channel_id=channel_id)
        pointing = [move for move in store.pointers(conn) if move.channel_id == channel_id]
    return {"channel": channel, "history": history, "pointing": pointing}


@blueprint.get("/channels/new")
def new_form() -> ResponseReturnValue:
    return draw_form("channels/new.html", {})


@blueprint.post("/channels/new")
def new() -> ResponseReturnValue:
    def create() -> None:
        channels.create(console().db, actor(), request.form.get("name", ""), reason(), now())

    return submit("channels/new.html", dict, "/images", create)


@blueprint.get("/channels/<channel_id>/promote")
def promote_form(channel_id: str) -> ResponseReturnValue:
    return draw_form("channels/promote.html", _choice(channel_id))


@blueprint.post("/channels/<channel_id>/promote")
def promote(channel_id: str) -> ResponseReturnValue:
    def move() -> None:
        image_id = request.form.get("image", "")
        if not image_id:
            raise Invalid("image", "Choose the image that the channel shall point at.")
        channels.promote(
            console().db,
            actor(),
            channel_id,
            image_id,
            seen_image_id=request.form.get("seen") or None,
            reason=reason(),
            now=now(),
        )

    return submit("channels/promote.html", lambda: _choice(channel_id), f"/channels/{channel_id}", move)


def _choice(channel_id: str) -> Mapping[str, Any]:
    """The images to choose from, of one OS and architecture, and what the channel points at there now."""
    wanted = request.args.get("image", "") or request.form.get("image", "")
    with console().db.read() as conn:
        channel = store.get(conn, channel_id)
        if channel is None:
            raise NotFound("channel", channel_id)
        chosen = images.get(conn, wanted) if wanted else None
        os = chosen.os if chosen else request.args.get("os", "")
        arch = chosen.arch if chosen else request.args.get("arch", "")
        seen = store.current(conn, channel_id, os, arch)
        current = images.get(conn, seen) if seen else None
        fitting = [image for image in images.newest(conn, os=os) if image.arch == arch and not image.withdrawn_at]
        followers = store.followers(conn, channel_id)
    return {
        "channel": channel,
        "os": os,
        "arch": arch,
        "current": current,
        "images": fitting,
        "chosen": wanted,
        "followers": followers,
    }
