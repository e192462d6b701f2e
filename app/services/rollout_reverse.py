"""Sending nodes back by a linked reverse rollout: of a rollout that has ended, of one wave, of a group.

Its gates are open from the beginning (rule 7), so it starts at once; floors and budgets bind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from sqlalchemy import Connection

from app.core.actors import Actor
from app.core.errors import NotFound, NotPossible
from app.core.group_policy import Amount, GroupPolicy
from app.core.operations import Action, refusal_to_roll_back
from app.core.rollouts import TERMINAL, Move, RolloutKind, RolloutNodeState, RolloutState
from app.core.slots import way_back_of
from app.services.acting import need, possible, record
from app.services.floor_overrides import override_within
from app.services.group_way_back import GroupWayBack, way_back_of_group
from app.services.groups import policy_for
from app.services.orders import begin, locked_node
from app.services.rollout_acting import RolloutEventKind, because, enter, leads_forth, locked_rollout, tell
from app.services.rollout_leaving import leave
from app.services.rollout_orders import mark_ordered, take_back
from app.services.rollout_spec import Resolved, RolloutSpec
from app.services.rollout_ways_back import wish_of
from app.services.rollouts import draft_within
from app.store import fleet, nodes, rollout_facts, rollout_nodes
from app.store.database import Change, Database
from app.store.rollouts import Rollout


def reverse(
    db: Database,
    actor: Actor,
    rollout_id: str,
    reason: str,
    now: float,
    *,
    wave: int | None = None,
    override_floor: bool = False,
) -> str:
    """Every node that the ended rollout moved goes back to what it ran before; returns the reverse rollout's id.

    `wave`: only the nodes of this wave, 0 for the canaries; the rollout may be under way then, and is paused.
    `override_floor`: although services fall below their floors (app.services.floor_overrides).
    """
    need(reason, "Say why it is rolled back.")
    with db.write() as change:
        source = locked_rollout(change, rollout_id)
        leads_forth(change.conn, source)
        _reversible(source, wave)
        moved = _moved_nodes(change.conn, source, wave)
        if not moved:
            raise NotPossible("nothing-to-do", f"No node of rollout {source.number} runs what it led to.")
        moved = _not_under_way(change.conn, moved)
        if source.state is RolloutState.RUNNING:
            text = f"Paused by {actor.name}: {_part(wave)} is sent back{because(reason)}"
            enter(change, actor, source, Move.PAUSE, text, reason, now)
        spec = replace(_spec(source.policy, source.group_id, moved, reason), allowances=source.allowances)
        resolved = Resolved((), spec.policy or source.policy, source.group_name, "", moved)
        made = _begin(change, actor, spec, resolved, source.id, now)
        if override_floor:
            override_within(change, actor, made, reason, now)
        text = f"Rolled back by rollout {made.number} of {actor.name}, {_part(wave)}{because(reason)}"
        tell(change, source, RolloutEventKind.REVERSED, text, now, actor=actor.name)
    take_back(db, now)
    return made.id


def reverse_group(
    db: Database, actor: Actor, group_id: str, reason: str, now: float, *, override_floor: bool = False
) -> str:
    """Its updates that are under way are rolled back, and every other node that an update moved last goes back to the
    version before that, each to its own (app.services.group_way_back). Returns the id of the rollout that sends these
    back; where there are none, of the newest update that is rolled back. `override_floor`: as with `reverse`."""
    need(reason, "Say why the group is rolled back.")
    with db.write() as change:
        fleet.lock(change.conn)  # before rollouts: everybody locks in this order
        found = way_back_of_group(change.conn, group_id)
        _something_goes(found)
        for rollout in found.stops:
            text = f"Rolled back by {actor.name} with group {found.group.name}{because(reason)}"
            enter(change, actor, locked_rollout(change, rollout.id), Move.ROLL_BACK, text, reason, now, moved_at=now)
        going = list(found.stops)
        if found.goes:
            going.append(_send_group_back(change, actor, found, reason, now))
        for rollout in going if override_floor else ():
            override_within(change, actor, rollout, reason, now)
    take_back(db, now)
    return going[-1].id


def _something_goes(found: GroupWayBack) -> None:
    if not found.goes and not found.stops:
        name = found.group.name
        if found.asked_twice:
            raise NotPossible("already-underway", f"Group {name} is being sent back already.")
        if found.barred:
            why = "what they ran before is bad, or failed on them. Clear that first."
            raise NotPossible("bad-version", f"No node of group {name} can go back: {why}")
        raise NotPossible("nothing-to-do", f"No node of group {name} runs what an update brought it to.")


def _send_group_back(change: Change, actor: Actor, found: GroupWayBack, reason: str, now: float) -> Rollout:
    for rollout_id, node_id in found.leaves:
        rollout, row = locked_rollout(change, rollout_id), rollout_nodes.get(change.conn, rollout_id, node_id)
        text = f"left out: group {found.group.name} is rolled back by {actor.name}{because(reason)}"
        if row is not None:
            with suppress(NotPossible):  # it may reboot at any moment, and finishes that
                leave(change, actor, rollout, row, text, now)
    members = tuple(one.node_id for one in found.goes)
    spec = _spec(found.group.policy, found.group.id, members, reason)
    resolved = Resolved((), spec.policy or found.group.policy, found.group.name, "", members)
    return _begin(change, actor, spec, resolved, None, now)


def reverse_node(
    db: Database, actor: Actor, node_id: str, reason: str, now: float, *, override_floor: bool = False
) -> str:
    """The node goes back to the version before, which has to be downloaded: a rollout of one, so that no window and no
    freeze holds it (rule 7). Returns the id of its operation."""
    with db.write() as change:
        conn = change.conn
        fleet.lock(conn)  # before the node: everybody locks in this order
        node = nodes.get(conn, node_id)
        if node is None:
            raise NotFound("node", node_id)
        possible(refusal_to_roll_back(node))
        spec = _spec(policy_for(conn, node), None, (node.id,), reason)
        made = _begin(change, actor, spec, Resolved((), spec.policy or GroupPolicy(), "", "", (node.id,)), None, now)
        node = locked_node(change, node_id)
        possible(refusal_to_roll_back(node))
        wish, row = wish_of(conn, node, way_back_of(node), made), rollout_nodes.get(conn, made.id, node.id)
        if isinstance(wish, str):
            raise NotPossible("bad-version", f"{node.name} cannot go back: {wish}.")
        assert row is not None, "it was drafted with this node"
        operation = begin(change, actor, node, wish, reason, now)
        mark_ordered(change, row, node, operation, now)
        if override_floor:
            override_within(change, actor, made, reason, now)
        before = {"version": node.version, "slot": node.booted_slot}
        after = {"operation": operation.id, "version": wish.version, "digest": wish.digest, "rollout": made.id}
        record(change, actor, Action.ROLL_BACK, node, reason, before, after, now)
    return operation.id


def _reversible(source: Rollout, wave: int | None) -> None:
    if source.kind is RolloutKind.REBOOT:
        raise NotPossible("no-way-back", "A reboot changed no version: there is nothing to roll back.")
    if source.started_at is None:
        raise NotPossible("not-started", f"Rollout {source.number} moved nothing yet.")
    if wave is None and source.state not in TERMINAL:
        raise NotPossible("not-ended", f"Rollout {source.number} is under way: roll it back itself.")
    if source.state is RolloutState.ROLLING_BACK:
        raise NotPossible("already-underway", f"Rollout {source.number} is rolling back as a whole.")


def _moved_nodes(conn: Connection, source: Rollout, wave: int | None) -> tuple[str, ...]:
    """Those that run what it led to, or are on their way there."""
    rows = rollout_nodes.moved(conn, source.id, wave=wave)
    reached = rollout_facts.reached(conn, source.id)
    moving = {row.node_id for row in rows if row.state is RolloutNodeState.MOVING}
    facts = rollout_facts.Reader(conn, (), source.policy.absent_after_s, source.created_at)
    return tuple(one.id for one in facts.of([row.node_id for row in rows]) if one.digest in reached or one.id in moving)


def _not_under_way(conn: Connection, node_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Without those that are being sent back; NotPossible when these are all, as when somebody asks twice."""
    under_way = rollout_nodes.under_way_back(conn)
    left = tuple(node_id for node_id in node_ids if node_id not in under_way)
    if not left:
        numbers = sorted({under_way[node_id] for node_id in node_ids})
        raise NotPossible("already-underway", f"They are being sent back already, by rollout {numbers[0]}.")
    return left


def _spec(policy: GroupPolicy, group_id: str | None, node_ids: Sequence[str], reason: str) -> RolloutSpec:
    no_gates = replace(policy, canaries=Amount(count=0), windows=(), prometheus=(), health_gate=False)
    return RolloutSpec(
        kind=RolloutKind.ROLLBACK,
        group_id=group_id,
        node_ids=tuple(node_ids),
        policy=replace(no_gates, minimum_age_s=0.0, stage_jitter_s=0.0),
        reason=reason,
    )


def _begin(
    change: Change, actor: Actor, spec: RolloutSpec, resolved: Resolved, source_id: str | None, now: float
) -> Rollout:
    made = draft_within(change, actor, spec, resolved, now, source_id=source_id)
    text = f"Started by {actor.name}{because(spec.reason)}"
    started = {"started_at": now, "moved_at": now}
    enter(change, actor, made, Move.START, text, spec.reason, now, kind=RolloutEventKind.STARTED, **started)
    return made


def _part(wave: int | None) -> str:
    if wave is None:
        return "all of it"
    return "the canaries" if wave == 0 else f"wave {wave}"
