"""Image files for nodes: by signed URL, in ranges, without a session."""

from __future__ import annotations

from flask import Blueprint, Response, request, send_file

from app.core.errors import Forbidden, Invalid
from app.core.image_identity import check_digest
from app.services.blobs import Blobs
from app.services.image_urls import check
from app.web.context import console, now
from app.web.http_server import send_by_server
from app.web.security import public

blueprint = Blueprint("download", __name__)


@blueprint.get("/images/blobs/<digest>")
@public
def blob(digest: str) -> Response:
    """The file, or the range of it that is asked for; its digest is its ETag. Refusals are one line of text."""
    settings = console().settings
    try:
        check(settings, digest, request.args, now())
        path = Blobs(settings).path(check_digest(digest))
    except Forbidden as error:
        return _refused(error.text, 403)
    except Invalid as error:
        return _refused(error.text, 404)
    if not path.is_file():
        return _refused("This server does not have the content of this image any more.", 404)
    response = send_file(path, mimetype="application/octet-stream", conditional=True, etag=digest)
    response.headers["Accept-Ranges"] = "bytes"
    return send_by_server(response, path)


def _refused(text: str, status: int) -> Response:
    return Response(text + "\n", status, mimetype="text/plain")
