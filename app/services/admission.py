"""Admission: who of those that ask may go down now. Plans on a view of the fleet, grants only what the database bears.

Each tick: bring the view up to date by what changed, let the planner choose (core.planner.admit), grant in one
transaction that looks at everything again (admission_apply), and tell the others what they wait for. The view may be
old or wrong; that costs a tick and never a replica.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from app.core.group_policy import PrometheusGate
from app.core.holds import Hold
from app.core.leases import ANSWER_WITHIN_S, Asking, retry_s
from app.core.planner import Admissions, Standing, admit
from app.core.snapshot import Candidate, RolloutView, Snapshot
from app.services.admission_apply import Chosen, apply
from app.services.admission_call import CALL_S, call
from app.services.admission_renew import renew
from app.services.admission_retell import RETELL_S, Stages, retell, stage_ends_at, stages
from app.services.admission_view import FleetView
from app.services.domain_losses import current
from app.services.leases import return_seen
from app.services.node_views import Setting, read_setting
from app.services.rollout_views import answerable_until
from app.store import gateways, operations, revisions, rollout_holds
from app.store import snapshot as store
from app.store.database import Database, Priority
from app.store.nudges import EVERYTHING
from app.store.renewals import asking_again
from wire.messages import OperationKind

_LOOK_S = 5.0
"""While something is wanted: windows open, freezes end and canaries have soaked without anybody's saying so."""
FULL_S = 30.0
"""All is gathered anew after this: what no nudge told (a gateway that died, a day that began) is seen by then."""
_STALE_S = 5.0
"""A view that was gathered within this is not gathered again because something was not granted: the nodes that were
chosen are read again in any case."""
_BATCH = 200
"""Answers in one transaction: operators wait for no more than this."""
_GRANTS = 100
"""Leases in one transaction: each takes some milliseconds."""
_ALL_ANEW = frozenset({"groups", "services", "domains", EVERYTHING})
_RULES = frozenset({"freezes", "rollouts", "images"})
_OF_NODES = ("node:", "desired:")
_WATCHED = ("operations", "nodes", "rollouts", "groups", "freezes")
"""Their revisions tell what no nudge told."""
_NUDGE_S = 2.0
"""A nudge that is still to come takes a fraction of this."""

Gates = Callable[[Iterable[PrometheusGate]], tuple[Hold, ...]]
"""Which of these gates are shut, without waiting for anybody."""


def gathered(conn: Connection, now: float, gates: Gates | None = None) -> FleetView:
    """The whole fleet as it is now."""
    setting = read_setting(conn, now)
    return FleetView(conn, now, current(conn, now, setting.groups), _shut(setting, gates))


def grant_leases(db: Database, now: float) -> bool:
    """One tick with a view of its own; whether a lease was granted."""
    return Admission().tick(db, now)


def gates_in_use(db: Database) -> set[PrometheusGate]:
    """Those that something under way may have to pass."""
    with db.read() as conn:
        if not store.anything_wanted(conn):
            return set()
        setting = read_setting(conn, 0.0)
    return {gate for asked in _gates_of(setting).values() for gate in asked}


def _gates_of(setting: Setting) -> dict[str, tuple[PrometheusGate, ...]]:
    """By id of the rollout, and of the group for orders to one of its nodes."""
    policies = {rollout.id: rollout.policy for rollout in setting.rollouts}
    policies |= {group.id: group.policy for group in setting.groups}
    return {id: policy.prometheus for id, policy in policies.items() if policy.prometheus}


def _shut(setting: Setting, gates: Gates | None) -> Mapping[str, tuple[Hold, ...]]:
    return {} if gates is None else {id: gates(asked) for id, asked in _gates_of(setting).items()}


@dataclass(slots=True)
class _Known:
    """What a tick leaves for the next one."""

    view: FleetView
    standing: Standing
    full_at: float


