"""Live pages: ETags are revision counters looked at before any other query, fragments are rendered once.

A page names its live blocks and the topics of each. In the template `{{ live("block") }}` makes the element that
holds a block live: app.js asks for it again when one of its topics changed, and htmx morphs the answer in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask import Response, make_response, request
from markupsafe import Markup

from app.store.revisions import of_topics
from app.web.assets import build_id
from app.web.context import console, now, session_or_none
from app.web.fragments import Fragment
from app.web.htmx import render, wanted_block
from app.web.preferences import preferences

PAGE_AGE_S = 15.0
"""A whole page says "3 s ago" without a script, so it counts as new after this."""

Topics = Mapping[str, Sequence[str]]
"""Block name → topics that make it stale."""


def live_page(
    page: str,
    topics: Topics,
    gather: Callable[[], Mapping[str, Any]],
    *,
    moment_s: float | None = None,
    pace_s: float = 0.0,
) -> Response:
    """The page or the wanted block of it; 304 when nothing changed since the reader's ETag.

    `gather` runs only when something must be rendered; values that are costly and needed by one block only
    should be functions, called by that block. `moment_s`: what is shown depends on the clock too, so that it
    is stale after this many seconds even if nothing changed. `pace_s`: a fragment is rendered at most this often.
    """
    block = wanted_block(page)
    every = sorted({topic for each in topics.values() for topic in each})
    wanted = every if block is None else topics.get(block, every)
    with console().db.read() as conn:
        revisions = of_topics(conn, every)
    shared = block in topics  # the page and its other blocks have forms and names of whoever reads them
    etag = _etag(block, wanted, revisions, moment_s, shared=shared)
    if request.if_none_match.contains_weak(etag):
        console().metrics.fragments.labels("unchanged").inc()
        return _answer(Response(status=304), etag)

    def draw() -> str:
        return render(page, live=_Marks(topics, revisions, moment_s), **gather())

    if not shared:
        return _answer(make_response(draw()), etag)
    key = (request.path, request.query_string, block, preferences().time_zone)
    fragment, kept = console().fragments.get(key, etag, now(), draw, pace_s=pace_s)
    console().metrics.fragments.labels("cached" if kept else "rendered").inc()
    return _send(fragment)


def _send(fragment: Fragment) -> Response:
    """What is in fragments is no secret of one reader, so that packing them gives nothing away."""
    if request.if_none_match.contains_weak(fragment.etag):
        return _answer(Response(status=304), fragment.etag)
    response = Response(fragment.body, content_type="text/html; charset=utf-8")
    if fragment.packed is not None and request.accept_encodings["gzip"]:
        response.set_data(fragment.packed)
        response.headers["Content-Encoding"] = "gzip"
    return _answer(response, fragment.etag)


class _Marks:
    """`live(block)` in templates: the attributes that keep an element live."""

    def __init__(
        self, topics: Topics, revisions: Mapping[str, int], moment_s: float | None, path: str | None = None
    ) -> None:
        self._topics = topics
        self._revisions = revisions
        self._moment_s = moment_s
        self._path = path or request.full_path.rstrip("?")

    def __call__(self, block: str) -> Markup:
        topics = self._topics[block]
        return Markup(
            'id="{}" data-topics="{}" data-revisions="{}" data-etag="{}" '
            'hx-get="{}" hx-trigger="live" hx-swap="outerMorph" hx-sync="this:queue last"'
        ).format(
            block.replace("_", "-"),
            " ".join(topics),
            " ".join(str(self._revisions[topic]) for topic in topics),
            _quoted(_etag(block, topics, self._revisions, self._moment_s)),
            self._path,
        )


def marks_of(topics: Topics, path: str, moment_s: float | None = None) -> _Marks:
    """`live` for an answer that is not fetched again itself (to a form): its blocks are those of the page `path`."""
    with console().db.read() as conn:
        return _Marks(topics, of_topics(conn, {topic for each in topics.values() for topic in each}), moment_s, path)


def _etag(
    block: str | None,
    topics: Sequence[str],
    revisions: Mapping[str, int],
    moment_s: float | None,
    *,
    shared: bool = True,
) -> str:
    """Without the W/ and quotes. What is not shared also depends on who reads it and with which settings."""
    parts = [build_id(), block or "page", ".".join(str(revisions[topic]) for topic in topics)]
    if not shared:
        reader = session_or_none()
        parts += [repr(preferences()), reader.secret_hash if reader else "", str(int(now() // PAGE_AGE_S))]
    if moment_s is not None:
        parts.append(str(int(now() // moment_s)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _quoted(etag: str) -> str:
    return f'W/"{etag}"'


def _answer(response: Response, etag: str) -> Response:
    response.headers["ETag"] = _quoted(etag)
    response.headers["Cache-Control"] = "private, no-cache"
    response.headers["Vary"] = "Accept-Encoding, Cookie, HX-Request, HX-Target"
    return response
