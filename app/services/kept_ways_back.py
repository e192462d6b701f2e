"""Ways back that are kept for rollouts that are not over (rule 2): in plans, and where an operator names a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection

from app.core.errors import NotPossible
from app.core.nodes import Node
from app.core.planning.standing import leads_back
from app.core.rollout_entry import Keeper, keeping_hold
from app.core.rollouts import RolloutKind
from app.core.snapshot import Candidate, RolloutView, Snapshot
from app.store import kept_ways_back


def refusal_to_write(conn: Connection, node: Node) -> NotPossible | None:
    """An update would write the slot that a rollout under way leads back to."""
    keeper = kept_ways_back.keeper_of(conn, node.id)
    if keeper is None:
        return None
    text = f"{node.name} {keeping_hold(keeper).text}: let that finish or abort it first, or roll {node.name} back."
    return NotPossible("keeping-way-back", text)


def with_kept(snapshot: Snapshot, kept: Mapping[str, Keeper]) -> Snapshot:
    """The fleet with what holds those that have no order yet. `kept`: by id of the node."""
    if not kept:
        return snapshot
    nodes, rollouts = snapshot.nodes, snapshot.rollouts
    held = tuple(with_keeper(one, rollouts[one.rollout], kept.get(nodes[one.node].id)) for one in snapshot.candidates)
    return replace(snapshot, candidates=held)


def with_keeper(candidate: Candidate, rollout: RolloutView, keeper: Keeper | None) -> Candidate:
    """The candidate, held if its rollout would write the slot that is kept."""
    writes = rollout.kind is RolloutKind.UPDATE and not leads_back(rollout)
    if keeper is None or candidate.operation_id or not writes or keeper.rollout_id == rollout.id:
        return candidate
    return replace(candidate, kept=keeping_hold(keeper))
