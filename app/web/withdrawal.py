"""Withdrawing an image and taking that back; versions that are bad fleet-wide."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from app.core.errors import Invalid, NotFound
from app.services import bad_versions, withdrawal
from app.store import bad_versions as bad_store
from app.store import images
from app.web.context import actor, console, now, read
from app.web.form_pages import draw_form, submit
from app.web.forms import reason

blueprint = Blueprint("withdrawal", __name__)

_NODES = 100
"""Of those that still run it; the others are a link away."""


@blueprint.get("/images/<image_id>/withdraw")
def withdraw_form(image_id: str) -> ResponseReturnValue:
    return draw_form("images/withdraw.html", read(partial(_image, image_id=image_id)))


@blueprint.post("/images/<image_id>/withdraw")
def withdraw(image_id: str) -> ResponseReturnValue:
    def apply() -> None:
        image = read(partial(_image, image_id=image_id))["image"]
        if request.form.get("typed_version", "").strip() != image.version:
            raise Invalid("typed_version", f"Type {image.version} to withdraw it. Nothing was changed.")
        withdrawal.withdraw(console().db, actor(), image_id, reason(), now())

    return submit("images/withdraw.html", lambda: read(partial(_image, image_id=image_id)), _page(image_id), apply)


@blueprint.get("/images/<image_id>/restore")
def restore_form(image_id: str) -> ResponseReturnValue:
    return draw_form("images/restore.html", read(partial(_image, image_id=image_id)))


@blueprint.post("/images/<image_id>/restore")
def restore(image_id: str) -> ResponseReturnValue:
    def apply() -> None:
        withdrawal.restore(console().db, actor(), image_id, reason(), now())

    return submit("images/restore.html", lambda: read(partial(_image, image_id=image_id)), _page(image_id), apply)


def _page(image_id: str) -> str:
    return f"/images/{image_id}"


def _image(conn: Connection, image_id: str) -> Mapping[str, Any]:
    image = images.get(conn, image_id)
    if image is None:
        raise NotFound("image", image_id)
    return {
        "image": image,
        "nodes": images.adoption(conn).get(image.key, 0),
        "steps": withdrawal.steps_back(conn, image.id),
        "still_on": withdrawal.nodes_still_on(conn, image_id, _NODES),
    }


@blueprint.get("/bad-versions/clear")
def clear_form() -> ResponseReturnValue:
    return draw_form("images/clear.html", read(_bad))


@blueprint.post("/bad-versions/clear")
def clear() -> ResponseReturnValue:
    def apply() -> None:
        bad_versions.clear(console().db, actor(), request.form.get("digest", ""), reason(), now())

    return submit("images/clear.html", lambda: read(_bad), "/images", apply)


def _bad(conn: Connection) -> Mapping[str, Any]:
    digest = request.values.get("digest", "")
    found = bad_store.get(conn, digest)
    if found is None:
        raise NotFound("bad version", digest)
    return {"bad": found}
