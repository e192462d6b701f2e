"""Form pages that keep what was typed: a refused form is drawn again, with the error at its field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import make_response, request
from flask.typing import ResponseReturnValue

from app.core.errors import Invalid, NoSpace, NotPossible, TooLarge, TwinrootError
from app.web.forms import once
from app.web.htmx import render


def draw_form(page: str, values: Mapping[str, Any], error: TwinrootError | None = None) -> ResponseReturnValue:
    """The page with `typed` (field → text), `errors` (field → text) and `problem` (what no field is to blame for)."""
    errors = {error.field: error.text} if isinstance(error, Invalid) else {}
    problem = error.text if error is not None and not isinstance(error, Invalid) else ""
    typed = {name: value for name, value in request.form.items() if isinstance(value, str)}
    text = render(page, **{"typed": typed, "errors": errors, "problem": problem, **values})
    return make_response(text, error.http_status if error else 200)


def submit(
    page: str, gather: Callable[[], Mapping[str, Any]], location: str, change: Callable[[], object]
) -> ResponseReturnValue:
    """Run `change` once and redirect to `location`; when it is refused, the form again."""
    try:
        return once(location, change)
    except (Invalid, NotPossible, TooLarge, NoSpace) as error:
        return draw_form(page, gather(), error)
