"""A rollout that runs or has ended, and the lists of its nodes. Drafts show their plan (app.web.rollout_plan)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Response, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from app.core.errors import NotFound
from app.core.group_policy import GroupPolicy
from app.core.holds import HoldCode
from app.core.rollout_ends import failures_allowed
from app.core.rollout_progress import Progress
from app.core.rollouts import TERMINAL, RolloutKind, RolloutState
from app.services.rollout_ending import mending_words
from app.store import groups, rollout_cells, rollout_counts, rollout_facts
from app.store import rollouts as store
from app.store.rollout_cells import RolloutNode, Wanted
from app.store.rollouts import Rollout
from app.web.context import now, read
from app.web.htmx import render
from app.web.live import live_page
from app.web.rollout_floors import held
from app.web.rollout_holds import WORDS, frees_most, hold_rows
from app.web.rollout_outlook import outlook, planned_worst
from app.web.rollout_rate import rate
from app.web.rollout_stopped import cannot_resume, cannot_reverse, lasting, offered, stopped_words
from app.web.rollout_waves import MOST_CELLS, totals, wave_rows
from app.web.rollout_words import event_kind, failure_words, finishes, name, policy_lines, stays, title

_EVENTS = 12
_FAILURES = 5
_FLIPS = 12
"""On a phone each is a line above the history."""
_LIST_ROWS = 200
_MOMENT_S = 60.0
"""Rates and silence depend on the clock."""
_PACE_S = 1.0


def found(conn: Connection, key: str) -> Rollout:
    """By its number, or its id; NotFound when there is none."""
    by_number = key.isdecimal() and len(key) < 10
    rollout = store.by_number(conn, int(key)) if by_number else store.get(conn, key)
    if rollout is None:
        raise NotFound("rollout", key)
    return rollout


def watch(rollout: Rollout) -> Response:
    """The page of a rollout that has been started."""
    topics = {"rollout": (f"rollout:{rollout.id}", "operations")}
    return live_page(
        "rollouts/show.html",
        topics,
        lambda: read(partial(_gather, key=rollout.id)),
        moment_s=None if rollout.state in TERMINAL else _MOMENT_S,
        pace_s=_PACE_S,
    )


def _gather(conn: Connection, key: str) -> Mapping[str, Any]:
    rollout = found(conn, key)
    counts = rollout_cells.wave_counts(conn, rollout.id)
    sums = totals(counts)
    nodes = sum(sums.values())
    base = f"/rollouts/{rollout.number}/nodes"
    cells = rollout_cells.cells(conn, rollout.id) if nodes <= MOST_CELLS else None
    holds = lasting(rollout, rollout_cells.held_groups(conn, rollout.id))
    stuck = cannot_resume(conn, rollout)
    moves = offered(rollout, stuck)
    events = store.events(conn, rollout.id, limit=_EVENTS + 1)
    flips, more_flips = rollout_cells.on_the_way(conn, rollout.id, _FLIPS)
    return {
        "rollout": rollout,
        "name": name(rollout),
        "whose": title(rollout)[0],
        "what": title(rollout)[1],
        "counts": sums,
        "nodes": nodes,
        "waves": wave_rows(counts, cells, base),
        "base": base,
        "holds": hold_rows(holds, base),
        "waiting": stays(sums),
        "finishing": finishes(sums),
        "held": sum(group.nodes for group in holds),
        "frees": frees_most(holds),
        "flips": flips,
        "more_flips": more_flips,
        "failures": rollout_counts.failures(conn, rollout.id, _FAILURES),
        "limit": _limit(conn, rollout),
        "rate": rate(conn, rollout, now()),
        "outlook": partial(outlook, rollout),
        "worst": planned_worst(rollout),
        "events": events[:_EVENTS],
        "older": len(events) > _EVENTS,
        "policy": policy_lines(rollout.policy, _group(conn, rollout)),
        "possible": moves,
        "stuck": stuck,
        "stopped": stopped_words(rollout, moves),
        "back_waits": rollout_cells.waits_to_go_back(conn, rollout.id),
        "floor_waits": held(conn, rollout),
        "mending": mending_words(conn, rollout, now()),
        "ended": rollout.state in TERMINAL,
        "name_of": name,
        "mark": event_kind,
        **_ways_back(conn, rollout),
    }


def _ways_back(conn: Connection, rollout: Rollout) -> Mapping[str, Any]:
    """What it leads back from, what leads back from it, and what of it could still go back."""
    return {
        "source": store.get(conn, rollout.source_id) if rollout.source_id else None,
        "reverses": store.reverses_of(conn, rollout.id),
        "goes_back": _goes_back(conn, rollout),
        "elsewhere": _elsewhere(conn, rollout),
    }


def _goes_back(conn: Connection, rollout: Rollout) -> bool:
    """Whether a reverse rollout is offered: as long as some run what it led to."""
    if rollout.kind is not RolloutKind.UPDATE or rollout.state not in TERMINAL - {RolloutState.ROLLED_BACK}:
        return False
    return not cannot_reverse(conn, rollout)


def _elsewhere(conn: Connection, rollout: Rollout) -> int:
    """Nodes that are done in it and run another version by now, where it has ended and did not go back itself."""
    ended = rollout.state in TERMINAL - {RolloutState.ROLLED_BACK}
    return rollout_facts.done_and_elsewhere(conn, rollout.id) if ended else 0


def _group(conn: Connection, rollout: Rollout) -> tuple[str, GroupPolicy] | None:
    """Its name and policy as they are now, where it moves the nodes of a group that there still is."""
    group = groups.get(conn, rollout.group_id) if rollout.selector and rollout.group_id else None
    return (group.name, group.policy) if group is not None else None


@dataclass(frozen=True, slots=True)
class FailureLimit:
    failed: int
    allowed: int
    attempted: int
    words: str

    @property
    def left(self) -> int:
        return max(0, self.allowed - self.failed)


def _limit(conn: Connection, rollout: Rollout) -> FailureLimit:
    attempted, failed = rollout_counts.failed(conn, rollout.id)
    return FailureLimit(failed, failures_allowed(rollout.policy, attempted), attempted, failure_words(rollout.policy))


# --- lists of its nodes -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What an address of a list says; what is wrong in it does not count."""

    wanted: Wanted
    offset: int

    @property
    def words(self) -> str:
        """Which nodes these are."""
        parts = []
        if self.wanted.progress is not None:
            parts.append(self.wanted.progress.words)
        if self.wanted.hold is not None:
            parts.append(WORDS[self.wanted.hold].title.lower())
        if self.wanted.waves is not None:
            first, last = self.wanted.waves
            parts.append(
                "canaries" if first == last == 0 else f"wave {first}" if first == last else f"waves {first}–{last}"
            )
        return ", ".join(parts) or "all nodes"


