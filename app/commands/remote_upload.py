"""Sends an image to a console elsewhere: signs in by a one-time link, then streams the file in one request."""

from __future__ import annotations

import http.client
import re
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import SplitResult, urlencode, urlsplit

from app.core.errors import Invalid, NotPossible
from app.services.images import Description
from app.services.sign_in import SESSION_COOKIE

_TIMEOUT_S = 600.0
"""Between two steps of the conversation; the server syncs a large file before it answers."""
_CSRF = re.compile(r'name="csrf" value="([^"]+)"')


def send(link: str, file: Path, description: Description, signature: str, reason: str) -> str:
    """The id that the image got there. Invalid for a bad link, NotPossible with the console's own words."""
    parts = urlsplit(link)
    if parts.scheme not in ("http", "https") or "/sign-in/" not in parts.path:
        raise Invalid("to", f"“{link}” is no sign-in link: make one there with `twinroot login-link`.")
    prefix, _, token = parts.path.partition("/sign-in/")
    try:
        with _connection(parts) as conn:
            cookie = _sign_in(conn, f"{prefix}/sign-in/{token}")
            csrf = _csrf(conn, f"{prefix}/images/upload", cookie)
            query = urlencode(
                {
                    "csrf": csrf,
                    "os": description.os,
                    "arch": description.arch,
                    "version": description.version,
                    "notes": description.notes,
                    "signature": signature,
                    "reason": reason,
                }
            )
            return _put(conn, f"{prefix}/images/content?{query}", cookie, file)
    except (OSError, http.client.HTTPException) as error:
        raise NotPossible("unreachable", f"The console at {parts.netloc} did not answer: {error}.") from error


class _connection:
    def __init__(self, parts: SplitResult) -> None:
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._conn = kind(parts.netloc, timeout=_TIMEOUT_S)

    def __enter__(self) -> http.client.HTTPConnection:
        return self._conn

    def __exit__(self, *_: object) -> None:
        self._conn.close()


def _sign_in(conn: http.client.HTTPConnection, path: str) -> str:
    conn.request("GET", path)
    answer = conn.getresponse()
    answer.read()
    cookies = SimpleCookie(", ".join(answer.headers.get_all("Set-Cookie") or ()))
    if SESSION_COOKIE not in cookies:
        raise NotPossible("link-spent", "This sign-in link was used already or has expired; nothing was sent.")
    return f"{SESSION_COOKIE}={cookies[SESSION_COOKIE].value}"


def _csrf(conn: http.client.HTTPConnection, path: str, cookie: str) -> str:
    conn.request("GET", path, headers={"Cookie": cookie})
    answer = conn.getresponse()
    found = _CSRF.search(answer.read().decode(errors="replace"))
    if found is None:
        raise NotPossible("unexpected", f"The console answered {answer.status} where its upload page should be.")
    return found[1]


def _put(conn: http.client.HTTPConnection, path: str, cookie: str, file: Path) -> str:
    with file.open("rb") as body:
        size = str(file.stat().st_size)
        headers = {"Cookie": cookie, "Content-Type": "application/octet-stream", "Content-Length": size}
        conn.request("PUT", path, body=body, headers=headers)
        answer = conn.getresponse()
        text = answer.read().decode(errors="replace").strip()
    if answer.status != http.client.CREATED:
        plain = answer.headers.get_content_type() == "text/plain"
        raise NotPossible("refused", text if plain else f"The console answered {answer.status}; nothing was stored.")
    return text
