"""A rollout on a time line: its nodes as they were at any moment. Without a script by links and a slider's form."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from app.core.errors import NotPossible
from app.core.rollout_progress import Passage, Progress, progress_at
from app.core.rollouts import RolloutNodeState, RolloutState
from app.store import rollout_cells
from app.store import rollouts as store
from app.store.rollout_cells import Cell
from app.store.rollouts import Rollout, RolloutEvent
from app.web.context import now, read
from app.web.live import live_page
from app.web.preferences import preferences
from app.web.rollout_show import found
from app.web.rollout_waves import MOST_CELLS, counts_of, totals, wave_rows
from app.web.rollout_words import event_kind, name

blueprint = Blueprint("rollout_replay", __name__)

FRAMES = 48
"""Steps from the start to the end: about half a minute when played."""
_SAMPLES = 120
"""Points of the curve."""
_EVENTS = 200
"""Of single nodes, the newest; and as many of the rollout itself, whose start is never lost among its nodes."""
_WIDTH, _HEIGHT = 1000, 72
"""Of the curve, in its own units."""


@blueprint.get("/rollouts/<key>/replay")
def show(key: str) -> ResponseReturnValue:
    rollout = read(partial(found, key=key))
    if rollout.state is RolloutState.DRAFT:
        raise NotPossible("draft", f"Rollout {rollout.number} is a draft: nothing has happened that could be replayed.")
    return _draw(rollout)


def _draw(rollout: Rollout) -> Response:
    topics = {"replay": (f"rollout:{rollout.id}",)}
    return live_page("rollouts/replay.html", topics, lambda: read(partial(_gather, rollout=rollout)))


def _gather(conn: Connection, rollout: Rollout) -> Mapping[str, Any]:
    passages = rollout_cells.passages(conn, rollout.id)
    line = time_line(rollout, now())
    at = line.moment(request.args.get("at", ""))
    cells = cells_at(passages, at)
    counts = counts_of(cells)
    base = f"/rollouts/{rollout.number}/nodes"
    events = _events(conn, rollout)
    return {
        "rollout": rollout,
        "name": name(rollout),
        "line": line,
        "at": at,
        "nodes": len(cells),
        "size": len(passages),
        "counts": totals(counts),
        "waves": wave_rows(counts, cells if len(cells) <= MOST_CELLS else None, base),
        "curves": curves([way for _, way in passages], line),
        "events": [(event, line.x(event.at)) for event in events if line.has(event.at)],
        "moment": line.words,
        "happened": _happened(events, at),
        "frame_s": line.frame_s,
        "mark": event_kind,
    }


def _events(conn: Connection, rollout: Rollout) -> list[RolloutEvent]:
    """Oldest first."""
    both = (store.events(conn, rollout.id, of_nodes=of_nodes, limit=_EVENTS) for of_nodes in (False, True))
    return sorted(chain.from_iterable(both), key=lambda event: event.id)


@dataclass(frozen=True, slots=True)
class TimeLine:
    """From the start to the end, or to now; whole seconds."""

    start: int
    end: int

    @property
    def frame_s(self) -> int:
        return max(1, (self.end - self.start) // FRAMES)

    def moment(self, text: str) -> int:
        """As the address names it, within the line; the start for anything else."""
        if not text.isdecimal() or len(text) > 12:
            return self.start
        return min(self.end, max(self.start, int(text)))

    def has(self, at: float) -> bool:
        """Also what began it: the line begins at the next whole second."""
        return self.start - 1 < at <= self.end

    def words(self, at: float) -> str:
        """The moment by the reader's clock, with its day where the line is longer than one, and with its second where
        frames are less than a minute apart."""
        first, last, then = (datetime.fromtimestamp(each, preferences().zone) for each in (self.start, self.end, at))
        clock = f"{then:%H:%M:%S}" if self.frame_s < 60 else f"{then:%H:%M}"
        return clock if first.date() == last.date() else f"{then:%a %d %b} {clock}"

    def x(self, at: float) -> float:
        """Where a moment stands on the curve."""
        return round(_WIDTH * max(0.0, at - self.start) / max(1, self.end - self.start), 1)

    def before(self, at: int) -> int | None:
        """One frame earlier; None at the start."""
        return max(self.start, at - self.frame_s) if at > self.start else None

    def after(self, at: int) -> int | None:
        return min(self.end, at + self.frame_s) if at < self.end else None


def time_line(rollout: Rollout, now: float) -> TimeLine:
    """Rounded up: at its first second all nodes of the start are in it, at its last one everything has happened."""
    start = math.ceil(rollout.started_at if rollout.started_at is not None else rollout.created_at)
    return TimeLine(start, max(start + 1, math.ceil(rollout.ended_at if rollout.ended_at is not None else now)))


def cells_at(passages: Sequence[tuple[Cell, Passage]], at: float) -> list[Cell]:
    """The nodes that were in it then, as far as they had come."""
    reached = ((cell, progress_at(way, at)) for cell, way in passages)
    return [replace(cell, progress=then) for cell, then in reached if then is not None]


def curves(ways: Sequence[Passage], line: TimeLine) -> list[tuple[Progress, str]]:
    """Areas of nodes that were done and that had failed, over time; points for `<polygon>`."""

    def area(state: RolloutNodeState) -> str:
        alike = [way for way in ways if way.state is state]
        came = sorted(way.ended_at for way in alike if way.ended_at is not None)
        went = sorted(way.back_at for way in alike if way.back_at is not None)
        return _area(came, went, len(ways), line)

    return [(Progress.DONE, area(RolloutNodeState.DONE)), (Progress.FAILED, area(RolloutNodeState.FAILED))]


def _area(came: list[float], went: list[float], size: int, line: TimeLine) -> str:
    points = []
    for place in range(_SAMPLES + 1):
        at = line.start + (line.end - line.start) * place / _SAMPLES
        nodes = max(0, bisect_right(came, at) - bisect_right(went, at))
        y = _HEIGHT * (1 - nodes / max(1, size))
        points.append(f"{_WIDTH * place / _SAMPLES:g},{y:.2f}")
    return f"0,{_HEIGHT} {' '.join(points)} {_WIDTH},{_HEIGHT}"


def _happened(events: Sequence[RolloutEvent], at: float) -> RolloutEvent | None:
    """The last thing that had happened by then."""
    past = [event for event in events if event.at <= at]
    return past[-1] if past else None
