"""From the error tree to pages: one place. Each says what happened, what was changed, and what to do next."""

from __future__ import annotations

import structlog
from flask import Flask, make_response, request
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, InternalServerError

from app.core.errors import TwinrootError, Unauthenticated
from app.services.sign_in import SESSION_COOKIE
from app.store.outage import is_away
from app.web.context import console, now
from app.web.htmx import htmx, render
from app.web.security import CSRF_FIELD, Stale

log = structlog.get_logger(__name__)

TITLES = {
    400: "This request cannot be read",
    401: "Sign in again",
    403: "Not allowed",
    404: "Not here",
    405: "Not this way",
    409: "Not possible now",
    413: "Too large",
    422: "Something is not right in what was sent",
    507: "No space left",
    500: "Something went wrong here",
}
_TYPED_CHARS = 100_000
"""Typed input shown again on an error page; far beyond any reason or note."""


def install(app: Flask) -> None:
    app.register_error_handler(TwinrootError, _ours)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(SQLAlchemyError, _database)
    app.register_error_handler(Exception, _unexpected)


def _ours(error: TwinrootError) -> ResponseReturnValue:
    again = isinstance(error, Unauthenticated | Stale)
    response = make_response(_page(error.http_status, error.text, error.code, keep_typed=again), error.http_status)
    if isinstance(error, Unauthenticated):
        response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="Lax")
    return _never_into_a_section(response)


def _http(error: HTTPException) -> ResponseReturnValue:
    if error.code is None or error.code < 400:
        return error  # a redirect, such as a missing slash
    text = {
        404: f"There is no page {request.path}.",
        405: f"{request.path} does not take {request.method}.",
        413: "What was sent is larger than this page takes. Nothing was changed.",
    }.get(error.code, error.description or "")
    response = make_response(_page(error.code, text, error.name.lower().replace(" ", "-")), error.code)
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        response.headers["Allow"] = ", ".join(allowed)
    return _never_into_a_section(response)


def _database(error: SQLAlchemyError) -> ResponseReturnValue:
    """Only a database that cannot be reached is an outage; a statement that is wrong is our mistake."""
    if not is_away(error):
        return _unexpected(error)
    log.warning("database is away", error=str(error))
    response = make_response(render("errors/outage.html", outage=console().outage, typed=_typed()), 503)
    response.headers["Retry-After"] = "5"
    return _never_into_a_section(response)


def _unexpected(error: Exception) -> ResponseReturnValue:
    log.error("request failed", path=request.path, method=request.method, exc_info=error)
    text = (
        "The server met an error that it does not know; its log says which."
        if request.method in ("GET", "HEAD")
        else "The server met an error that it does not know; its log says which. Changes are made whole or not at"
        " all, so look at the page before you try again."
    )
    status = InternalServerError.code
    return _never_into_a_section(make_response(_page(status, text, "error", keep_typed=True), status))


def _page(status: int, text: str, code: str, *, keep_typed: bool = False) -> str:
    title = TITLES.get(status, "This did not work")
    typed = _typed() if keep_typed else []
    return render("errors/error.html", status=status, title=title, text=text, code=code, typed=typed, now=now())


def _typed() -> list[tuple[str, str]]:
    """What a form sent, so that nobody types it twice. Never of an upload: its form is not read."""
    if request.method != "POST" or request.mimetype != "application/x-www-form-urlencoded":
        return []
    pairs = [(name, value) for name, value in request.form.items(multi=True) if name != CSRF_FIELD]
    return pairs if sum(len(value) for _, value in pairs) <= _TYPED_CHARS else []


def _never_into_a_section(response: ResponseReturnValue) -> ResponseReturnValue:
    """htmx swaps errors in too: a live section keeps its old content instead, and app.js says that it is old."""
    answer = make_response(response)
    if htmx() and request.method == "GET":
        answer.headers["HX-Reswap"] = "none"
    answer.headers["Cache-Control"] = "no-store"
    return answer
