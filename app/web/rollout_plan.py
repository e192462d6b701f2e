"""A draft: the plan that it would follow if it were started now, and everything that stands against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Response, request
from flask.typing import ResponseReturnValue

from app.core import snapshot_file
from app.core.group_policy import GroupPolicy
from app.core.holds import HoldCode
from app.core.policy_text import differences
from app.core.rollouts import possible_moves
from app.services.rollout_preview import LeftOut, Preview, preview
from app.store.rollouts import Rollout
from app.web.context import console, now
from app.web.group_words import LABELS
from app.web.htmx import render
from app.web.live import live_page
from app.web.rollout_holds import WORDS
from app.web.rollout_limits import limits
from app.web.rollout_outlook import window_words
from app.web.rollout_plan_view import PlannedNode, plan_view
from app.web.rollout_show import Asked, asked
from app.web.rollout_waves import list_address
from app.web.rollout_words import basis_words, name, policy_lines, range_words, title

_MOMENT_S = 60.0
"""A plan that is older may not be what would happen: it is made anew when the page is looked at."""
_STAYS = "as-it-is"
"""Nodes that have nothing to do: they run the version already, or their author left them out."""
LIST_ROWS = 200
BROAD_NODES = 50
"""Starting more asks for the group's name, however large group and fleet are."""


def show_plan(rollout: Rollout) -> Response:
    """The page of a draft."""
    topics = {"plan": (f"rollout:{rollout.id}", "groups")}
    return live_page("rollouts/plan.html", topics, partial(_gather, rollout), moment_s=_MOMENT_S)


def _gather(rollout: Rollout) -> Mapping[str, Any]:
    seen = preview(console().db, rollout.id, now())
    base = f"/rollouts/{rollout.number}/nodes"
    view = plan_view(seen.snapshot, seen.plan, rollout.id, base)
    found = seen.estimate
    at_once = limits(seen.snapshot, seen.place)
    return {
        "rollout": rollout,
        "name": name(rollout),
        "whose": title(rollout)[0],
        "what": title(rollout)[1],
        "plan": view,
        "canaries": sum(node.wave == 0 for node in view.nodes),
        "takes": range_words(found),
        "basis": basis_words(found),
        "never_ends": found.never,
        "windows": window_words(seen.rollout, found),
        "left": left_rows(seen.left, base),
        "left_total": len(seen.left),
        "never": len(seen.impossible_nodes()),
        "startable": not seen.invalid and len(seen.impossible_nodes()) < view.moving + view.held,
        "base": base,
        "at_once": at_once.words,
        "policy": policy_lines(seen.rollout.policy, _group(seen.rollout), at_once.lines),
        "policy_changes": policy_changes(rollout, seen.rollout),
        "invalid": seen.invalid,
        "allowances": sorted("/".join(filter(None, key)) for key in rollout.allowances),
        "possible": {move.value for move in possible_moves(rollout.state)},
    }


def _group(rollout: Rollout) -> tuple[str, GroupPolicy] | None:
    """Its draft is as it would be started now: what only a group can have stands in its policy."""
    return (rollout.group_name, rollout.policy) if rollout.selector else None


def save_snapshot(rollout: Rollout) -> Response:
    """What the plan is made of, a draft's own nodes too, as a file that explains itself with no database."""
    seen = preview(console().db, rollout.id, now())
    response = Response(snapshot_file.dump(seen.snapshot), mimetype="application/json")
    response.headers["Content-Disposition"] = f'attachment; filename="rollout-{rollout.number}-snapshot.json"'
    response.headers["Cache-Control"] = "no-store"
    return response


def policy_changes(drafted: Rollout, now_is: Rollout) -> list[tuple[str, str, str]]:
    """(what, as drafted, as it is now) of what its group changed since it was drafted."""
    found = differences(drafted.policy, now_is.policy)
    if drafted.selector != now_is.selector:
        found.insert(0, ("selector", drafted.selector, now_is.selector))
    return [(LABELS.get(what, what), before or "none", after or "none") for what, before, after in found]


