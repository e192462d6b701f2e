"""The fleet: counts that partition, the heat map, versions over time, what runs, what needs a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import groupby
from typing import Any

from flask import Blueprint, Response, request
from markupsafe import Markup, escape
from sqlalchemy import Connection

from app.core.fleet import NodeState
from app.core.groups import Group
from app.core.labels import is_label_key
from app.core.query import quoted
from app.core.share_chart import shades, share_chart
from app.services import attention
from app.store import events, fleet, leases, node_list, operations
from app.store import groups as group_store
from app.store.node_list import Cell
from app.store.node_query import ZONE
from app.web import fleet_running
from app.web.attention import kinds
from app.web.context import console, now, read
from app.web.live import live_page
from app.web.rollouts import under_way

blueprint = Blueprint("fleet", __name__)

DEFAULT_GROUP = ZONE
POLICY_GROUP = "@group"
"""In the place of a label, for the groups that decide about nodes; no label is called so."""
_CHART_S = 30 * 24 * 3600.0
_EVENTS = 8
_ROLLOUTS = 6
_NEEDS_EACH = 3
_PACE_S = 1.0
"""The heat map of a large fleet is the dearest fragment there is."""
_MOMENT_S = 60.0
"""What needs a person depends on the clock: nodes that are offline for long."""


class HeatColor(StrEnum):
    HEALTH = "health"
    VERSION = "version"
    PHASE = "phase"


@blueprint.get("/")
def show() -> Response:
    topics = {"fleet": ("fleet", "events", "operations", "groups")}
    return live_page("fleet/show.html", topics, _gather, moment_s=_MOMENT_S, pace_s=_PACE_S)


def _gather() -> Mapping[str, Any]:
    group = request.args.get("group", DEFAULT_GROUP)
    color = request.args.get("color", HeatColor.HEALTH)
    group = group if is_label_key(group) or group == POLICY_GROUP else DEFAULT_GROUP
    return read(
        partial(_everything, group=group, color=HeatColor(color) if color in tuple(HeatColor) else HeatColor.HEALTH)
    )


def _everything(conn: Connection, group: str, color: HeatColor) -> Mapping[str, Any]:
    console().outage.leases(leases.holder_names(conn))
    groups = group_store.all_groups(conn)
    cells = node_list.cells(conn, groups if group == POLICY_GROUP else group)
    counts = node_list.state_counts(conn)
    running = fleet_running.running(operations.all_open(conn))
    samples = [(each.at, each.version, each.nodes) for each in fleet.samples(conn, now() - _CHART_S)]
    return {
        "counts": {state: number for state, number in counts.items() if state is not NodeState.RETIRED},
        "retired": counts[NodeState.RETIRED],
        "total": len(cells),
        "zones": heat_map(cells, color, _queries(groups) if group == POLICY_GROUP else partial(_of_label, group)),
        "legend": legend(cells, color),
        "group": group,
        "groups": _groupings(group, bool(groups), node_list.label_keys(conn)),
        "color": color,
        "colors": list(HeatColor),
        "chart": share_chart(samples, fleet.versions(conn), now()),
        "running": running,
        "node_names": node_list.names(conn, {operation.node_id for operation in running.rows}),
        "rollouts": under_way(conn, _ROLLOUTS),
        **_needs(conn),
        "latest": events.recent(conn, limit=_EVENTS),
    }


def _needs(conn: Connection) -> Mapping[str, Any]:
    """The first of each kind; what is put aside does not count."""
    everything = attention.all_entries(conn, now())
    entries = [entry for entry in everything if not entry.put_aside(now())]
    total = f"{len(entries):,}{'+' if attention.unlisted(conn, now(), everything) else ''}" if entries else ""
    return {"needs": kinds(conn, entries, _NEEDS_EACH), "needs_total": total}


@dataclass(frozen=True, slots=True)
class Zone:
    name: str
    query: str
    """Of the list that has exactly these nodes."""
    count: int
    cells: Markup


def _groupings(chosen: str, grouped: bool, keys: list[str]) -> dict[str, str]:
    """What the map can be grouped by → what that is called."""
    offered = [*([POLICY_GROUP] if grouped or chosen == POLICY_GROUP else []), chosen, *keys]
    return {key: "group" if key == POLICY_GROUP else key for key in list(dict.fromkeys(offered))[:8]}


def _of_label(key: str, value: str) -> str:
    return f"label:{key}={quoted(value)}" if value else f"not label:{key}"


def _queries(groups: Sequence[Group]) -> Callable[[str], str]:
    """Of the nodes that one of these groups decides about: it takes them, and none before it does."""
    names = [group.name for group in groups]

    def query(name: str) -> str:
        before = names[: names.index(name)] if name else names
        return " ".join([*([f"group:{quoted(name)}"] if name else []), *(f"not group:{quoted(one)}" for one in before)])

    return query


def heat_map(cells: list[Cell], color: HeatColor, query: Callable[[str], str]) -> list[Zone]:
    """Cells by group, with the filter of each. Their markup is put together here because a template loop costs ten
    times as much."""
    paint = _Paint(cells, color)
    return [
        Zone(name, query(name), len(members), paint.cells(members))
        for name, members in ((name, list(each)) for name, each in groupby(cells, lambda cell: cell.group))
    ]


class _Paint:
    def __init__(self, cells: list[Cell], color: HeatColor) -> None:
        self._color = color
        self._shades = shades({cell.version for cell in cells} - {""}) if color is HeatColor.VERSION else {}

    def cells(self, cells: list[Cell]) -> Markup:
        """One stop of the tab key a group: arrow keys go on from there (app.js)."""
        links = []
        for number, cell in enumerate(cells):
            kind, word = self.kind(cell)
            links.append(
                f'<a href="/nodes/{cell.id}" class="c-{kind}" title="{escape(cell.name)}: {escape(word)}"'
                f"{' tabindex=-1' if number else ''}></a>"
            )
        return Markup("".join(links))  # noqa: S704 -- name and word are escaped, ids and kinds are ours

    def kind(self, cell: Cell) -> tuple[str, str]:
        """CSS class and word of a cell. What is offline or pending shows so in every colouring."""
        if self._color is HeatColor.HEALTH or cell.state in (NodeState.OFFLINE, NodeState.PENDING):
            return cell.state.shape, cell.state.words
        if self._color is HeatColor.VERSION:
            return f"v{self._shades.get(cell.version, 6)}", cell.version or "version not known"
        return PHASE_KINDS.get(cell.phase, "ok"), cell.phase


PHASE_KINDS = {
    "idle": "v6",
    "staging": "v2",
    "staged": "v1",
    "draining": "busy",
    "rebooting": "busy",
    "confirming": "trial",
    "soaking": "trial",
    "rolling-back": "warn",
}


def legend(cells: list[Cell], color: HeatColor) -> list[tuple[str, str, str, int]]:
    """(class, word, filter, nodes) of each colour on the map; together all cells."""
    paint = _Paint(cells, color)
    found: dict[tuple[str, str, str], int] = {}
    for cell in cells:
        kind, word = paint.kind(cell)
        if color is HeatColor.HEALTH or cell.state in (NodeState.OFFLINE, NodeState.PENDING):
            query = f"state:{cell.state}"
        elif color is HeatColor.VERSION:
            query = f"not state:offline,pending version:{quoted(cell.version)}" if cell.version else ""
        else:
            query = f"not state:offline,pending phase:{cell.phase}"
        found[kind, word, query] = found.get((kind, word, query), 0) + 1
    return [(*key, number) for key, number in sorted(found.items(), key=lambda item: -item[1])]
