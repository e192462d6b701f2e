"""One failure domain after another, judged from outside: who gets a lease while another domain of its group is on its
way and its own is not. Canaries go before all turns, ways back beside them (rule 7).

Of the rows this reads which leases are out, and what their operations are; who is on its way is seen on the machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, and_, select

from app.core.rollouts import RolloutKind, RolloutNodeState, RolloutState
from app.store import schema
from sim.node import SimNode
from tests.simulation.judge import EXPOSED
from tests.simulation.story import GroupPlan, Story
from wire.messages import OperationKind

_l, _o, _r, _n = (table.c for table in (schema.leases, schema.operations, schema.rollouts, schema.rollout_nodes))


class Turns:
    """`look` after each round of a conductor: between two of these no operator lets anybody go."""

    def __init__(self, story: Story, zones: Mapping[int, str]) -> None:
        self._groups, self._zones = story.groups, zones
        self._first = story.scenario.fleet.version
        self._seen: set[str] = set()

    def look(self, conn: Connection, exposed: Mapping[int, str]) -> str:
        """Who got a lease out of turn since the last look, in words; empty: nobody. `exposed`: see there."""
        if not any(_in_turns(group) for group in self._groups):
            return ""
        held = {_number(row): row for row in conn.execute(_HELD)}
        new = {number for number, row in held.items() if row.id not in self._seen}
        self._seen |= {row.id for row in held.values()}
        bound = {number for number in new if not self._passes(held[number])}
        if not bound:
            return ""
        soaking = {_number(row) for row in conn.execute(_SOAKING) if exposed.get(_number(row)) == row.id}
        sure = (held.keys() - new) | bound | soaking
        perhaps = held.keys() | exposed.keys() | {_number(row) for row in conn.execute(_MOVING)}
        return next((words for number in sorted(bound) if (words := self._objection(number, sure, perhaps))), "")

    def _objection(self, number: int, sure: set[int], perhaps: set[int]) -> str:
        group, zone = self._policy_group(number), self._zones[number]
        if group is None or not _in_turns(group):
            return ""
        if any(self._zones[other] == zone for other in perhaps - {number}):
            return ""
        others = [other for other in sorted(sure) if group.takes(self._zones[other]) and self._zones[other] != zone]
        if not others:
            return ""
        turn = f"node {others[0]} of zone {self._zones[others[0]]} was under way"
        return f"node {number} of zone {zone} got its lease out of turn: {turn}"

    def _policy_group(self, number: int) -> GroupPlan | None:
        """The first by name of those that take it."""
        mine = (group for group in self._groups if group.takes(self._zones[number]))
        return min(mine, key=lambda group: group.name, default=None)

    def _passes(self, row: Any) -> bool:
        back = row.rollout_kind == RolloutKind.ROLLBACK.value or row.rollout_state == RolloutState.ROLLING_BACK.value
        back = back or row.kind == OperationKind.ROLLBACK.value or row.target_version == self._first
        return back or bool(row.canary)


def exposed(nodes: Iterable[SimNode]) -> dict[int, str]:
    """Those that reboot, are on trial or soak, with their operations."""
    return {
        node.spec.number: node.state.operation.id
        for node in nodes
        if node.state.operation is not None and node.state.step in EXPOSED
    }


def _in_turns(group: GroupPlan) -> bool:
    return bool(group.policy.get("one_domain_after_another"))


def _number(row: Any) -> int:
    return int(row.node_id[5:])


_OF_ROLLOUT = and_(_n.rollout_id == _o.rollout_id, _n.node_id == _o.node_id)
_HELD = (
    select(
        _l.id,
        _l.node_id,
        _o.kind,
        _o.target_version,
        _r.kind.label("rollout_kind"),
        _r.state.label("rollout_state"),
        _n.canary,
    )
    .join_from(schema.leases, schema.operations, _o.id == _l.operation_id)
    .outerjoin(schema.rollouts, _r.id == _o.rollout_id)
    .outerjoin(schema.rollout_nodes, _OF_ROLLOUT)
    .where(_l.ended_at.is_(None))
)
_SOAKING = (
    select(_o.id, _o.node_id)
    .join(schema.rollouts, _r.id == _o.rollout_id)
    .join(schema.rollout_nodes, and_(_OF_ROLLOUT, _n.operation_id == _o.id))
    .where(
        _o.state == "open",
        _o.cancel_asked_at.is_(None),
        _r.state == RolloutState.RUNNING.value,
        _r.kind == RolloutKind.UPDATE.value,
        _n.state == RolloutNodeState.MOVING.value,
    )
)
"""Who moves forward in a rollout that runs; of these the machine says whether they are on their way."""
_MOVING = select(_n.node_id).where(_n.state == RolloutNodeState.MOVING.value)
