"""Rollouts: rows in and out, their history. Moves are conditional updates; the row count says who won."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, bindparam, exists, func, insert, select, update

from app.core.group_policy import GroupPolicy
from app.core.policy_json import policy_from_builtins, policy_to_builtins
from app.core.rollouts import ACTIVE, RolloutKind, RolloutNodeState, RolloutState
from app.core.snapshot import ServiceKey
from app.store.schema import rollout_events, rollout_nodes, rollouts


@dataclass(frozen=True, slots=True)
class Rollout:
    """See the columns of app.store.tables.rollouts; times are Unix seconds."""

    id: str
    number: int
    kind: RolloutKind
    state: RolloutState
    state_text: str
    group_id: str | None
    group_name: str
    selector: str
    targets: tuple[str, ...]
    version: str
    policy: GroupPolicy
    expected: Mapping[ServiceKey, int]
    allowances: frozenset[ServiceKey]
    left_out: tuple[str, ...]
    allow_downgrade: bool
    break_glass: bool
    source_id: str | None
    channel_id: str | None
    actor: str
    reason: str
    forecast: Mapping[str, Any] | None
    created_at: float
    started_at: float | None = None
    moved_at: float | None = None
    canaries_soaked_at: float | None = None
    ended_at: float | None = None
    canaries_waited_s: float = 0.0
    """How long the others have waited since, counted by steps (app.core.clocks): the server's clock may be set."""
    canaries_clock_at: float | None = None
    """When that was last counted."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """What of the policy is the rollout's own, as core.policy_json has it; the rest is its group's at the start."""
    override_floor: bool = False
    """An operator lets its ways back go below floors."""

    @property
    def name(self) -> str:
        """As people call it."""
        return f"rollout {self.number}"

    @property
    def leads_back(self) -> bool:
        """Gates do not bind it (rule 7)."""
        return self.kind is RolloutKind.ROLLBACK or self.state is RolloutState.ROLLING_BACK


@dataclass(frozen=True, slots=True)
class RolloutEvent:
    """One line of a rollout's history, the newest has the highest id."""

    id: int
    at: float
    kind: str
    text: str
    actor: str | None
    node_id: str | None


def next_number(conn: Connection) -> int:
    """The fleet's row is locked by the caller, so that nobody else takes it."""
    highest: int | None = conn.execute(select(func.max(rollouts.c.number))).scalar_one()
    return (highest or 0) + 1


def add(conn: Connection, rollout: Rollout) -> None:
    conn.execute(
        insert(rollouts).values(
            id=rollout.id,
            number=rollout.number,
            kind=rollout.kind.value,
            state=rollout.state.value,
            state_text=rollout.state_text,
            group_id=rollout.group_id,
            group_name=rollout.group_name,
            selector=rollout.selector,
            targets=list(rollout.targets),
            version=rollout.version,
            policy=policy_json(rollout.policy),
            overrides=dict(rollout.overrides) or None,
            allowances=keys_json(rollout.allowances),
            left_out=list(rollout.left_out),
            allow_downgrade=rollout.allow_downgrade,
            break_glass=rollout.break_glass,
            source_id=rollout.source_id,
            channel_id=rollout.channel_id,
            actor=rollout.actor,
            reason=rollout.reason,
            created_at=rollout.created_at,
        )
    )


def get(conn: Connection, rollout_id: str, *, lock: bool = False) -> Rollout | None:
    """`lock`: its row is ours until the end of the transaction; taken before the rows of nodes."""
    query = select(rollouts).where(rollouts.c.id == rollout_id)
    row = conn.execute(query.with_for_update(key_share=True) if lock else query).one_or_none()
    return None if row is None else _rollout(row)


def by_number(conn: Connection, number: int) -> Rollout | None:
    row = conn.execute(select(rollouts).where(rollouts.c.number == number)).one_or_none()
    return None if row is None else _rollout(row)


