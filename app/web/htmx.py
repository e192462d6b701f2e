"""Page or fragment: the only place that knows. Extends flask-htmx, which speaks htmx 2, by what htmx 4 sends."""

from __future__ import annotations

from typing import Any, cast

from flask import current_app, request
from flask_htmx import HTMX
from jinja2 import Template


class Htmx(HTMX):  # type: ignore[misc]  # flask-htmx carries no types
    """htmx 4: `HX-Target` is `tag#id`, and `HX-Request-Type` is `partial` unless the whole body is replaced."""

    @property
    def partial(self) -> bool:
        return bool(self) and request.headers.get("HX-Request-Type") == "partial"

    @property
    def target_id(self) -> str | None:
        return (request.headers.get("HX-Target") or "").partition("#")[2] or None


def htmx() -> Htmx:
    return cast(Htmx, current_app.htmx)  # type: ignore[attr-defined]  # flask-htmx puts itself there


def wanted_block(page: str, block: str | None = None) -> str | None:
    """The block that this request asks for: `block`, else the one named as the target's id; None: the whole page."""
    helper = htmx()
    if not helper.partial:
        return None
    name = block or (helper.target_id or "").replace("-", "_")
    return name if name in _template(page).blocks else None


def render(page: str, block: str | None = None, **values: Any) -> str:
    """The whole page, or for htmx the block of the same template (`block`, else the one its target names)."""
    template = _template(page)
    wanted = wanted_block(page, block)
    current_app.update_template_context(values)
    if wanted is None:
        return template.render(values)
    return "".join(template.blocks[wanted](template.new_context(values)))


def _template(page: str) -> Template:
    return current_app.jinja_env.get_template(page)
