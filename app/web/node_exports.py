"""CSV and JSON of exactly the view that the list shows: its filter, its order, all of its pages."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

from flask import Blueprint, Response

from app.core.errors import Invalid
from app.store import node_list
from app.store.node_list import ListedNode
from app.web.context import console, now
from app.web.node_view import view
from app.web.nodes import matching, reason_of

blueprint = Blueprint("node_exports", __name__)

COLUMNS = (
    "id", "name", "state", "admission", "connection", "health", "version", "booted_slot", "channel", "pinned_to",
    "phase", "why", "containers_running", "os", "arch", "last_seen_at",
)  # fmt: skip


@blueprint.get("/nodes.csv")
def as_csv() -> Response:
    return _export("text/csv; charset=utf-8", "nodes.csv", _csv)


@blueprint.get("/nodes.json")
def as_json() -> Response:
    return _export("application/json", "nodes.json", _json)


def _export(content_type: str, name: str, form: Callable[[Iterator[ListedNode]], Iterator[str]]) -> Response:
    shown = view()
    if shown.error:
        raise Invalid("q", shown.error)

    db, moment = console().db, now()

    def rows() -> Iterator[str]:
        """Runs after the request has ended: needs nothing of it."""
        with db.read() as conn:
            yield from form(node_list.every(conn, matching(conn, shown, moment), shown.order))

    response = Response(rows(), content_type=content_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Cache-Control"] = "no-store"
    return response


def _csv(rows: Iterator[ListedNode]) -> Iterator[str]:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*COLUMNS, "labels"])
    for row in rows:
        values = _record(row)
        labels = " ".join(f"{key}={value}" for key, value in sorted(row.labels.items()))
        writer.writerow([_cell(values[column]) for column in COLUMNS] + [_cell(labels)])
        yield out.getvalue()
        out.seek(0)
        out.truncate()
    yield out.getvalue()


def _cell(value: Any) -> Any:
    """Spreadsheets must not take a node's own words for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _json(rows: Iterator[ListedNode]) -> Iterator[str]:
    before = "["
    for row in rows:
        yield before + json.dumps(_record(row) | {"labels": row.labels}, ensure_ascii=False)
        before = ",\n"
    yield "[]\n" if before == "[" else "]\n"


def _record(row: ListedNode) -> dict[str, Any]:
    values = (
        row.id, row.name, row.state.value, row.admission, row.connection, row.health_state, row.version,
        row.booted_slot, row.channel, row.pinned_to, row.phase, reason_of(row), row.containers_running, row.os_id,
        row.arch, row.last_seen_at,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))
