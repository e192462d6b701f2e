"""Forms that are sent once: each carries a nonce; the second sending of the same form is led to the first's result."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from flask import redirect, request
from flask.typing import ResponseReturnValue

from app.core.errors import Invalid
from app.store import form_posts
from app.web.context import console, now

NONCE_FIELD = "form"
REASON_CHARS = 500
"""A reason is a sentence; the audit log keeps it for good."""


def form_nonce() -> str:
    return secrets.token_urlsafe(16)


def once(location: str, change: Callable[[], object]) -> ResponseReturnValue:
    """Run `change` and redirect to `location`; a repeated sending only redirects.

    The nonce is claimed before and given back when the change fails, so that a corrected form goes through. A
    crash in between leaves it claimed: the person lands on the page and sees that nothing has changed.
    """
    for name, value in request.form.items():
        if "\0" in value:
            raise Invalid(name, "This contains a NUL character. Nothing was changed.")
    nonce = request.form.get(NONCE_FIELD, "")
    if not nonce:
        change()
        return redirect(location, 303)
    db = console().db
    with db.write() as tx:
        claimed = form_posts.claim(tx.conn, nonce, now())
    if claimed:
        try:
            change()
        except BaseException:
            with db.write() as tx:
                form_posts.release(tx.conn, nonce)
            raise
    return redirect(location, 303)


def reason(needed: bool = True) -> str:
    """The reason field, of bounded length."""
    text = " ".join(request.form.get("reason", "").split())
    if needed and not text:
        raise Invalid("reason", "Say why, in a few words: the history keeps it. Nothing was changed.")
    if len(text) > REASON_CHARS:
        raise Invalid("reason", f"The reason has {len(text)} characters; {REASON_CHARS} are kept. Nothing was changed.")
    return text