def in_states(conn: Connection, states: Collection[RolloutState]) -> list[Rollout]:
    """Those in one of the states, oldest first."""
    return [_rollout(row) for row in conn.execute(_IN_STATES, {"states": [state.value for state in states]})]


_IN_STATES = (
    select(rollouts).where(rollouts.c.state.in_(bindparam("states", expanding=True))).order_by(rollouts.c.number)
)


def active(conn: Connection) -> list[Rollout]:
    """Those in which the conductor orders nodes, oldest first."""
    return in_states(conn, ACTIVE)


def newest(
    conn: Connection,
    *,
    states: Collection[RolloutState] = (),
    group_id: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Rollout]:
    """The newest first; `before`: those with a lower number, to continue a page."""
    query = select(rollouts).order_by(rollouts.c.number.desc()).limit(limit)
    if states:
        query = query.where(rollouts.c.state.in_([state.value for state in states]))
    if group_id is not None:
        query = query.where(rollouts.c.group_id == group_id)
    if before is not None:
        query = query.where(rollouts.c.number < before)
    return [_rollout(row) for row in conn.execute(query)]


def state_counts(conn: Connection) -> dict[RolloutState, int]:
    """How many rollouts are in each state; states without any are missing."""
    rows = conn.execute(select(rollouts.c.state, func.count()).group_by(rollouts.c.state))
    return {RolloutState(state): count for state, count in rows}


def reverses_of(conn: Connection, rollout_id: str) -> list[Rollout]:
    """Rollouts that lead back what this one did, oldest first."""
    query = select(rollouts).where(rollouts.c.source_id == rollout_id).order_by(rollouts.c.number)
    return [_rollout(row) for row in conn.execute(query)]


def drafts_of_channel(conn: Connection, channel_id: str, group_id: str | None = None) -> list[Rollout]:
    """Drafts that moves of the channel made, oldest first."""
    query = select(rollouts).where(rollouts.c.channel_id == channel_id, rollouts.c.state == RolloutState.DRAFT.value)
    if group_id is not None:
        query = query.where(rollouts.c.group_id == group_id)
    return [_rollout(row) for row in conn.execute(query.order_by(rollouts.c.number))]


def move(conn: Connection, rollout: Rollout, after: RolloutState, text: str, **values: Any) -> bool:
    """Into another state, unless it has left the one that was seen; whether this call moved it."""
    moved = conn.execute(
        update(rollouts)
        .where(rollouts.c.id == rollout.id, rollouts.c.state == rollout.state.value)
        .values(state=after.value, state_text=text, **values)
    )
    return moved.rowcount == 1


def change(conn: Connection, rollout_id: str, **values: Any) -> None:
    """Set columns that are no state."""
    conn.execute(update(rollouts).where(rollouts.c.id == rollout_id).values(**values))


def lock_all(conn: Connection, states: Collection[RolloutState]) -> None:
    """Hold the rows of those in one of the states: after the fleet's row, before those of nodes."""
    wanted = rollouts.c.state.in_([state.value for state in states])
    conn.execute(select(rollouts.c.id).where(wanted).order_by(rollouts.c.id).with_for_update(key_share=True)).all()


def unsettled(conn: Connection, states: Collection[RolloutState]) -> list[Rollout]:
    """Those in one of the states that still have nodes under way, oldest first."""
    return [_rollout(row) for row in conn.execute(_UNSETTLED, {"states": [state.value for state in states]})]


_UNSETTLED = _IN_STATES.where(
    exists().where(
        rollout_nodes.c.rollout_id == rollouts.c.id,
        rollout_nodes.c.state.in_(
            [RolloutNodeState.WAITING.value, RolloutNodeState.ORDERED.value, RolloutNodeState.MOVING.value]
        ),
    )
)


def note_movement(conn: Connection, rollout_id: str, now: float) -> None:
    """A node of it got further."""
    conn.execute(update(rollouts).where(rollouts.c.id == rollout_id).values(moved_at=now))


# --- history ------------------------------------------------------------------------------------------------


