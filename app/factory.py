"""The web application: one function, no globals, nothing connects until a request does."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import Flask, Response, g, request
from jinja2 import StrictUndefined

from app.config import Settings
from app.store.database import Database
from app.web import assets, context, errors, filters, freezes, pages, security
from app.web.context import Console, console, session_or_none
from app.web.forms import form_nonce
from app.web.htmx import Htmx
from app.web.navigation import LINKS
from app.web.preferences import preferences

_FORM_BYTES = 1024 * 1024
"""Forms are text; views that take uploads set their own limit on the request."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Anybody may send any word as a method: the figures have one line for all others."""


def create_app(db: Database, settings: Settings, clock: Callable[[], float] = time.time) -> Flask:
    """`clock` gives Unix seconds; tests hand in their own."""
    app = Flask("twinroot", template_folder=str(assets.TEMPLATES), static_folder=str(assets.STATIC))
    app.config.update(MAX_CONTENT_LENGTH=_FORM_BYTES, TRUSTED_HOSTS=None)
    context.install(app, Console(db, settings, clock))
    Htmx(app)
    _templates(app)
    freezes.install(app)
    _measure(app)
    security.install(app)
    errors.install(app)
    for blueprint in pages.BLUEPRINTS:
        app.register_blueprint(blueprint)
    return app


def _templates(app: Flask) -> None:
    env = app.jinja_env
    env.undefined = StrictUndefined
    env.trim_blocks = env.lstrip_blocks = True
    filters.install(app)
    env.globals.update(
        csrf_token=security.csrf_token,
        form_nonce=form_nonce,
        preferences=preferences,
        signed_in=session_or_none,
        build_id=assets.build_id,
        has_vendor=assets.has_vendor,
        live_url=lambda: console().settings.live_url,
        page_links=LINKS,
        request_now=context.now,
    )
    env.globals["ui"] = env.get_template("_macros.html").module  # blocks that are rendered alone see no imports


def _measure(app: Flask) -> None:
    @app.before_request
    def started() -> None:
        g.started = time.perf_counter()

    @app.after_request
    def ended(response: Response) -> Response:
        metrics, endpoint = console().metrics, request.endpoint or "none"
        method = request.method if request.method in _METHODS else "other"
        metrics.requests.labels(endpoint, method, str(response.status_code)).inc()
        metrics.seconds.labels(endpoint).observe(time.perf_counter() - g.started)
        return response
