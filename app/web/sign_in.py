"""Sign-in by one-time link, and sign-out."""

from __future__ import annotations

import structlog
from flask import Blueprint, Response, make_response, redirect, request
from flask.typing import ResponseReturnValue

from app.core.errors import Unauthenticated
from app.services.sign_in import SESSION_COOKIE, SESSION_TTL_S, sign_out, use_login_link
from app.web.context import console, now, session
from app.web.htmx import render
from app.web.security import local_path, public

blueprint = Blueprint("sign_in", __name__)

log = structlog.get_logger(__name__)

NEXT_COOKIE = "twinroot_next"
"""Where the person was when the sign-in was asked for: the link itself comes from a terminal and does not know."""
_NEXT_AGE_S = 3600


@blueprint.get("/sign-in")
@public
def show() -> Response:
    response = make_response(render("sign_in/show.html", spent=False))
    target = local_path(request.args.get("next"))
    if target:
        secure = console().settings.secure_cookies
        response.set_cookie(
            NEXT_COOKIE, target, max_age=_NEXT_AGE_S, path="/sign-in", httponly=True, samesite="Lax", secure=secure
        )
    return _private(response)


@blueprint.get("/sign-in/<token>")
@public
def use(token: str) -> Response:
    """Sign in at once: scripts open the link and nothing else. What only looks ahead does not spend it."""
    if request.method == "HEAD" or "prefetch" in request.headers.get("Sec-Purpose", ""):
        return _private(Response(status=204))
    settings = console().settings
    try:
        secret = use_login_link(console().db, token, now())
    except Unauthenticated:
        log.warning("sign-in-refused", remote=request.remote_addr)
        return _private(make_response(render("sign_in/show.html", spent=True), 401))
    target = local_path(request.args.get("next")) or local_path(request.cookies.get(NEXT_COOKIE)) or "/"
    response = make_response(redirect(target, 303))
    response.set_cookie(
        SESSION_COOKIE,
        secret,
        max_age=int(SESSION_TTL_S) * 2,  # the server decides; the cookie only has to outlive a session that slides
        httponly=True,
        samesite="Lax",
        secure=settings.secure_cookies,
    )
    response.delete_cookie(NEXT_COOKIE, path="/sign-in", httponly=True, samesite="Lax")
    return _private(response)


@blueprint.post("/sign-out")
def leave() -> ResponseReturnValue:
    sign_out(console().db, session(), now())
    response = redirect("/sign-in", 303)
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="Lax")
    return response


def _private(response: Response) -> Response:
    """The link must not leave this browser: not by a cache, not by a referrer."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