def asked() -> Asked:
    """Of this request."""
    args = request.args
    progress, hold, offset = args.get("state", ""), args.get("hold", ""), args.get("from", "")
    return Asked(
        Wanted(
            progress=Progress(progress) if progress in tuple(Progress) else None,
            waves=_waves(args.get("wave", "")),
            hold=HoldCode(hold) if hold in tuple(HoldCode) else None,
            subject=args.get("subject"),
        ),
        int(offset) if offset.isdecimal() and len(offset) < 9 else 0,
    )


def _waves(text: str) -> tuple[int, int] | None:
    first, _, last = text.partition("-")
    last = last or first
    if not (first.isdecimal() and last.isdecimal() and len(first) < 9 and len(last) < 9):
        return None
    return int(first), int(last)


def _draw_list(rollout: Rollout, asked: Asked, rows: list[RolloutNode], total: int) -> str:
    """The page of a list; `rows` are those from `asked.offset` on."""
    args = {name: value for name, value in request.args.items() if name != "from"}
    return render(
        "rollouts/nodes.html",
        rollout=rollout,
        name=name(rollout),
        asked=asked,
        rows=rows,
        total=total,
        args=args,
        step=_LIST_ROWS,
        leaves=rollout.state not in TERMINAL,
    )


def list_rows(rollout: Rollout) -> ResponseReturnValue:
    """Nodes of a rollout that has been started, as the address wants them."""
    wanted = asked()

    def gather(conn: Connection) -> tuple[list[RolloutNode], int]:
        rows = rollout_cells.listed(conn, rollout.id, wanted.wanted, limit=_LIST_ROWS, offset=wanted.offset)
        return rows, rollout_cells.count(conn, rollout.id, wanted.wanted)

    return _draw_list(rollout, wanted, *read(gather))