def add_event(
    conn: Connection,
    rollout_id: str,
    kind: str,
    text: str,
    now: float,
    *,
    actor: str | None = None,
    node_id: str | None = None,
) -> None:
    conn.execute(
        insert(rollout_events).values(rollout_id=rollout_id, at=now, kind=kind, text=text, actor=actor, node_id=node_id)
    )


def put_event(conn: Connection, rollout_id: str, kind: str, text: str, now: float) -> None:
    """The one event of this kind says this from now on, at the moment at which it was first told."""
    c = rollout_events.c
    told = conn.execute(update(rollout_events).where(c.rollout_id == rollout_id, c.kind == kind).values(text=text))
    if not told.rowcount:
        add_event(conn, rollout_id, kind, text, now)


def events(conn: Connection, rollout_id: str, *, of_nodes: bool | None = None, limit: int = 200) -> list[RolloutEvent]:
    """Newest first. `of_nodes`: only those of single nodes, or only the others."""
    query = select(rollout_events).where(rollout_events.c.rollout_id == rollout_id)
    if of_nodes is not None:
        single = rollout_events.c.node_id.is_not(None)
        query = query.where(single if of_nodes else ~single)
    rows = conn.execute(query.order_by(rollout_events.c.id.desc()).limit(limit))
    return [RolloutEvent(row.id, row.at, row.kind, row.text, row.actor, row.node_id) for row in rows]


def last_event(conn: Connection, rollout_id: str, kind: str) -> int | None:
    """The id of the last event of this kind; later ones have higher ids."""
    query = select(func.max(rollout_events.c.id)).where(
        rollout_events.c.rollout_id == rollout_id, rollout_events.c.kind == kind
    )
    found: int | None = conn.execute(query).scalar_one()
    return found


def texts_of(conn: Connection, rollout_id: str, kind: str) -> list[str]:
    """What events of this kind say."""
    c = rollout_events.c
    return list(conn.execute(select(c.text).where(c.rollout_id == rollout_id, c.kind == kind)).scalars())


# --- columns ------------------------------------------------------------------------------------------------


def policy_json(policy: GroupPolicy) -> dict[str, Any]:
    """All fields, for a rollout's policy is frozen: later defaults do not change it."""
    return policy_to_builtins(policy, whole=True)


def keys_json(keys: Collection[ServiceKey]) -> list[list[str]]:
    return [list(key) for key in sorted(keys)]


def expected_json(expected: Mapping[ServiceKey, int]) -> list[list[str | int]]:
    return [[scope, name, replicas] for (scope, name), replicas in sorted(expected.items())]


@lru_cache(maxsize=256)
def _policy(text: str) -> GroupPolicy:
    """The same one for the same text: rollouts under way are read several times in each round."""
    return policy_from_builtins(json.loads(text))


def _rollout(row: Row[Any]) -> Rollout:
    return Rollout(
        id=row.id,
        number=row.number,
        kind=RolloutKind(row.kind),
        state=RolloutState(row.state),
        state_text=row.state_text,
        group_id=row.group_id,
        group_name=row.group_name,
        selector=row.selector,
        targets=tuple(row.targets),
        version=row.version,
        policy=_policy(json.dumps(row.policy)),
        expected={(scope, name): replicas for scope, name, replicas in row.expected or ()},
        allowances=frozenset((scope, name) for scope, name in row.allowances),
        left_out=tuple(row.left_out),
        allow_downgrade=row.allow_downgrade,
        break_glass=row.break_glass,
        source_id=row.source_id,
        channel_id=row.channel_id,
        actor=row.actor,
        reason=row.reason,
        forecast=row.forecast,
        created_at=row.created_at,
        started_at=row.started_at,
        moved_at=row.moved_at,
        canaries_soaked_at=row.canaries_soaked_at,
        ended_at=row.ended_at,
        canaries_waited_s=row.canaries_waited_s,
        canaries_clock_at=row.canaries_clock_at,
        overrides=row.overrides or {},
        override_floor=row.override_floor,
    )
