"""Images and channels: what each channel points at, what runs where, uploads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, redirect, request
from flask.typing import ResponseReturnValue

from app.core.errors import Invalid, NotFound, TooLarge, TwinrootError
from app.core.image_identity import MAX_IMAGE_BYTES
from app.services import image_trust, images
from app.services.blobs import no_space_said
from app.services.images import Description, signature_of
from app.services.withdrawal import nodes_still_on
from app.store import bad_versions
from app.store import channels as channel_store
from app.store import images as store
from app.web.context import actor, console, now
from app.web.form_pages import draw_form, submit
from app.web.forms import reason
from app.web.live import live_page

blueprint = Blueprint("images", __name__)

_SPARE_BYTES = 1024 * 1024
"""Names, notes and separators beside the image in one request."""
_REASON_CHARS = 500
_STILL_ON = 100
"""Nodes on a withdrawn image that its page lists; the others are behind the number."""


@blueprint.url_value_preprocessor
def _large_uploads(endpoint: str | None, _values: dict[str, Any] | None) -> None:
    """Before anything reads the request: these two views take more than forms do."""
    if endpoint in ("images.upload", "images.receive"):
        request.max_content_length = MAX_IMAGE_BYTES + _SPARE_BYTES


@blueprint.get("/images")
def index() -> Response:
    topics = {"pointers": ("images",), "bad_versions": ("images",), "image_list": ("images", "fleet")}
    return live_page("images/index.html", topics, _overview)


def _overview() -> Mapping[str, Any]:
    with console().db.read() as conn:
        pointers = channel_store.pointers(conn)
        return {
            "channels": channel_store.all_channels(conn),
            "platforms": store.platforms(conn),
            "pointers": {(move.channel_id, move.os, move.arch): move for move in pointers},
            "pointed": _by_image(pointers),
            "images": store.newest(conn),
            "adoption": store.adoption(conn),
            "bad": sorted(bad_versions.not_cleared(conn).values(), key=lambda bad: -bad.at),
        }


def _by_image(moves: list[channel_store.Move]) -> dict[str, list[channel_store.Move]]:
    found: dict[str, list[channel_store.Move]] = {}
    for move in moves:
        found.setdefault(move.image_id, []).append(move)
    return found


@blueprint.get("/images/<image_id>")
def show(image_id: str) -> Response:
    topics = {"facts": ("images", "fleet"), "still_on": ("images", "fleet"), "history": ("images",)}
    return live_page("images/show.html", topics, lambda: _detail(image_id))


def _detail(image_id: str) -> Mapping[str, Any]:
    keys = image_trust.known_keys(console().settings)
    with console().db.read() as conn:
        image = store.get(conn, image_id)
        if image is None:
            raise NotFound("image", image_id)
        history = channel_store.history(conn, image_id=image_id)
        return {
            "image": image,
            "still_on": nodes_still_on(conn, image_id, _STILL_ON) if image.withdrawn_at else [],
            "nodes": store.adoption(conn).get(image.key, 0),
            "channels": channel_store.all_channels(conn),
            "pointing": [move for move in history if move.until is None],
            "history": history,
            "signature_state": image_trust.signature_state(image.name, image.digest, image.size, image.signed, keys),
        }


@blueprint.get("/images/upload")
def upload_form() -> ResponseReturnValue:
    return draw_form("images/upload.html", {})


@blueprint.post("/images/upload")
def upload() -> ResponseReturnValue:
    """From the browser's form. The file is spooled to disk by the form parser, never held in memory."""
    made: list[str] = []

    def store_it() -> None:
        file = request.files.get("image")
        if file is None or not file.filename:
            raise Invalid("image", "Choose the image file.")
        made.append(
            images.store_upload(
                console().db,
                console().settings,
                actor(),
                file.stream,
                _description(request.form),
                digest=request.form.get("digest", "").strip(),
                reason=_reason(request.form),
                now=now(),
            )
        )

    with no_space_said():
        response = submit("images/upload.html", dict, "/images", store_it)
    return redirect(f"/images/{made[0]}", 303) if made else response


@blueprint.put("/images/content")
def receive() -> Response:
    """From the command line: the raw body is the image, the query describes it. Answers with the id, as text."""
    try:
        if (request.content_length or 0) > MAX_IMAGE_BYTES:
            raise TooLarge(f"An image has at most {MAX_IMAGE_BYTES} bytes; this one is larger. Nothing was stored.")
        image_id = images.store_upload(
            console().db,
            console().settings,
            actor(),
            request.stream,
            _description(request.args),
            length=request.content_length,
            digest=request.args.get("digest", ""),
            reason=_reason(request.args),
            now=now(),
        )
    except TwinrootError as error:
        return Response(error.text + "\n", error.http_status, mimetype="text/plain")
    return Response(image_id + "\n", 201, mimetype="text/plain")


@blueprint.get("/images/register")
def register_form() -> ResponseReturnValue:
    return draw_form("images/register.html", {})


@blueprint.post("/images/register")
def register() -> ResponseReturnValue:
    made: list[str] = []

    def register_it() -> None:
        form = request.form
        made.append(
            images.register(
                console().db,
                console().settings,
                actor(),
                _description(form),
                digest=form.get("digest", ""),
                size=_size(form.get("size", "")),
                url=form.get("url", ""),
                reason=_reason(form),
                now=now(),
            )
        )

    response = submit("images/register.html", dict, "/images", register_it)
    return redirect(f"/images/{made[0]}", 303) if made else response


@blueprint.get("/images/<image_id>/sign")
def sign_form(image_id: str) -> ResponseReturnValue:
    return draw_form("images/sign.html", _detail(image_id))


@blueprint.post("/images/<image_id>/sign")
def sign(image_id: str) -> ResponseReturnValue:
    def attach() -> None:
        signature = signature_of(request.form.get("signature", ""))
        if signature is None:
            raise Invalid("signature", "Paste the text of the signature file.")
        images.attach_signature(
            console().db, console().settings, actor(), image_id, signature, _reason(request.form), now()
        )

    return submit("images/sign.html", lambda: _detail(image_id), f"/images/{image_id}", attach)


@blueprint.get("/images/<image_id>/edges")
def edges_form(image_id: str) -> ResponseReturnValue:
    return draw_form("images/edges.html", _detail(image_id))


@blueprint.post("/images/<image_id>/edges")
def edges(image_id: str) -> ResponseReturnValue:
    def change() -> None:
        images.set_edges(
            console().db,
            actor(),
            image_id,
            must_pass=_versions("must_pass"),
            not_from=_versions("not_from"),
            reason=reason(),
            now=now(),
        )

    return submit("images/edges.html", lambda: _detail(image_id), f"/images/{image_id}", change)


def _versions(field: str) -> list[str]:
    """One a line, or with commas between them; a version has no space."""
    return request.form.get(field, "").replace(",", " ").split()


def _description(values: Mapping[str, str]) -> Description:
    return Description(
        os=values.get("os", ""),
        arch=values.get("arch", ""),
        version=values.get("version", ""),
        notes=values.get("notes", ""),
        signature=signature_of(values.get("signature", "")),
    )


def _size(text: str) -> int:
    digits = text.replace(",", "").replace(" ", "")
    if not digits.isdecimal():
        raise Invalid("size", f"“{text}” is no number of bytes.")
    return int(digits)


def _reason(values: Mapping[str, str]) -> str:
    """Adding an image changes no node, so a reason is welcome and not demanded."""
    return " ".join(values.get("reason", "").split())[:_REASON_CHARS]
