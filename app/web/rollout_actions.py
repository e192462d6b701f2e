"""What an operator does with a rollout: a page for each action, shown as a dialog where scripts run.

Each says before what stops now, what will still finish, and where nodes go back to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from flask import Blueprint, redirect, request
from flask.typing import ResponseReturnValue

from app.core.errors import Invalid, NotFound, NotPossible
from app.core.rollouts import TERMINAL, Move, RolloutKind, RolloutState, possible_moves
from app.services import rollout_reverse, rollout_start, services
from app.services import rollouts as service
from app.services.rollout_preview import preview
from app.store import node_list, rollout_counts
from app.store import rollouts as store
from app.store.rollouts import Rollout
from app.web import rollout_floors
from app.web.context import actor, console, now, read
from app.web.form_pages import draw_form, submit
from app.web.forms import reason
from app.web.rollout_floors import overrides_floor
from app.web.rollout_plan import broad_words
from app.web.rollout_plan_view import plan_view
from app.web.rollout_show import found
from app.web.rollout_stopped import cannot_resume, cannot_reverse
from app.web.rollout_words import finishes, name, stays, touched

blueprint = Blueprint("rollout_actions", __name__)

PAGE = "rollouts/action.html"
_NAMED = 8


class Action(StrEnum):
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ROLL_BACK = "roll-back"
    REVERSE = "reverse"
    LEAVE_OUT = "leave-out"
    ALLOW_SINGLE = "allow-single"
    BREAK_GLASS = "break-glass"
    OVERRIDE_FLOOR = "override-floor"


@dataclass(frozen=True, slots=True)
class Page:
    """How an action is asked for. `text` says what it does and what it does not."""

    title: str
    button: str
    text: str
    change: Callable[[Rollout], str | None]
    """Does what the form says; the id of a rollout that it made, to go there."""
    dangerous: bool = False
    needs_reason: bool = True


def _start(rollout: Rollout) -> None:
    wanted = _typed_name(rollout)
    if wanted and request.form.get("confirm", "").strip() != wanted:
        raise Invalid("confirm", f"Type {wanted} to start it. Nothing was started.")
    anyway = request.form.get("anyway") == "yes"
    rollout_start.start(console().db, actor(), rollout.id, reason(needed=False), now(), start_anyway=anyway)


def _pause(rollout: Rollout) -> None:
    service.pause(console().db, actor(), rollout.id, reason(needed=False), now())


def _resume(rollout: Rollout) -> None:
    halted = rollout.state is RolloutState.HALTED
    service.resume(console().db, actor(), rollout.id, reason(needed=halted), now())


def _abort(rollout: Rollout) -> None:
    service.abort(console().db, actor(), rollout.id, reason(), now())


def _roll_back(rollout: Rollout) -> str | None:
    """The whole, or one wave of it by a rollout of its own."""
    if _wave() is not None:
        return _reverse(rollout)
    service.roll_back(console().db, actor(), rollout.id, reason(), now(), override_floor=overrides_floor())
    return None


def _reverse(rollout: Rollout) -> str:
    return rollout_reverse.reverse(
        console().db, actor(), rollout.id, reason(), now(), wave=_wave(), override_floor=overrides_floor()
    )


def _wave() -> int | None:
    """The one that was chosen; None: all of it."""
    wave = request.form.get("wave", "")
    if wave and not (wave.isascii() and wave.isdecimal() and len(wave) < 9):
        raise NotPossible("no-wave", f"“{wave}” is no wave. Nothing was rolled back.")
    return int(wave) if wave else None


def _leave_out(rollout: Rollout) -> None:
    service.leave_out(console().db, actor(), rollout.id, request.form.get("node", ""), reason(), now())


def _allow_single(rollout: Rollout) -> None:
    key = request.form.get("scope", ""), request.form.get("name", "")
    _of_service(rollout)
    service.allow_single(console().db, actor(), rollout.id, key, reason(), now())


def _break_glass(rollout: Rollout) -> None:
    wanted = request.form.get("break_glass", "")  # as it was asked: the same request twice is the same wish
    if wanted not in ("yes", "no"):
        raise NotPossible("not-said", "Say whether it passes freezes and windows. Nothing was changed.")
    service.set_break_glass(console().db, actor(), rollout.id, wanted == "yes", reason(), now())


PAGES: dict[Action, Page] = {
    Action.START: Page(
        "Start rollout {number}",
        "Start",
        "It plans anew at every step and moves only what nothing holds. Pausing, aborting and rolling back are possible"
        " at any time.",
        _start,
        needs_reason=False,
    ),
    Action.PAUSE: Page(
        "Pause rollout {number}",
        "Pause",
        "No further node is armed, and leases that have not been used are taken back. Staging goes on, so that it"
        " continues quickly.",
        _pause,
        needs_reason=False,
    ),
    Action.RESUME: Page(
        "Resume rollout {number}",
        "Resume",
        "It goes on where it stopped; what is staged is not downloaded again.",
        _resume,
        needs_reason=False,
    ),
    Action.ABORT: Page(
        "Abort rollout {number}",
        "Abort",
        "It ends where it is, for good: nodes that have moved keep the new version, the others keep theirs. What is"
        " staged is made unbootable.",
        _abort,
        dangerous=True,
    ),
    Action.ROLL_BACK: Page(
        "Roll back rollout {number}",
        "Roll back",
        "Windows, freezes, gates and version edges do not stop it; floors hold, and removing unhealthy replicas costs"
        " none. Nodes that have not moved stay as they are.",
        _roll_back,
        dangerous=True,
    ),
    Action.REVERSE: Page(
        "Roll back rollout {number}",
        "Roll back",
        "It has ended, so a reverse rollout is started, linked with it. Windows, freezes, gates and version edges do"
        " not stop it; floors hold.",
        _reverse,
        dangerous=True,
    ),
    Action.LEAVE_OUT: Page(
        "Leave a node out of rollout {number}",
        "Leave it out",
        "The node stays as it is; the others go on without it.",
        _leave_out,
    ),
    Action.ALLOW_SINGLE: Page(
        "Let a single replica move in rollout {number}",
        "Allow it",
        "The service has one replica. While its node moves, the service is away. This holds for this rollout only.",
        _allow_single,
        dangerous=True,
    ),
    Action.BREAK_GLASS: Page(
        "Break glass in rollout {number}",
        "Save",
        "Whether it passes freezes and maintenance windows. Floors and budgets hold in any case.",
        _break_glass,
        dangerous=True,
    ),
    Action.OVERRIDE_FLOOR: Page(
        "Override floors in rollout {number}",
        "Let them go back",
        "Its ways back go on although services fall below their floors, and where nobody knows what runs on a node,"
        " also those that are still to come. Budgets hold. The audit log says who and why.",
        rollout_floors.override,
        dangerous=True,
    ),
}


@blueprint.get("/rollouts/<key>/<action>")
def ask(key: str, action: str) -> ResponseReturnValue:
    return draw_form(PAGE, _gather(read(partial(found, key=key)), _known(action)))


@blueprint.post("/rollouts/<key>/<action>")
def do(key: str, action: str) -> ResponseReturnValue:
    known = _known(action)
    rollout = read(partial(found, key=key))
    made: list[str] = []

    def change() -> None:
        new_id = PAGES[known].change(rollout)
        if new_id is not None:
            made.append(new_id)

    response = submit(PAGE, partial(_gather, rollout, known), f"/rollouts/{rollout.number}", change)
    if not made:
        return response
    reverse = read(lambda conn: store.get(conn, made[0]))
    return redirect(f"/rollouts/{reverse.number}", 303) if reverse else response


def _known(action: str) -> Action:
    if action not in tuple(Action):
        raise NotFound("action", action)
    return Action(action)


def refusal(rollout: Rollout, action: Action) -> str:
    """Why the state of the rollout forbids it; empty where it does not. The services check again."""
    words = rollout.state.value.replace("-", " ")
    if action is Action.OVERRIDE_FLOOR:
        return rollout_floors.refusal(rollout)
    if action in (Action.LEAVE_OUT, Action.ALLOW_SINGLE, Action.BREAK_GLASS):
        return f"Rollout {rollout.number} has ended ({words})." if rollout.state in TERMINAL else ""
    if action in (Action.REVERSE, Action.ROLL_BACK) and rollout.kind is RolloutKind.ROLLBACK:
        return f"Rollout {rollout.number} leads back. Compose a rollout to the version that you want instead."
    if action is Action.REVERSE:
        if rollout.kind is RolloutKind.REBOOT:
            return "A reboot changed no version: there is nothing to roll back."
        ended = rollout.state in TERMINAL and rollout.started_at is not None
        return "" if ended else f"Rollout {rollout.number} is {words}: roll it back itself."
    possible = Move(action.value) in possible_moves(rollout.state)
    return "" if possible else f"Rollout {rollout.number} is {words}."


def _gather(rollout: Rollout, action: Action) -> Mapping[str, Any]:
    refused = refusal(rollout, action)
    if action is Action.RESUME and not refused:
        refused = read(lambda conn: cannot_resume(conn, rollout))
    if action is Action.REVERSE and not refused:
        refused = read(lambda conn: cannot_reverse(conn, rollout))
    values: dict[str, Any] = {
        "rollout": rollout,
        "name": name(rollout),
        "action": action.value,
        "asked": PAGES[action],
        "refused": refused,
        "counts": {},
        "stays": 0,
        "finishes": 0,
        "touched": 0,
        "finishing": [],
        "ways_back": [],
        "waves": [],
        "start": None,
        "node": None,
        "standing": None,
        "service": (request.values.get("scope", ""), request.values.get("name", "")),
        "halted": rollout.state is RolloutState.HALTED,
        **rollout_floors.NOTHING,
    }
    if refused:
        return values
    return {**values, **_FIGURES.get(action, _nothing)(rollout)}


def _nothing(rollout: Rollout) -> Mapping[str, Any]:
    return {}


def _of_moves(rollout: Rollout) -> Mapping[str, Any]:
    counts = read(lambda conn: rollout_counts.progress_of(conn, [rollout.id]))[rollout.id]
    finishing = service.still_finishing(console().db, rollout.id)
    return {
        "counts": counts,
        "stays": stays(counts),
        "finishes": max(finishes(counts), len(finishing)),
        "touched": touched(counts),
        "finishing": finishing[:_NAMED],
    }


def _of_ways_back(rollout: Rollout) -> Mapping[str, Any]:
    ways, waves = read(
        lambda conn: (rollout_counts.ways_back(conn, rollout.id), rollout_counts.moved_waves(conn, rollout.id))
    )
    return {**_of_moves(rollout), **rollout_floors.of_roll_back(rollout), "ways_back": ways, "waves": waves}


@dataclass(frozen=True, slots=True)
class Start:
    """What the dialog of starting says."""

    moving: int
    canaries: int
    waves: int
    held: int
    frozen: int
    """Nodes that wait for the end of a freeze that has none yet."""
    left: int
    never: int
    whole: bool
    """Nothing could ever move."""
    tight: tuple[str, ...]
    """Services that it takes to their floor."""
    typed: str
    """What must be typed; empty: nothing."""
    broad: str
    """Why."""


def _of_start(rollout: Rollout) -> Mapping[str, Any]:
    seen = preview(console().db, rollout.id, now())
    view = plan_view(seen.snapshot, seen.plan, rollout.id, "")
    never = seen.impossible_nodes()
    frozen = min(view.held, sum(each.count for each in view.frozen))
    nodes = view.moving + view.held  # held ones may move later
    group_size = nodes + len(seen.left) if rollout.group_id is not None else None
    broad = broad_words(nodes, group_size, len(seen.snapshot.nodes))
    start = Start(
        moving=view.moving,
        canaries=sum(node.wave == 0 for node in view.nodes),
        waves=view.number_of_waves,
        held=view.held - frozen,
        frozen=frozen,
        left=len(seen.left),
        never=len(never),
        whole=bool(never) and never.issuperset(facts.id for facts in seen.entering),
        tight=tuple(row.name for row in view.worst if row.tight),
        typed=_confirmed_by(rollout) if broad else "",
        broad=broad,
    )
    return {"start": start}


def _typed_name(rollout: Rollout) -> str:
    if rollout.state is not RolloutState.DRAFT:
        return ""  # the service says what is wrong
    start = _of_start(rollout)["start"]
    assert isinstance(start, Start)
    return start.typed


def _confirmed_by(rollout: Rollout) -> str:
    return rollout.group_name or f"rollout {rollout.number}"


def _of_node(rollout: Rollout) -> Mapping[str, Any]:
    id = request.values.get("node", "")
    names = read(lambda conn: node_list.names(conn, {id}))
    if id not in names:
        raise NotFound("node", id)
    return {"node": (id, names[id])}


def _of_service(rollout: Rollout) -> Mapping[str, Any]:
    """NotFound when no container, and no word of an operator, is of the service that it names."""
    asked = request.values.get("scope", ""), request.values.get("name", "")
    if not asked[1]:
        raise NotPossible("no-service", "Choose the service on the plan. Nothing was changed.")
    seen = preview(console().db, rollout.id, now()).snapshot.services
    view = next((view for view in seen if view.key == asked), None)
    return {"standing": view if view is not None else read(lambda conn: services.one(conn, asked, now())).view}


_FIGURES: dict[Action, Callable[[Rollout], Mapping[str, Any]]] = {
    Action.START: _of_start,
    Action.PAUSE: _of_moves,
    Action.RESUME: _of_moves,
    Action.ABORT: _of_moves,
    Action.ROLL_BACK: _of_ways_back,
    Action.REVERSE: _of_ways_back,
    Action.LEAVE_OUT: _of_node,
    Action.ALLOW_SINGLE: _of_service,
    Action.OVERRIDE_FLOOR: rollout_floors.of_override,
}
"""What the page of an action says of nodes."""
