"""What an operator says of a node that cannot say it itself: what runs on it, and that it is lost or found again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from app.core.errors import Invalid, NotFound
from app.core.operations import Action, refusal
from app.core.services import label_of
from app.core.snapshot import ServiceKey
from app.services import declare
from app.services.declare import Declared
from app.store import declared
from app.store.declared import Standing
from app.web.context import actor, console, now, read
from app.web.form_pages import draw_form, submit
from app.web.forms import reason
from app.web.node_page import found

blueprint = Blueprint("node_declare", __name__)

PAGE = "nodes/declare.html"


@dataclass(frozen=True, slots=True)
class Verb:
    """How it is asked for."""

    title: str
    button: str
    text: str
    action: Action
    change: Callable[[str], None]
    not_now: Callable[[Standing, bool], str]
    """(what is declared, whether the node says itself what runs on it) → why it cannot be said now, or nothing."""
    dangerous: bool = False


def read_declared(text: str) -> Declared:
    """One service a line: `scope/name replicas`; without a number it is one. Invalid names the line."""
    return [_service(line) for line in text.splitlines() if line.strip()]


def _service(line: str) -> tuple[ServiceKey, int]:
    name, _, number = line.strip().rpartition(" ")
    if not name:
        name, number = number, "1"
    if not number.isdecimal() or len(number) > 6:
        raise Invalid("declared", f"“{line.strip()}” does not end in a number of replicas, as in shop/db 2.")
    scope, _, service = name.strip().rpartition("/")
    return (scope, service), int(number)


def as_lines(runs: tuple[tuple[str, str, int], ...] | None) -> str:
    """As `read_declared` takes it."""
    return "\n".join(f"{label_of((scope, name))} {replicas}" for scope, name, replicas in runs or ())


def _declare(node_id: str) -> None:
    text = request.form.get("declared", "")
    runs = read_declared(text)
    if not runs and request.form.get("nothing") != "yes":
        raise Invalid("declared", "Name the services, or tick that no service runs on it.")
    if runs and request.form.get("nothing") == "yes":
        raise Invalid("declared", "Either services are named, or none runs on it.")
    declare.declare_placement(console().db, actor(), node_id, runs, reason(), now())


def _plain(change: Callable[..., None], needed: bool) -> Callable[[str], None]:
    def run(node_id: str) -> None:
        change(console().db, actor(), node_id, reason(needed=needed), now())

    return run


VERBS: dict[str, Verb] = {
    "declare": Verb(
        "What runs on {name}",
        "Declare it",
        "The node cannot say what runs on it, so nothing there is moved. What you declare counts for the floors of its"
        " services until the node says it itself.",
        Action.DECLARE,
        _declare,
        lambda said, known: "It says itself what runs on it; nothing is declared." if known else "",
    ),
    "withdraw-declaration": Verb(
        "Withdraw what was declared of {name}",
        "Withdraw it",
        "What runs on the node is unknown again, and nothing there is moved until it is known.",
        Action.DECLARE,
        _plain(declare.withdraw_declaration, needed=False),
        lambda said, known: "Nothing is declared of it." if said.runs is None else "",
    ),
    "lost": Verb(
        "Declare {name} lost",
        "It is lost",
        "It leaves the size and the budget of its groups, and rollouts go on without it. Plans list it. When it"
        " connects again it counts again by itself.",
        Action.LOST,
        _plain(declare.declare_lost, needed=True),
        lambda said, known: "It is declared lost already." if said.lost_at is not None else "",
        dangerous=True,
    ),
    "found": Verb(
        "{name} is found",
        "It is found",
        "It counts again: while it is not up it takes from the budget of its groups.",
        Action.LOST,
        _plain(declare.declare_found, needed=False),
        lambda said, known: "It is not declared lost." if said.lost_at is None else "",
    ),
}

_VERB = '<any(declare,"withdraw-declaration",lost,found):verb>'


@blueprint.get(f"/nodes/<node_id>/{_VERB}")
def ask(node_id: str, verb: str) -> ResponseReturnValue:
    return draw_form(PAGE, read(partial(_asked, node_id=node_id, verb=verb)))


@blueprint.post(f"/nodes/<node_id>/{_VERB}")
def say(node_id: str, verb: str) -> ResponseReturnValue:
    gather = partial(read, partial(_asked, node_id=node_id, verb=verb))
    return submit(PAGE, gather, f"/nodes/{node_id}", partial(VERBS[verb].change, node_id))


def _asked(conn: Connection, node_id: str, verb: str) -> Mapping[str, Any]:
    if verb not in VERBS:
        raise NotFound("action", verb)
    node, asked = found(conn, node_id), VERBS[verb]
    standing = declared.standing(conn, node_id)
    refused = refusal(asked.action, node)
    return {
        "node": node,
        "action": verb,
        "asked": asked,
        "refused": refused.text if refused is not None else asked.not_now(standing, node.placement_known),
        "declared": standing,
        "lines": as_lines(standing.runs),
    }
