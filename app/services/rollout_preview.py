"""What a rollout would do if it were started now: a plan over the whole fleet as it is, and nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from app.core.canaries import pick
from app.core.errors import Invalid, NotFound
from app.core.estimate import Estimate, estimate
from app.core.plan import Impossible, Plan
from app.core.planner import plan
from app.core.rollout_entry import Keeper, Out, Targets
from app.core.rollouts import ACTIVE, RolloutKind, RolloutState
from app.core.snapshot import Candidate, RolloutView, Snapshot
from app.services.fleet_plans import FleetPlans
from app.services.fleet_snapshot import gather
from app.services.kept_ways_back import with_kept
from app.services.rollout_groups import entry_targets
from app.services.rollout_spec import RolloutSpec, as_now, members, resolve, rollout_of
from app.store import kept_ways_back, rollout_facts, rollout_nodes, rollouts
from app.store.database import Database
from app.store.rollout_facts import Facts
from app.store.rollouts import Rollout


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A node that the rollout is about and does not move."""

    node_id: str
    name: str
    out: Out


@dataclass(frozen=True, slots=True)
class Preview:
    rollout: Rollout
    snapshot: Snapshot
    plan: Plan
    place: int
    """Index of the rollout in snapshot.rollouts."""
    left: tuple[LeftOut, ...]
    entering: tuple[Facts, ...]
    """Nodes that it moves, sooner or later; only before the start."""
    canaries: frozenset[str]
    """Ids of nodes."""
    drafted: Rollout | None = None
    """A draft as it was drafted; `rollout` is as it would be started now."""
    invalid: str = ""
    """Why its group's policy and its own do not go together any more; `rollout` is as it was drafted then."""

    @property
    def estimate(self) -> Estimate:
        """How long it takes from now, or why it never ends."""
        if self.place < 0:  # it has ended
            return Estimate(0.0, 0.0)
        return estimate(self.plan, self.snapshot, self.place)

    @property
    def candidates(self) -> list[int]:
        """Indexes of its candidates in snapshot.candidates."""
        return [number for number, candidate in enumerate(self.snapshot.candidates) if candidate.rollout == self.place]

    def waves(self) -> list[list[str]]:
        """Ids of its own nodes by wave, the canaries first; waves without any of its nodes are left out."""
        own = {self.snapshot.candidates[number].node for number in self.candidates}
        mine = [[self.snapshot.nodes[node].id for node in wave.nodes if node in own] for wave in self.plan.waves]
        return [nodes for nodes in mine if nodes]

    def impossible(self) -> list[Impossible]:
        """What keeps nodes of it from ever moving, so that starting it for them is in vain: everything but freezes."""
        own = {self.snapshot.candidates[number].node for number in self.candidates}
        return [found for found in self.plan.impossible if not found.waits and own & set(found.nodes)]

    def impossible_nodes(self) -> set[str]:
        """Ids of its nodes that can never move unless somebody changes something."""
        own = {self.snapshot.candidates[number].node for number in self.candidates}
        return {self.snapshot.nodes[node].id for found in self.impossible() for node in found.nodes if node in own}


_NEW_ID = "rollout_preview"


def preview(db: Database, what: RolloutSpec | str, now: float, plans: FleetPlans | None = None) -> Preview:
    """Of a composed rollout, or of one that was drafted or started (by its id). `plans`: for one that was started, a
    plan of the last seconds is good enough."""
    with db.read() as conn:
        rollout, chosen = _found(conn, what, now)
        if rollout.state is not RolloutState.DRAFT:
            return _of_started(db, rollout, now, plans or FleetPlans())
        drafted, invalid = rollout, ""
        try:
            rollout = as_now(conn, drafted)
        except Invalid as error:
            invalid = error.text
        facts = members(conn, rollout, chosen, now)
        targets = rollout_facts.targets(conn, rollout.targets)
        kept = kept_ways_back.all_kept(conn)
        entry = entry_targets(conn, rollout)
    entering, left = _sorted(rollout, entry, facts)
    view = RolloutView(
        id=rollout.id,
        name=rollout.name,
        kind=rollout.kind,
        state=RolloutState.RUNNING,
        policy=rollout.policy,
        targets=targets,
        created_at=rollout.created_at,
        reverse=rollout.leads_back,
        allow_downgrade=rollout.allow_downgrade,
        break_glass=rollout.break_glass,
        size=len(entering),
    )
    barred = {one.id for one in entering if entry.standing_hold(one) is not None}
    made = _planned(rollout, _without(gather(db, now), rollout), view, entering, left, kept, barred, now)
    return replace(made, drafted=drafted, invalid=invalid)


