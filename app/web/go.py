"""Go to any node, service, group, rollout, page or action by name: what the palette (Ctrl-K) asks. Without JavaScript
the form leads straight there when it is clear, else to the list of nodes that match."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from urllib.parse import urlencode

from flask import Blueprint, jsonify, redirect, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from app.core.query import quoted
from app.core.rollouts import Move, possible_moves
from app.core.services import label_of
from app.store import groups, node_list, rollouts, services
from app.store.rollouts import Rollout
from app.web.context import read
from app.web.navigation import ACTIONS, LINKS, OTHERS
from app.web.rollout_words import ATTENTION_ORDER
from app.web.rollout_words import name as words_of
from app.web.services import path_of

blueprint = Blueprint("go", __name__)

_SHOWN = 12
_EACH = 4
"""Of services, groups and rollouts, so that nodes have room."""
_MOVES = {Move.PAUSE: "Pause", Move.RESUME: "Resume", Move.ABORT: "Abort", Move.ROLL_BACK: "Roll back"}


@dataclass(frozen=True, slots=True)
class Found:
    name: str
    href: str
    kind: str
    """As the palette says it: page, action, rollout, service, group, node."""


@blueprint.get("/go")
def go() -> ResponseReturnValue:
    """HTML: straight there when it is clear, else the list. JSON: what there is, best first."""
    text = " ".join(request.args.get("q", "").split())[:200]
    nodes = read(lambda conn: node_list.named(conn, text, _SHOWN)) if text else []
    others = read(lambda conn: _others(conn, text))
    if request.accept_mimetypes.best == "application/json":
        found = others + [Found(name, f"/nodes/{id}", "node") for id, name in nodes]
        return jsonify([asdict(each) for each in found[: _SHOWN if text else None]])
    exact = [id for id, name in nodes if text in (id, name)]
    if len(exact) == 1 or len(nodes) == 1:
        return redirect(f"/nodes/{(exact or [nodes[0][0]])[0]}")
    if not nodes and len(others) == 1:
        return redirect(others[0].href)
    return redirect("/nodes?" + urlencode({"q": quoted(text)}) if text else "/nodes")


def _others(conn: Connection, text: str) -> list[Found]:
    """All but nodes. Without a text: pages and actions."""
    pages = [Found(link.name, link.path, "page") for link in (*LINKS, *OTHERS)]
    actions = [Found(link.name, link.path, "action") for link in ACTIONS]
    if not text:
        return pages + actions
    under_way = rollouts.in_states(conn, ATTENTION_ORDER)
    return [
        *_matching(pages, text),
        *_matching([*actions, *(move for each in under_way for move in _moves(each))], text)[:_EACH],
        *_matching((_rollout(each) for each in under_way), text)[:_EACH],
        *(Found(label_of(key), path_of(key), "service") for key in services.named(conn, text, _EACH)),
        *_matching((Found(each.name, f"/groups/{each.id}", "group") for each in groups.all_groups(conn)), text)[:_EACH],
    ]


def _matching(all_of_them: Iterable[Found], text: str) -> list[Found]:
    """Those with every word of the text in their name."""
    words = text.lower().split()
    return [each for each in all_of_them if all(word in each.name.lower() for word in words)]


def _rollout(rollout: Rollout) -> Found:
    return Found(f"Rollout {rollout.number}, {words_of(rollout)}", f"/rollouts/{rollout.number}", "rollout")


def _moves(rollout: Rollout) -> list[Found]:
    possible = possible_moves(rollout.state)
    return [
        Found(f"{verb} rollout {rollout.number}", f"/rollouts/{rollout.number}/{move.value}", "action")
        for move, verb in _MOVES.items()
        if move in possible
    ]
