"""Server time of the Nodes page at five thousand nodes over that at a hundred.

The application is called in this process, without a server or a client around it, and always has to render: the
topic's revision is raised and the clock moved on before each request, so that no cache of fragments and no pace helps.
What is asked for is the live part of the page, which is all that differs. Requests to the two fleets alternate; the
medians count. Server time is processor time of the request, database included (SQLite runs in the same thread), which
other programs on the machine disturb least; the time that passed is printed beside it.

Each filter shows as many rows on both fleets (see bench.fleet_rows); the worst ratio of full pages is the figure.
"""

from __future__ import annotations

import gzip
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from flask import Flask
from werkzeug.test import EnvironBuilder, run_wsgi_app

from app.factory import create_app
from app.services.fleet import ensure_fleet
from app.services.sign_in import SESSION_COOKIE, create_login_link, use_login_link
from app.store.database import Database, open_database
from app.store.migrate import migrate
from app.web.nodes import PAGE_ROWS
from bench.fleet_rows import UNHEALTHY, fill
from bench.gateway_world import settings_in

SMALL, LARGE = 100, 5_000
FILTERS = ("", "health:degraded", "label:zone=a")
RARE = "health:unhealthy"
"""Matches few nodes of either fleet: printed, no part of the figure, because so short a page costs little else."""
ROUNDS = 60
"""Of each filter, after a few that only warm up."""
GOAL = 1.3
_WARM = 5
_STEP_S = 2.0
"""The clock moves on by more than the pace of the list."""


def run() -> list[dict[str, object]]:
    with (
        tempfile.TemporaryDirectory(prefix="twinroot-bench-") as name,
        _site(Path(name), SMALL) as small,
        _site(Path(name), LARGE) as large,
    ):
        worst = max(_compare(small, large, query, PAGE_ROWS) for query in FILTERS)
        _compare(small, large, RARE, UNHEALTHY)
    figure = {"name": "nodes-page-growth", "value": round(worst, 2), "unit": "ratio", "goal": f"<= {GOAL:g}"}
    return [{**figure, "met": worst <= GOAL}]


@dataclass(slots=True)
class _Took:
    """Milliseconds of each request."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Site:
    """The application on a fleet, and the secret of a signed-in session."""

    app: Flask
    db: Database
    secret: str
    clock: list[float]

    def took(self, query: str, rows: int, times: _Took) -> None:
        """Ask for the list once, with everything that could be kept made stale."""
        self.clock[0] += _STEP_S
        with self.db.write() as change:
            change.touch("nodes")
        environ = EnvironBuilder(
            path="/nodes",
            query_string=urlencode({"q": query}),
            headers={
                "HX-Request": "true",
                "HX-Request-Type": "partial",
                "HX-Target": "div#list",
                "Accept-Encoding": "gzip",
                "Cookie": f"{SESSION_COOKIE}={self.secret}",
            },
        ).get_environ()
        wall, cpu = time.perf_counter(), time.thread_time()
        body, status, headers = run_wsgi_app(self.app, environ, buffered=True)
        times.cpu.append((time.thread_time() - cpu) * 1000)
        times.wall.append((time.perf_counter() - wall) * 1000)
        _check(b"".join(body), status, headers.get("Content-Encoding"), rows)


def _check(body: bytes, status: str, encoding: str | None, rows: int) -> None:
    """A benchmark of an error page would be fast."""
    text = (gzip.decompress(body) if encoding == "gzip" else body).decode()
    shown = text.count("<tr id=")
    if not status.startswith("200") or shown != rows:
        raise RuntimeError(f"the list answered {status} with {shown} rows instead of {rows}")


@contextmanager
def _site(folder: Path, nodes: int) -> Iterator[_Site]:
    settings = settings_in(folder / str(nodes))
    migrate(settings.database_url)
    db = open_database(settings.database_url)
    try:
        now = time.time()
        ensure_fleet(db, now)
        fill(db, nodes, now)
        secret = use_login_link(db, create_login_link(db, "bench", now), now)
        clock = [now]
        yield _Site(create_app(db, settings, lambda: clock[0]), db, secret, clock)
    finally:
        db.close()


def _compare(small: _Site, large: _Site, query: str, rows: int) -> float:
    times = _Took(), _Took()
    for number in range(_WARM + ROUNDS):
        for site, took in zip((small, large), times, strict=True):
            site.took(query, rows, took if number >= _WARM else _Took())
    (small_cpu, large_cpu), (small_wall, large_wall) = (
        [statistics.median(getattr(took, kind)) for took in times] for kind in ("cpu", "wall")
    )
    print(
        f"  {query or 'no filter'}: {SMALL} nodes {small_cpu:.1f} ms, {LARGE} nodes {large_cpu:.1f} ms,"
        f" ratio {large_cpu / small_cpu:.2f} (of the time that passed: {large_wall / small_wall:.2f})",
        flush=True,
    )
    return large_cpu / small_cpu
