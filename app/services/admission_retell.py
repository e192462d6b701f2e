"""Telling anew why nodes wait: a large queue asks once in ten minutes, and the reason it was given then is soon untrue.

Only what rollouts and pages say changes. The node itself hears nothing: its next request is answered as ever.
"""

from __future__ import annotations

import math

from app.core.holds import Hold
from app.core.planner import Standing, admit
from app.core.planning.gates import canaries_over
from app.core.rollouts import ACTIVE
from app.services.admission_view import FleetView
from app.store import rollout_holds
from app.store.database import Database, Priority

RETELL_S = 30.0
"""Between two looks: each goes over all that wait."""
_BATCH = 200

Stages = tuple[tuple[str, bool, bool], ...]
"""Of each rollout: id, whether canaries are to come, whether the canaries' own soak goes on."""


def retell(db: Database, view: FleetView, standing: Standing, now: float) -> int:
    """Store for every node of a rollout that was told to wait what it waits for now; how many reasons changed."""
    holds = _holds(view, standing, now)
    with db.read() as conn:
        stored = rollout_holds.of_ordered(conn, {rollout_id for rollout_id, _ in holds})
    told = {key: rollout_holds.as_json(hold, stored[key]) for key, hold in holds.items() if key in stored}
    different = [(*key, why) for key, why in told.items() if stored[key] != why]
    for start in range(0, len(different), _BATCH):
        some = different[start : start + _BATCH]
        with db.write(Priority.BACKGROUND) as change:
            rollout_holds.put_anew(change.conn, some)
            for rollout_id in sorted({rollout_id for rollout_id, _, _ in some}):
                change.touch(f"rollout:{rollout_id}")
            for _, node_id, _ in some:
                change.touch(f"node:{node_id}")
    return len(different)


def stages(standing: Standing) -> Stages:
    """When this changes, what most nodes wait for has changed: all are told then, and not in half a minute."""
    return tuple(
        (rollout.id, rollout.canaries_left > 0, (canaries_over(rollout) or 0.0) > standing.now)
        for rollout in standing.rollouts
        if not rollout.direct
    )


def stage_ends_at(standing: Standing) -> float:
    """When the next soak of canaries that are through is over; `inf`: none goes on."""
    ends = [canaries_over(rollout) or 0.0 for rollout in standing.rollouts if rollout.state in ACTIVE]
    return min((end for end in ends if end > standing.now), default=math.inf)


def _holds(view: FleetView, standing: Standing, now: float) -> dict[tuple[str, str], Hold]:
    """By rollout and node, of those that were told to wait; whoever may go now is called instead."""
    waiting = set()
    for place, candidate in enumerate(standing.candidates):
        asking = view.asking.get(candidate.operation_id)
        if asking is not None and asking.answered and asking.waits(now):
            waiting.add(place)
    if not waiting:
        return {}
    found = {}
    for place, hold in admit(standing, also=waiting).holds.items():
        candidate = standing.candidates[place]
        rollout = standing.rollouts[candidate.rollout]
        if place in waiting and not rollout.direct:
            found[rollout.id, standing.nodes[candidate.node].id] = hold
    return found
