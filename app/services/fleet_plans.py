"""The plan of the fleet as it is, shared by all who watch rollouts: it is made anew only when something changed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.core.plan import Plan
from app.core.planner import plan
from app.core.snapshot import Snapshot
from app.services.fleet_snapshot import gather
from app.services.kept_ways_back import with_kept
from app.store import kept_ways_back, revisions
from app.store.database import Database
from app.store.rollouts import Rollout

PACE_S = 30.0
"""A range of hours does not change within this, however much the fleet does; a plan of a large one takes seconds."""
_KEPT_S = 120.0
"""Beyond, time alone has made it another plan: windows open, soaks end."""
_FOLLOWED = ("freezes", "groups", "images", "nodes", "operations", "rollouts", "services")
"""Topics of all that a plan depends on."""
DECIDED = ("freezes", "groups")
"""Those of what people decide, seldom and at once: whoever ends a freeze sees what comes of it."""

Planner = Callable[[Snapshot], Plan]


class FleetPlans:
    """Safe between threads: while one plans, the others wait for its plan."""

    def __init__(self, planner: Planner = plan) -> None:
        self._planner = planner
        self._lock = threading.Lock()
        self._kept: tuple[Snapshot, Plan] | None = None
        self._revisions: dict[str, int] = {}

    def get(self, db: Database, now: float, rollout: Rollout | None = None) -> tuple[Snapshot, Plan]:
        """The fleet and its plan, as they are or were some seconds ago. `rollout`: in the state in which it is now, for
        nothing that was planned before it was started, resumed or sent back says anything of it."""
        with self._lock:
            kept = self._kept if self._kept is not None and _knows(self._kept[0], rollout) else None
            age_s = now - kept[1].at if kept is not None else None
            with db.read() as conn:
                found = revisions.of_topics(conn, _FOLLOWED)
            if kept is not None and age_s is not None and 0 <= age_s < self._good_for_s(found):
                return kept
            snapshot = gather(db, now)
            with db.read() as conn:
                snapshot = with_kept(snapshot, kept_ways_back.all_kept(conn))
            self._kept, self._revisions = (snapshot, self._planner(snapshot)), found
            return self._kept

    def _good_for_s(self, found: dict[str, int]) -> float:
        if found == self._revisions:
            return _KEPT_S
        return PACE_S if all(found.get(topic) == self._revisions.get(topic) for topic in DECIDED) else 0.0


def _knows(snapshot: Snapshot, rollout: Rollout | None) -> bool:
    return rollout is None or any((view.id, view.state) == (rollout.id, rollout.state) for view in snapshot.rollouts)
