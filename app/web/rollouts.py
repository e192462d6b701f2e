"""The list of rollouts: what is under way first, then drafts, then what has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from app.core.rollout_progress import Progress
from app.core.rollouts import TERMINAL, RolloutState
from app.store import rollout_counts
from app.store import rollouts as store
from app.store.rollouts import Rollout
from app.web.context import read
from app.web.live import live_page
from app.web.rollout_waves import Part, parts_of
from app.web.rollout_words import ATTENTION_ORDER, name, title

blueprint = Blueprint("rollouts", __name__)

_ENDED_ROWS = 30
_MOST_OPEN = 200
"""Under way or drafted; a person keeps fewer in mind."""
_PACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    rollout: Rollout
    whose: str
    what: str
    counts: dict[Progress, int]
    """Without those that left, for they are none of its nodes any more; of one that was aborted they are the rest."""
    parts: tuple[Part, ...]

    @property
    def nodes(self) -> int:
        return sum(self.counts.values())

    @property
    def reached(self) -> int:
        return self.counts.get(Progress.DONE, 0) + self.counts.get(Progress.BACK, 0)


@blueprint.get("/rollouts")
def index() -> Response:
    before = request.args.get("before", "")
    place = int(before) if before.isdecimal() and len(before) < 10 else None
    return live_page(
        "rollouts/index.html", {"rollouts": ("rollouts",)}, lambda: read(partial(_gather, before=place)), pace_s=_PACE_S
    )


def _gather(conn: Connection, before: int | None) -> Mapping[str, Any]:
    drafts = store.newest(conn, states=(RolloutState.DRAFT,), limit=_MOST_OPEN)
    ended = store.newest(conn, states=TERMINAL, before=before, limit=_ENDED_ROWS + 1)
    older = f"/rollouts?before={ended[_ENDED_ROWS - 1].number}" if len(ended) > _ENDED_ROWS else None
    return {
        "sections": [
            ("Under way", under_way(conn, _MOST_OPEN)),
            ("Drafts", rows(conn, drafts)),
            ("Ended", rows(conn, ended[:_ENDED_ROWS])),
        ],
        "older": older,
        "newer": "/rollouts" if before is not None else None,
        "name": name,
    }


def under_way(conn: Connection, most: int) -> list[Row]:
    """Rollouts that have been started and have not ended, what needs a person first."""
    found = store.newest(conn, states=ATTENTION_ORDER, limit=_MOST_OPEN)
    found.sort(key=lambda rollout: (ATTENTION_ORDER.index(rollout.state), -rollout.number))
    return rows(conn, found[:most])


def rows(conn: Connection, rollouts: list[Rollout]) -> list[Row]:
    """With the progress of each."""
    found = rollout_counts.progress_of(conn, [rollout.id for rollout in rollouts])
    return [_row(rollout, found[rollout.id]) for rollout in rollouts]


def _row(rollout: Rollout, progress: Mapping[Progress, int]) -> Row:
    whole = rollout.state is RolloutState.ABORTED
    counts = {each: number for each, number in progress.items() if whole or each is not Progress.LEFT}
    return Row(rollout, *title(rollout), counts, parts_of(counts, f"/rollouts/{rollout.number}/nodes"))