class Admission:
    """One for a conductor. `note` may be called on any thread; `tick` on one."""

    def __init__(self, gates: Gates | None = None) -> None:
        self._gates = gates
        self._known: _Known | None = None
        self._topics: set[str] = {EVERYTHING}
        self._guard = threading.Lock()
        self._revisions: dict[str, int] = {}
        self._unheard_at: float | None = None
        self._edge_at = 0.0
        """When something changes although nobody says so: a request is given up, a window opens."""
        self._called_at: float | None = None
        self._retold_at: float | None = None
        self._stages: Stages = ()

    def note(self, topics: Iterable[str]) -> None:
        """These changed."""
        with self._guard:
            self._topics.update(topics)

    def tick(self, db: Database, now: float) -> bool:
        """Return what can be returned, grant what fits, answer the others; whether anything was granted."""
        topics = self._take_topics() or self._unheard(db, now)
        full = self._known is not None and not 0 <= now - self._known.full_at < FULL_S
        if not full and not topics and now < self._edge_at:
            return False
        try:
            return self._tick(db, now, topics, full)
        except BaseException:
            self._known = None  # half of it may be new: begin again with all
            self.note({EVERYTHING})
            raise

    def snapshot(self) -> Snapshot | None:
        """The fleet as the last tick saw it; None: it had nothing to do."""
        return None if self._known is None else self._known.view.snapshot()

    def _take_topics(self) -> set[str]:
        with self._guard:
            topics, self._topics = self._topics, set()
        return topics

    def _unheard(self, db: Database, now: float) -> set[str]:
        """Everything, when rows have changed for a while and no nudge came of it."""
        with db.read() as conn:
            found = revisions.of_topics(conn, _WATCHED)
        if found == self._revisions:
            self._unheard_at = None
            return set()
        if self._unheard_at is None or not now - self._unheard_at >= 0:
            self._unheard_at = now
        return {EVERYTHING} if now - self._unheard_at >= _NUDGE_S else set()

    def _tick(self, db: Database, now: float, topics: set[str], full: bool) -> bool:
        with db.read() as conn:
            self._revisions, self._unheard_at = revisions.of_topics(conn, _WATCHED), None
        return_seen(db, now)
        topics |= self._take_topics()
        with db.read() as conn:
            again = [found.lease.operation_id for found in asking_again(conn, now - ANSWER_WITHIN_S)]
        if again:
            renew(db, again, now, lambda setting: _shut(setting, self._gates))
        with db.read() as conn:
            if not store.anything_wanted(conn):
                self._known, self._edge_at = None, now + FULL_S
                return False
            known = self._brought_up_to_date(conn, now, topics, full)
        admissions = admit(known.standing)
        granted = self._grant(db, known, admissions, now)
        self._answer(db, known, admissions, now)
        if self._retells(now, known.standing):
            retell(db, known.view, known.standing, now)
        look_at = now + _LOOK_S
        if self._calls(now):
            call(db, known.view, known.standing, now, granted)
        else:
            look_at = now + CALL_S
        self._edge_at = min((answerable_until(asking) for asking in known.view.ready.values()), default=look_at)
        self._edge_at = min(self._edge_at, look_at, stage_ends_at(known.standing))
        return bool(granted)

    def _calls(self, now: float) -> bool:
        """Whether it is time to look over all that wait."""
        if self._called_at is not None and 0 <= now - self._called_at < CALL_S:
            return False
        self._called_at = now
        return True

    def _retells(self, now: float, standing: Standing) -> bool:
        """Whether it is time to say anew why all of them wait."""
        found = stages(standing)
        if found == self._stages and self._retold_at is not None and 0 <= now - self._retold_at < RETELL_S:
            return False
        self._retold_at, self._stages = now, found
        return True

    # --- the view -------------------------------------------------------------------------------------------

    def _brought_up_to_date(self, conn: Connection, now: float, topics: set[str], full: bool) -> _Known:
        known = self._known
        if known is None or full or not topics.isdisjoint(_ALL_ANEW) or not self._refresh(conn, known, now, topics):
            view = gathered(conn, now, self._gates)
            known = self._known = _Known(view, Standing.of(view.snapshot()), now)
        return known

    def _refresh(self, conn: Connection, known: _Known, now: float, topics: set[str]) -> bool:
        """Whether the view could be kept."""
        view = known.view
        rules = any(topic in _RULES or topic.startswith("rollout:") for topic in topics)
        setting = view.setting
        setting = read_setting(conn, now) if rules else replace(setting, now=now, gateways=gateways.all_seen(conn))
        changed = {topic.partition(":")[2] for topic in topics if topic.startswith(_OF_NODES)}
        services = len(view.services)
        losses = current(conn, now, setting.groups)
        different = view.refresh(conn, setting, changed, losses, _shut(setting, self._gates), rollouts_too=rules)
        if different is None:
            return False
        if len(view.services) != services:
            known.standing = Standing.of(view.snapshot())
        else:
            known.standing.replace_nodes(different)
            known.standing.replace_rest(
                view.rollouts, view.candidates, view.group_views, view.services, now, view.fleet_hold
            )
        return True

    # --- what follows from it -------------------------------------------------------------------------------

    def _grant(self, db: Database, known: _Known, admissions: Admissions, now: float) -> list[int]:
        """The places of those that have their leases."""
        standing, view = known.standing, known.view
        chosen = {}
        for place in admissions.admitted:
            candidate = standing.candidates[place]
            asking = view.asking.get(candidate.operation_id)
            if asking is not None and asking.can_be_answered(now):
                chosen[place] = _chosen(candidate, asking, standing.rollouts[candidate.rollout])
        each = list(chosen.values())
        applied = [apply(db, view.setting, each[at : at + _GRANTS], now) for at in range(0, len(each), _GRANTS)]
        self.note(f"node:{one.node_id}" for one in each)
        if any(some.stale for some in applied) and not 0 <= now - known.full_at < _STALE_S:
            self.note({EVERYTHING})
        granted = {operation_id for some in applied for operation_id in some.granted}
        return [place for place, one in chosen.items() if one.operation_id in granted]

    def _answer(self, db: Database, known: _Known, admissions: Admissions, now: float) -> None:
        """Tell those that ask and get nothing why, the first in line to ask again soon."""
        waiting, in_all = [], len(known.view.asking)
        for line, (place, hold) in enumerate(admissions.holds.items()):
            candidate = known.standing.candidates[place]
            asking = known.view.asking.get(candidate.operation_id)
            if asking is not None and asking.can_be_answered(now):
                rollout = known.standing.rollouts[candidate.rollout]
                waiting.append(_Waiting(asking, hold, "" if rollout.direct else rollout.id, retry_s(line, in_all)))
        for start in range(0, len(waiting), _BATCH):
            self._answer_some(db, waiting[start : start + _BATCH])

    def _answer_some(self, db: Database, waiting: Sequence[_Waiting]) -> None:
        with db.write(Priority.BACKGROUND) as change:
            free = operations.claim(change.conn, [one.asking.operation_id for one in waiting])
            for one in waiting:
                if one.asking.operation_id not in free:
                    continue  # its turn comes with the next tick
                if operations.answer_to_wait(change.conn, one.asking.operation_id, one.asking.nonce, one.told):
                    change.touch(f"desired:{one.asking.node_id}")
            holds = [(one.rollout_id, one.asking.node_id, one.hold) for one in waiting if one.rollout_id]
            for rollout_id in rollout_holds.keep(change.conn, holds):
                change.touch(f"rollout:{rollout_id}")


@dataclass(frozen=True, slots=True)
class _Waiting:
    asking: Asking
    hold: Hold
    rollout_id: str
    retry_s: float

    @property
    def told(self) -> dict[str, object]:
        return {
            "code": self.hold.code.value,
            "text": self.hold.text,
            "subject": self.hold.subject,
            "until": self.hold.until,
            "retry_s": self.retry_s,
            "nonce": self.asking.nonce,
        }


def _chosen(candidate: Candidate, asking: Asking, rollout: RolloutView) -> Chosen:
    return Chosen(
        operation_id=candidate.operation_id,
        node_id=asking.node_id,
        rollout_id=None if rollout.direct else rollout.id,
        kind=OperationKind(asking.kind),
        canary=candidate.canary,
    )
