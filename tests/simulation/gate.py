"""Who may begin to move forward, judged from outside: not while it is frozen or its windows are closed, and nobody
before the canaries of its rollout have proved themselves; and who may write a slot that a rollout leads back to. Ways
back pass all of it (rule 7).

Of the rows this reads what operators said (freezes, rollouts, who is a canary) and that a lease was granted; what a
canary did, the judge saw itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, or_, select

from app.core.rollouts import TERMINAL, RolloutKind, RolloutNodeState, RolloutState
from app.services.rollout_acting import RolloutEventKind
from app.store import schema
from tests.simulation.story import Gap, GroupPlan, Story

_l, _f, _g, _r, _n = (
    table.c for table in (schema.leases, schema.freezes, schema.groups, schema.rollouts, schema.rollout_nodes)
)
DAY_S = 86_400.0


@dataclass(frozen=True)
class Granted:
    """A lease, as it was granted or renewed. `at`: true time; `frozen`: what was frozen then, in words; empty: nothing
    that concerns its node. `shut`: the windows of its node were closed."""

    number: int
    operation_id: str
    at: float
    frozen: str
    shut: bool


@dataclass(frozen=True)
class Under:
    """The rollout of an operation as it is now. `canaries`: numbers of the nodes that go first; `resumed`: an operator
    went on after it had halted, whatever its canaries did."""

    id: str
    leads_back: bool
    canaries: tuple[int, ...]
    resumed: bool


Soaked = Callable[[int, str, float, float], bool]
"""Whether node `number` ran `version` for `soak_s`, confirmed, before `moment`."""


class Gate:
    """`look` after each round; `objection` when a node arms or goes down."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._clock_jumps = any(event.what == "clock" for event in story.events)
        self._seen: set[tuple[str, float]] = set()
        self._newest: dict[int, Granted] = {}

    def look(self, conn: Connection, now: float) -> list[Granted]:
        """Leases that were granted since the last look, which was at this moment too or before."""
        new = [row for row in conn.execute(_LEASES) if (row.id, row.granted_at) not in self._seen]
        found = [self._granted(conn, row.node_id, row.operation_id, row.granted_at, now) for row in new]
        self._seen |= {(row.id, row.granted_at) for row in new}
        self._newest |= {granted.number: granted for granted in found}
        return found

    def _granted(self, conn: Connection, node_id: str, operation_id: str, server_at: float, now: float) -> Granted:
        number = int(node_id[5:])
        zone = self._story.zone_of(number, now)
        groups = [group for group in self._story.groups if group.takes(zone)]
        names = {group.name for group in groups}
        frozen = [row.name or "the fleet" for row in conn.execute(_FROZEN, {"at": server_at})]
        binding = [name for name in frozen if name == "the fleet" or name in names]
        return Granted(number, operation_id, now, ", ".join(binding), _shut(groups, server_at))

    def objection(self, number: int, operation_id: str, version: str, soaked: Soaked, conn: Connection) -> str:
        """Why a node may not move forward under its newest lease; empty: it may. `version`: where the operation leads;
        empty for a reboot."""
        granted = self._newest.get(number)
        if granted is None or granted.operation_id != operation_id:
            return ""
        under = _under(conn, operation_id)
        if (under is not None and under.leads_back) or version == self._story.scenario.fleet.version:
            return ""
        if granted.frozen:
            return f"got its lease while {granted.frozen} was frozen"
        if granted.shut:
            return "got its lease while its windows were closed"
        if under is None or under.resumed or number in under.canaries:
            return ""
        soak_s, more_s = self._canaries_take(under.id)
        waits_for = [one for one in under.canaries if not soaked(one, version, soak_s, granted.at - more_s)]
        return f"got its lease before canary {waits_for[0]} had soaked" if waits_for else ""

    def keeps(self, rollout_id: str, operation_id: str, version: str, conn: Connection) -> str:
        """Why an operation may not write the way back of a node that this rollout moved; empty: it may."""
        row = conn.execute(select(_r.kind, _r.state).where(_r.id == rollout_id)).one()
        if row.kind != RolloutKind.UPDATE.value or RolloutState(row.state) in TERMINAL:
            return ""
        under = _under(conn, operation_id)
        if (under is not None and under.leads_back) or version == self._story.scenario.fleet.version:
            return ""
        return f"rollout {rollout_id[-4:]}, which moved it, is {row.state}"

    def _canaries_take(self, rollout_id: str) -> tuple[float, float]:
        """Their soak, and how long the others wait after it; the server counts that by its own clock."""
        plan = self._story.plans.get(rollout_id)
        if plan is None:
            return 0.0, 0.0
        return plan.soak_s, 0.0 if self._clock_jumps else float(plan.policy["canary_soak_s"])


def _shut(groups: Sequence[GroupPlan], server_at: float) -> bool:
    """By the windows of the policy group, which is the first by name."""
    gap: Gap | None = min(groups, key=lambda group: group.name).gap if groups else None
    return gap is not None and gap.first_minute * 60 <= server_at % DAY_S < gap.last_minute * 60


def _under(conn: Connection, operation_id: str) -> Under | None:
    row = conn.execute(_ROLLOUT, {"operation": operation_id}).one_or_none()
    if row is None:
        return None
    back = row.kind == RolloutKind.ROLLBACK.value or row.state == RolloutState.ROLLING_BACK.value
    canaries = conn.execute(_CANARIES, {"rollout": row.id}).scalars()
    resumed = conn.execute(_RESUMED, {"rollout": row.id}).first() is not None
    return Under(row.id, back, tuple(int(node_id[5:]) for node_id in canaries), resumed)


_LEASES = select(_l.id, _l.node_id, _l.operation_id, _l.granted_at)
_FROZEN = (
    select(_g.name)
    .select_from(schema.freezes.outerjoin(schema.groups, _g.id == _f.group_id))
    .where(
        _f.starts_at < bindparam("at"),
        or_(_f.ends_at.is_(None), _f.ends_at > bindparam("at")),
        or_(_f.lifted_at.is_(None), _f.lifted_at > bindparam("at")),
    )
)
_ROLLOUT = select(_r.id, _r.kind, _r.state).where(
    _r.id.in_(select(schema.operations.c.rollout_id).where(schema.operations.c.id == bindparam("operation")))
)
_CANARIES = select(_n.node_id).where(
    _n.rollout_id == bindparam("rollout"), _n.canary, _n.state != RolloutNodeState.LEFT.value
)
_RESUMED = select(schema.rollout_events.c.id).where(
    schema.rollout_events.c.rollout_id == bindparam("rollout"),
    schema.rollout_events.c.kind == RolloutEventKind.RESUMED_FROM_HALT.value,
)


class Patience:
    """Rule 10 while it goes on: whoever waits has a reason, or gets one soon."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[float, int]] = {}

    def look(self, silent: Mapping[str, bool], now: float) -> str:
        """Who has waited without a reason for too long; empty: nobody. `silent`: who has none after this round, and
        whether the round could have given one."""
        self._since = {key: found for key, found in self._since.items() if key in silent}
        for key, counts in silent.items():
            since, rounds = self._since.get(key, (now, 0))
            self._since[key] = since, rounds + counts
            if rounds >= SILENT_ROUNDS and now - since > SILENT_S:
                return key
        return ""


SILENT_S, SILENT_ROUNDS = 30.0, 4
"""So long, and so many rounds of the conductor that did not die over it, may pass before a wait has its name."""