@dataclass(frozen=True, slots=True)
class LeftRow:
    """Nodes that it is about and does not move, for the same reason."""

    title: str
    text: str
    nodes: int
    href: str


def left_rows(left: Sequence[LeftOut], base: str) -> list[LeftRow]:
    """The most frequent first; together all of `left`."""
    groups: dict[str, list[LeftOut]] = {}
    for each in left:
        groups.setdefault(_left_key(each), []).append(each)
    rows = [
        LeftRow(
            WORDS[HoldCode(key)].title if key != _STAYS else "Stays as it is",
            alike[0].out.text,
            len(alike),
            list_address(base, left=key),
        )
        for key, alike in groups.items()
    ]
    return sorted(rows, key=lambda row: -row.nodes)


def _left_key(left: LeftOut) -> str:
    return left.out.hold.code.value if left.out.hold is not None else _STAYS


# --- lists of its nodes -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlannedRow:
    node_id: str
    name: str
    version: str
    place: str
    """Its wave, or that it stays."""
    why: str


def list_planned(rollout: Rollout) -> ResponseReturnValue:
    """Nodes of a draft under its plan, as the address wants them."""
    seen = preview(console().db, rollout.id, now())
    wanted, left = asked(), request.args.get("left", "")
    rows = _left(seen, left) if left else _planned(seen, rollout, wanted)
    args = {name: value for name, value in request.args.items() if name != "from"}
    shown = rows[wanted.offset : wanted.offset + LIST_ROWS]
    words = "left out" if left else wanted.words
    return render(
        "rollouts/plan_nodes.html",
        rollout=rollout,
        name=name(rollout),
        words=words,
        rows=shown,
        total=len(rows),
        offset=wanted.offset,
        step=LIST_ROWS,
        args=args,
    )


def _left(seen: Preview, key: str) -> list[PlannedRow]:
    versions = {node.id: node.version for node in seen.snapshot.nodes}
    return [
        PlannedRow(each.node_id, each.name, versions.get(each.node_id, ""), "stays", each.out.text)
        for each in sorted(seen.left, key=lambda each: (each.name, each.node_id))
        if _left_key(each) == key
    ]


def _planned(seen: Preview, rollout: Rollout, asked: Asked) -> list[PlannedRow]:
    view = plan_view(seen.snapshot, seen.plan, rollout.id, "")
    return [_row(node) for node in view.nodes if _wanted(node, asked)]


def _wanted(node: PlannedNode, asked: Asked) -> bool:
    """A hold is asked for among those that are held for good: the others have their waves."""
    wanted = asked.wanted
    if wanted.waves is not None and (node.wave is None or not wanted.waves[0] <= node.wave <= wanted.waves[1]):
        return False
    if wanted.progress is not None and node.wave is None:
        return False
    if wanted.hold is None:
        return True
    held = node.hold if node.wave is None else None
    return held is not None and held.code is wanted.hold and wanted.subject in (None, node.held_by)


def _row(node: PlannedNode) -> PlannedRow:
    place = "held" if node.wave is None else "canary" if node.wave == 0 else f"wave {node.wave}"
    why = node.hold.text if node.hold is not None and node.wave is None else ""
    return PlannedRow(node.node_id, node.name, node.version, place, why)


def broad_words(nodes: int, group_size: int | None, fleet_size: int) -> str:
    """Why starting it asks for the group's name: it is about more than half of the group or of the fleet, or about
    many nodes; empty where it is not. `nodes`: those that it moves, now or later. `group_size`: None for chosen nodes.
    """
    if nodes < 2:
        return ""
    if group_size is not None and 2 * nodes > group_size:
        return f"It is about {_of(nodes, group_size)} nodes of the group."
    if 2 * nodes > fleet_size:
        return f"It is about {_of(nodes, fleet_size)} nodes of the fleet."
    return f"It is about {nodes:,} nodes, more than {BROAD_NODES}." if nodes > BROAD_NODES else ""


def _of(nodes: int, size: int) -> str:
    return f"all {size:,}" if nodes >= size else f"{nodes:,} of {size:,}"
