"""/healthz (the process), /readyz (it can serve: needs the database), /metrics (Prometheus)."""

from __future__ import annotations

from flask import Blueprint, Response, make_response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.store.outage import is_away
from app.web.context import console
from app.web.security import public

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@public
def healthz() -> Response:
    return _text("ok\n", 200)


@blueprint.get("/readyz")
@public
def readyz() -> Response:
    try:
        with console().db.read() as conn:
            conn.execute(text("SELECT 1 FROM revisions LIMIT 1"))
    except SQLAlchemyError as error:
        if not is_away(error):
            raise
        return _text("the database cannot be reached\n", 503)
    return _text("ready\n", 200)


@blueprint.get("/metrics")
@public
def metrics() -> Response:
    response = _text("", 200)
    response.set_data(console().metrics.text())
    response.content_type = "text/plain; version=0.0.4; charset=utf-8"
    return response


def _text(text: str, status: int) -> Response:
    response = make_response(text, status)
    response.content_type = "text/plain; charset=utf-8"
    response.headers["Cache-Control"] = "no-store"
    return response
