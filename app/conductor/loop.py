"""The conductor: what has to happen without anybody asking. Any number of them may run on one PostgreSQL.

Each round, when something changed or a second has passed:

1. epochs: nodes that know newer orders than the database prove that it is an old one: freeze, begin a new epoch;
2. rollouts: what their nodes did, judged; orders given and taken back; who comes in and who goes; ways back; ends;
3. admission: return leases whose node was seen through, grant what fits now, tell the others why they wait;
4. services: which replicas came and went, and why;
5. clocks: count the time of open operations while their nodes could have been heard, and of the leases that are out;
6. claims of success that came too early: judge them when their soak is over by that count;
7. deadlines: end operations that took too long;
8. cancelled operations that their node never got: end them;
9. presence: nodes whose gateway died and that did not come back are offline;
10. declarations that nodes have outdone, and pins that are over: remove them;
11. samples for the chart of versions;
12. retention, once an hour.

Each step stands alone: it reads what is due, claims it by a conditional change in one transaction, and may be
killed anywhere and repeated. An error in one is logged and leaves the others alone; with the database away all
wait and try again. Steps that follow topics are left out while nothing of that has changed (see `changes`), so that
a round over a fleet at rest is a handful of queries.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from app.conductor.changes import Changes, Seen
from app.conductor.gates import Gatekeeper
from app.services import claims, deadlines, declare, epochs, fleet, leases, retention, rollout_steps
from app.services.admission import Admission
from app.services.service_watch import ServiceWatch
from app.store.database import Database
from app.store.nudges import EVERYTHING
from app.store.outage import is_away

log = structlog.get_logger(__name__)

_ROUND_S = 1.0
"""Without a nudge: a lost one costs this much delay at most (rule 8)."""
_REST_S = 0.05
"""Between two rounds: a storm of nudges becomes at most twenty rounds a second."""
_REST = 1.5
"""At least so many times as long as the round took: of a large fleet's nudges the conductor takes less than half of a
core."""
_AWAY_S = 2.0
"""Between two tries while the database is away."""
_WAKING = frozenset({"operations", EVERYTHING})
"""Topics that may mean work for us."""
_NODES = frozenset({"nodes"})
_OPERATIONS = frozenset({"operations"})
_EPOCHS = frozenset({"nodes", "operations", "freezes"})

Step = Callable[[Database, float], object]


@dataclass(slots=True)
class _Loop:
    """One reconcile step and how often it looks (seconds). One that follows topics looks when they changed, and
    otherwise after `patience_s`, for time alone may have made something due."""

    name: str
    step: Step
    every_s: float
    follows: frozenset[str] = frozenset()
    patience_s: float = 0.0
    ran_at: float | None = None
    seen: Seen | None = None
    """What it followed when it last began, and ended well."""

    def due(self, now: float) -> bool:
        """Also when it ran in the future: then the clock was set back."""
        return self.ran_at is None or not 0 <= now - self.ran_at < self.every_s

    def may_rest(self, seen: Seen, now: float) -> bool:
        """Whether there is nothing new for it (to be asked when it is due)."""
        waited_s = 0.0 if self.ran_at is None else now - self.ran_at
        return self.seen == seen and 0 <= waited_s < self.patience_s


class Conductor:
    """Runs in the thread that calls `run`; see the module for what it does."""

    def __init__(self, db: Database, clock: Callable[[], float] = time.time) -> None:
        self._db = db
        self._clock = clock
        self._wake = threading.Event()
        self._gatekeeper = Gatekeeper(db)
        self._admission, self._services = Admission(self._gatekeeper.holds), ServiceWatch()
        self._loops = [
            _Loop("epochs", epochs.start_when_needed, 1.0, _EPOCHS, 5.0),
            *(_Loop(one.name, one.step, one.every_s, one.follows, one.patience_s) for one in rollout_steps.STEPS),
            _Loop("admission", self._admission.tick, 0.0),
            _Loop("services", self._services.step, 1.0),
            _Loop("clocks", deadlines.advance_clocks, 1.0),
            _Loop("lease-clock", leases.count_time, 1.0),
            _Loop("claims", claims.settle, 1.0, _OPERATIONS, 5.0),
            _Loop("deadlines", deadlines.end_overdue, 1.0),
            _Loop("cancelled", deadlines.end_unowned, 5.0),
            _Loop("presence", deadlines.mark_gone, 5.0),
            _Loop("declarations", declare.end_declarations, 5.0, _NODES, 30.0),
            _Loop("pins", deadlines.remove_expired_pins, 1.0, _NODES, 5.0),
            _Loop("samples", fleet.sample_versions, 20.0),
            _Loop("retention", retention.remove_old, 3600.0),
        ]
        self._changes = Changes(frozenset().union(*(loop.follows for loop in self._loops)))

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; a round under way ends first."""
        unsubscribe = self._db.nudges.subscribe(self._nudged)
        gates = threading.Thread(target=self._gatekeeper.run, args=(stop,), name="gates", daemon=True)
        gates.start()
        try:
            while not stop.is_set():
                self._wake.clear()
                began = time.monotonic()
                away = not self.round()
                took_s = time.monotonic() - began
                stop.wait(_AWAY_S if away else max(_REST_S, _REST * took_s))
                self._wait(stop)
        finally:
            unsubscribe()
            gates.join(timeout=_AWAY_S)

    def round(self) -> bool:
        """Do what is due once; False when the database is away."""
        now = self._clock()
        self._changes.begin_round()
        return all(self._run(loop, now) for loop in self._loops if loop.due(now))

    def _run(self, loop: _Loop, now: float) -> bool:
        try:
            seen = self._changes.seen(self._db, loop.follows) if loop.follows else None
            if seen is not None and loop.may_rest(seen, now):
                return True
            loop.seen = None  # until it has ended well
            loop.step(self._db, now)
            loop.seen = seen
        except Exception as error:
            if is_away(error):
                log.warning("database-away", step=loop.name, error=str(error).splitlines()[0])
                return False
            log.exception("step-failed", step=loop.name)
        loop.ran_at = now
        return True

    def _nudged(self, topics: frozenset[str]) -> None:
        self._changes.note(topics)
        self._admission.note(topics)
        self._services.note(topics)
        if not topics.isdisjoint(_WAKING):
            self._wake.set()

    def _wait(self, stop: threading.Event) -> None:
        """Until a nudge, the next second or the stop, which is seen within a quarter of a second."""
        until = time.monotonic() + _ROUND_S
        while not stop.is_set() and time.monotonic() < until and not self._wake.wait(0.25):
            pass