def _found(conn: Connection, what: RolloutSpec | str, now: float) -> tuple[Rollout, Sequence[str]]:
    if isinstance(what, RolloutSpec):
        resolved = resolve(conn, what)
        number = rollouts.next_number(conn)
        return rollout_of(what, resolved, id=_NEW_ID, number=number, actor="", now=now), resolved.node_ids
    rollout = rollouts.get(conn, what)
    if rollout is None:
        raise NotFound("rollout", what)
    return rollout, sorted(rollout_nodes.node_ids(conn, rollout.id))


def _of_started(db: Database, rollout: Rollout, now: float, plans: FleetPlans) -> Preview:
    snapshot, planned = plans.get(db, now, rollout if rollout.state in ACTIVE else None)
    place = next((number for number, view in enumerate(snapshot.rollouts) if view.id == rollout.id), -1)
    with db.read() as conn:
        canaries = frozenset(row.node_id for row in rollout_nodes.canaries(conn, rollout.id))
    return Preview(rollout, snapshot, planned, place, (), (), canaries)


def _sorted(
    rollout: Rollout, targets: Targets, facts: Sequence[Facts]
) -> tuple[tuple[Facts, ...], tuple[LeftOut, ...]]:
    entering, left = [], []
    for one in facts:
        out = Out("it is left out by its author") if one.id in rollout.left_out else targets.stays_out(one)
        if out is None:
            entering.append(one)
        else:
            left.append(LeftOut(one.id, one.name, out))
    return tuple(entering), tuple(left)


def _without(snapshot: Snapshot, rollout: Rollout) -> Snapshot:
    """The fleet without what is stored of this draft; and with what it allows."""
    places = {number for number, view in enumerate(snapshot.rollouts) if view.id == rollout.id}
    services = tuple(
        replace(service, allowed_for=(rollout.id,)) if service.key in rollout.allowances else service
        for service in snapshot.services
    )
    candidates = tuple(candidate for candidate in snapshot.candidates if candidate.rollout not in places)
    return replace(snapshot, services=services, candidates=candidates)


def _planned(
    rollout: Rollout,
    snapshot: Snapshot,
    view: RolloutView,
    entering: tuple[Facts, ...],
    left: tuple[LeftOut, ...],
    kept: Mapping[str, Keeper],
    barred: set[str],
    now: float,
) -> Preview:
    place_of = {node.id: number for number, node in enumerate(snapshot.nodes)}
    nodes = [place_of[facts.id] for facts in entering if facts.id in place_of]
    policy = rollout.policy
    wanted = policy.canaries.of(len(nodes)) if rollout.kind is not RolloutKind.ROLLBACK else 0
    able = [node for node in nodes if snapshot.nodes[node].id not in barred]
    first = _canaries(snapshot, able or nodes, wanted, rollout, kept)
    place = len(snapshot.rollouts)
    own = tuple(
        Candidate(node=node, rollout=place, operation_id="", ready=False, canary=node in first, since=now)
        for node in nodes
    )
    whole = replace(
        snapshot,
        rollouts=(*snapshot.rollouts, replace(view, canaries_left=len(first))),
        candidates=(*snapshot.candidates, *own),
    )
    whole = with_kept(whole, kept)
    canaries = frozenset(snapshot.nodes[node].id for node in first)
    return Preview(rollout, whole, plan(whole), place, left, entering, canaries)


def _canaries(
    snapshot: Snapshot, nodes: Sequence[int], wanted: int, rollout: Rollout, kept: Mapping[str, Keeper]
) -> set[int]:
    """Who keeps its way back for another rollout goes first only where there are too few others: all would wait."""
    held = {node for node in nodes if rollout.kind is RolloutKind.UPDATE and snapshot.nodes[node].id in kept}
    label = rollout.policy.domain_label
    first = pick(snapshot, [node for node in nodes if node not in held], wanted, label)
    return {*first, *pick(snapshot, [node for node in nodes if node in held], wanted - len(first), label)}
