"""Who may ask what: sessions, request forgery, and the headers that hold the browser to it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from flask import Flask, Response, current_app, g, redirect, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest

from app.core.errors import Forbidden, Unauthenticated
from app.services.sign_in import SESSION_COOKIE, keep_alive, session_for
from app.web.context import console, now, session_or_none
from app.web.htmx import htmx

CSRF_FIELD = "csrf"
CSRF_HEADER = "X-CSRF-Token"

_SAFE = ("GET", "HEAD", "OPTIONS")
_OWN_SITES = ("same-origin", "none")
"""`none`: the person typed the address or used a bookmark."""

View = TypeVar("View", bound=Callable[..., Any])


class Forged(Forbidden):
    """A change that did not provably come from a page of ours."""

    code = "forged"


class Stale(Forged):
    """From a page of ours, but of another session: what was typed is offered again, which a foreign page never is."""


def public(view: View) -> View:
    """Mark a view as open to everybody: no session is looked up, none is needed, and it changes nothing."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def install(app: Flask) -> None:
    app.before_request(_guard)
    app.after_request(_headers)


def _guard() -> ResponseReturnValue | None:
    if request.endpoint is None or request.endpoint == "static" or _is_public():
        return None
    _check_text()
    if request.method not in _SAFE:
        check_origin()  # before anything else is said, so that no page of ours ever carries a foreign page's words
    secret = request.cookies.get(SESSION_COOKIE, "")
    if secret:
        with console().db.read() as conn:
            g.session = session_for(conn, secret, now())
        console().outage.answered(now())
        if g.session is not None and not htmx():  # an open page refreshes itself; only a person keeps a session alive
            keep_alive(console().db, g.session, now())
    if session_or_none() is None:
        if request.method in _SAFE and not htmx().partial:
            return redirect("/sign-in?" + urlencode({"next": request.full_path.rstrip("?")}), 303)
        raise Unauthenticated("Your sign-in has expired. Nothing was changed. Sign in again and go on where you were.")
    if request.method not in _SAFE:
        _check_token()
    return None


def _check_text() -> None:
    """PostgreSQL stores no NUL, and no person types one."""
    if "\0" in request.path or any("\0" in value for value in request.args.values()):
        raise BadRequest("The address contains a NUL character.")


def _is_public() -> bool:
    view = current_app.view_functions.get(request.endpoint or "")
    return bool(getattr(view, "is_public", False))


def check_origin() -> None:
    """Forged unless the browser says that the request came from our own pages (or says nothing at all)."""
    own = origin_of(console().settings.public_url)
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site")
    if origin is not None and origin != own:
        raise Forged(
            f"This came from {origin}, but the console is at {own}. Nothing was changed."
            f" Open the console at {own}; if that address is wrong, set TWINROOT_PUBLIC_URL."
        )
    if site is not None and site not in _OWN_SITES:
        raise Forged("This came from another site. Nothing was changed. Open the console itself and do it there.")


def _check_token() -> None:
    """Header and query first: reading the form of an upload would spool all of it before we know who sends it."""
    given = request.headers.get(CSRF_HEADER) or request.args.get(CSRF_FIELD) or request.form.get(CSRF_FIELD, "")
    if not hmac.compare_digest(given.encode(), csrf_token().encode()):
        raise Stale(
            "This form belongs to an earlier sign-in, so it was not accepted. Nothing was changed."
            " What you typed is below: look at it, and send it again."
        )


def csrf_token() -> str:
    """Bound to the session: worthless in any other."""
    found = session_or_none()
    if found is None:
        return ""
    key = console().settings.secret_key.encode()
    return hmac.new(key, b"csrf " + found.secret_hash.encode(), hashlib.sha256).hexdigest()


def local_path(target: str | None) -> str | None:
    """`target` if it is a path on this very site, else None: nobody is sent elsewhere by a link."""
    if not target or not target.startswith("/") or target.startswith(("//", "/\\")) or "\\" in target:
        return None
    parts = urlsplit(target)
    printable = all(32 < ord(char) != 127 for char in target)
    return target if not parts.scheme and not parts.netloc and printable else None


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    port = f":{parts.port}" if parts.port and parts.port != default else ""
    host = parts.hostname or ""
    return f"{parts.scheme}://[{host}]{port}" if ":" in host else f"{parts.scheme}://{host}{port}"


def _headers(response: Response) -> Response:
    live = urlsplit(console().settings.live_url)
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "font-src": "'self'",
        "connect-src": f"'self' {live.scheme}://{live.netloc}",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = response.headers
    headers["Content-Security-Policy"] = "; ".join(f"{name} {value}" for name, value in policy.items())
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("Cache-Control", "private, no-cache" if request.endpoint != "static" else "no-cache")
    if console().settings.secure_cookies:
        headers["Strict-Transport-Security"] = "max-age=31536000"
    return response
