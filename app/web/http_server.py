"""waitress as the console needs it: a thread is a dear thing, and so is disk space for whoever has not signed in.

waitress takes whole request bodies before the application sees the request. So who may send a large one is decided
from the headers alone: only a signed-in session, and only to the two views that take images.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import structlog
from flask import Flask, Response, request
from sqlalchemy.exc import SQLAlchemyError
from waitress.adjustments import Adjustments
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer, MultiSocketServer, create_server
from waitress.utilities import Error, RequestEntityTooLarge
from werkzeug.http import parse_cookie
from werkzeug.wsgi import wrap_file

from app.config import Address
from app.core.image_identity import MAX_IMAGE_BYTES
from app.services.sign_in import SESSION_COOKIE, session_for
from app.store.database import Database

log = structlog.get_logger(__name__)

_THREADS = 8
"""Two cores render; the rest wait for the database."""
_CONNECTIONS = 1000
"""Browsers keep several open each; beyond this nobody is accepted until one closes."""
_FORM_BYTES = 2 * 1024 * 1024
"""A little above what forms may have, so that its own clear refusal is what people see; the same for images."""
_UPLOAD_BYTES = MAX_IMAGE_BYTES + 1024**3
_UPLOADS = (("POST", "/images/upload"), ("PUT", "/images/content"))


class _SignInFirst(Error):
    code = 401
    reason = "Unauthorized"


class _TryAgain(Error):
    code = 503
    reason = "Service Unavailable"


def make_server(app: Flask, db: Database, address: Address) -> BaseWSGIServer | MultiSocketServer:
    """Listens at once; OSError when it cannot."""
    server = create_server(
        app,
        host=address.host,
        port=address.port,
        threads=_THREADS,
        connection_limit=_CONNECTIONS,
        asyncore_use_poll=True,  # select() knows no file descriptor above 1023
        max_request_body_size=_FORM_BYTES,
        ident="",
    )

    class Parser(_Parser):
        may_upload = staticmethod(lambda cookies: _signed_in(db, cookies))

    class Channel(HTTPChannel):
        parser_class = Parser

    for each in _listening(server):
        each.channel_class = Channel
    return server


def _listening(server: Any) -> list[Any]:
    """The server itself, or the several that one name such as localhost stands for."""
    several = [each for each in getattr(server, "map", {}).values() if isinstance(each, BaseWSGIServer)]
    return several or [server]


def _signed_in(db: Database, cookies: str) -> bool:
    """SQLAlchemyError when the database cannot say."""
    secret = parse_cookie(cookies).get(SESSION_COOKIE, "")
    if not secret:
        return False
    with db.read() as conn:
        return session_for(conn, secret, time.time()) is not None


class _Parser(HTTPRequestParser):
    """Knows how much of a body is taken before any of it has been."""

    may_upload: Callable[[str], bool]

    def __init__(self, adj: Adjustments) -> None:
        super().__init__(adj)
        self._refusal: Error | None = None

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        wanted: Any = self.command, vars(self)["path"]  # text both, whatever the types of waitress say
        if wanted not in _UPLOADS or (not self.chunked and self.content_length < _FORM_BYTES):
            return
        try:
            if self.may_upload(self.headers.get("COOKIE", "")):
                self.adj = copy.copy(self.adj)
                self.adj.max_request_body_size = _UPLOAD_BYTES
            else:
                self._refusal = _SignInFirst("Sign in first. Nothing was stored.")
        except SQLAlchemyError as error:
            log.warning("database is away", error=str(error).splitlines()[0])
            self._refusal = _TryAgain("The database is away. Nothing was stored: send it again later.")

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if self._refusal is not None and isinstance(self.error, RequestEntityTooLarge):
            self.error = self._refusal
        return consumed


def send_by_server(response: Response, path: Any) -> Response:
    """Let waitress send the part of a file that a partial answer stands for, as it sends whole files: without
    keeping one of our threads for as long as a slow line takes."""
    if response.status_code == 206 and request.environ.get("wsgi.file_wrapper") is ReadOnlyFileBasedBuffer:
        start = response.content_range.start
        assert start is not None, "a partial answer says where it begins"
        file = path.open("rb")
        file.seek(start)
        response.response = wrap_file(request.environ, file)
        response.direct_passthrough = True
    return response
