"""What rows must never take back: ends of operations and rollouts; and what is left when all has come to its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, and_, exists, or_, select

from app.core.holds import HoldCode
from app.core.leases import ANSWER_WITHIN_S
from app.core.rollouts import TERMINAL, RolloutNodeState, RolloutState
from app.store import schema
from tests.simulation.judge import RuleBroken
from tests.simulation.story import BAD
from wire.messages import Phase, Result

_o, _r, _n, _l = schema.operations.c, schema.rollouts.c, schema.rollout_nodes.c, schema.leases.c
FAILURES = frozenset(
    {
        Result.FELL_BACK,
        Result.NEVER_SWITCHED,
        Result.STAGE_FAILED,
        Result.UNHEALTHY,
        Result.TIMED_OUT,
        Result.UNKNOWN,
        Result.UNREACHABLE,
    }
)


class Ledger:
    """Looks at the rows after each round."""

    def __init__(self) -> None:
        self._ended: dict[str, str] = {}
        self._over: dict[str, str] = {}

    def look(self, conn: Connection) -> None:
        """Rule 9: terminal states are terminal; an operation ends once."""
        for operation_id, result in conn.execute(_ENDED):
            if self._ended.setdefault(operation_id, result) != result:
                raise RuleBroken(f"{operation_id} ended as {self._ended[operation_id]} and then as {result}")
        open_ids = conn.execute(_OPEN).scalars()
        if again := self._ended.keys() & set(open_ids):
            raise RuleBroken(f"{sorted(again)} had ended and are open again")
        for rollout_id, state in conn.execute(_STATES):
            if rollout_id in self._over and self._over[rollout_id] != state:
                raise RuleBroken(f"{rollout_id} was {self._over[rollout_id]} and is {state}")
            if RolloutState(state) in TERMINAL:
                self._over[rollout_id] = state


_ENDED = select(_o.id, _o.result).where(_o.state == "ended")
_OPEN = select(_o.id).where(_o.state == "open")
_STATES = select(_r.id, _r.state)


def failures(conn: Connection) -> list[tuple[int, str, str, str]]:
    """(number of the node, target version, id, how it failed) of operations that failed on a version that is good."""
    rows = conn.execute(
        select(_o.node_id, _o.target_version, _o.id, _o.result, _o.result_text).where(
            _o.result.in_([result.value for result in FAILURES]), _o.target_version != BAD
        )
    )
    return [(int(node_id[5:]), version, id, f"{result}: {text}") for node_id, version, id, result, text in rows]


def under_way(conn: Connection) -> list[str]:
    """What has not come to its end, in words: operations, leases, rollouts that move."""
    found = [f"operation {row.id} of {row.node_id[-2:]} in {row.phase}" for row in _open_operations(conn)]
    found += [f"lease {row.id} of {row.node_id[-2:]}" for row in conn.execute(select(_l).where(_l.ended_at.is_(None)))]
    moving = (RolloutState.RUNNING.value, RolloutState.ROLLING_BACK.value)
    found += [f"rollout {row.id} {row.state}" for row in conn.execute(select(_r).where(_r.state.in_(moving)))]
    return found


def _open_operations(conn: Connection) -> list[Any]:
    return list(conn.execute(select(_o).where(_o.state == "open")))


def waits_for_the_sick(conn: Connection) -> bool:
    """Whether all that is open has asked for its lease, and was told that unhealthy nodes take a budget."""
    holds = [row.hold or {} for row in _open_operations(conn)]
    return bool(holds) and all(hold.get("code") in _BUDGETS and "unhealthy" in hold["text"] for hold in holds)


_BUDGETS = (HoldCode.GROUP_BUDGET.value, HoldCode.DOMAIN_BUDGET.value)


def sick(conn: Connection) -> list[str]:
    """Ids of nodes that run the bad version, are up and unhealthy, and have no order."""
    c = schema.nodes.c
    idle = ~exists().where(_o.node_id == c.id, _o.state == "open")
    query = select(c.id).where(c.connection == "online", c.health_state == "unhealthy", c.version == BAD, idle)
    return list(conn.execute(query.order_by(c.id)).scalars())


def waiting(conn: Connection) -> list[Mapping[str, Any]]:
    """Nodes of moving rollouts that wait: node, hold (of the rollout's row, or the node's own), state."""
    states = (RolloutNodeState.WAITING.value, RolloutNodeState.ORDERED.value)
    query = (
        select(_n.node_id, _n.state, _n.hold, _o.hold.label("operation_hold"), schema.nodes.c.activity)
        .join_from(schema.rollout_nodes, schema.rollouts, _r.id == _n.rollout_id)
        .join(schema.nodes, schema.nodes.c.id == _n.node_id)
        .outerjoin(schema.operations, _o.id == _n.operation_id)
        .where(_n.state.in_(states), _r.state == RolloutState.RUNNING.value)
    )
    return [
        {
            "node": row.node_id,
            "state": row.state,
            "hold": row.hold or row.operation_hold or next(iter(row.activity.get("holds", [])), None),
        }
        for row in conn.execute(query)
    ]


def silently_waiting(conn: Connection, now: float) -> dict[str, bool]:
    """Nodes of running rollouts that wait and say nothing of why: without an order, or staged and connected, and
    never granted a lease. Whether that counts: a request that was too old for an answer in this round does not, for the
    conductors of a run look more seldom than real ones. `now` is the server's."""
    return {
        f"node {int(row.node_id[5:])} in rollout {row.rollout_id[-4:]}": row.lease_nonce_at is None
        or abs(now - row.lease_nonce_at) <= ANSWER_WITHIN_S
        for row in conn.execute(_SILENT)
    }


_ASKS = and_(
    _n.state == RolloutNodeState.ORDERED.value,
    _o.state == "open",
    _o.phase == Phase.STAGED.value,
    _o.lease_nonce.is_not(None),
    _o.hold.is_(None),
    schema.nodes.c.connection == "online",
    ~exists().where(_l.operation_id == _o.id),
)
_s = schema.operations.alias("staging").c
_PLACES_TAKEN = exists().where(
    _s.rollout_id == _n.rollout_id, _s.state == "open", _s.phase.in_((Phase.IDLE.value, Phase.STAGING.value))
)
"""Others of the rollout stage: it may be that there is no place among the downloads."""
_SILENT = (
    select(_n.node_id, _n.rollout_id, _o.lease_nonce_at)
    .join_from(schema.rollout_nodes, schema.rollouts, _r.id == _n.rollout_id)
    .join(schema.nodes, schema.nodes.c.id == _n.node_id)
    .outerjoin(schema.operations, _o.id == _n.operation_id)
    .where(_r.state == RolloutState.RUNNING.value, _n.hold.is_(None))
    .where(or_(and_(_n.state == RolloutNodeState.WAITING.value, ~_PLACES_TAKEN), _ASKS))
)
