"""Short-lived signed URLs by which nodes fetch images: no session, no node secret, useless for another image."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import urlencode

from app.config import Settings
from app.core.errors import Forbidden
from app.services.secret_keys import derived_key
from wire.identity import encode

URL_TTL_S = 900.0
"""A quarter of an hour to begin (or resume) a download; a node asks anew for a later try."""

_PURPOSE = "twinroot-image-url.v1"


def signed_url(settings: Settings, digest: str, node_id: str, now: float, ttl_s: float = URL_TTL_S) -> str:
    """Where the node `node_id` may fetch the image `digest` until `now + ttl_s`."""
    expires = str(int(now + ttl_s))
    query = {"node": node_id, "exp": expires, "sig": _signature(settings, digest, node_id, expires)}
    return f"{settings.public_url}/images/blobs/{digest}?{urlencode(query)}"


def check(settings: Settings, digest: str, query: Mapping[str, str], now: float) -> None:
    """Return when `query` permits fetching `digest` now; Forbidden says why not."""
    node_id, expires, signature = (query.get(name, "") for name in ("node", "exp", "sig"))
    expected = _signature(settings, digest, node_id, expires)
    if not signature or not hmac.compare_digest(signature.encode(), expected.encode()):
        raise Forbidden("This link was not made by this server for this image. The node gets a fresh one by itself.")
    if int(expires) < now:  # signed by us, so it is a number
        raise Forbidden("This link has expired. The node gets a fresh one by itself.")


def _signature(settings: Settings, digest: str, node_id: str, expires: str) -> str:
    statement = "\0".join((_PURPOSE, digest, node_id, expires)).encode()
    return encode(hmac.digest(derived_key(settings, "image url"), statement, hashlib.sha256))
