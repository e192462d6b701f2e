"""Granting: one transaction that holds the fleet's row, looks at everything that it takes from anew, and reserves.

Whoever chose the nodes may have looked at an old fleet. Here their rows, their services, the budgets and policies of
their groups and the state of their rollouts are read again, the independent checker says which of them fit beside
what is away now, and only those are granted. Two conductors, or a process that died after choosing, change nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from app.core.events import EventKind
from app.core.leases import ANSWER_WITHIN_S
from app.core.plan_check import Budgets, Costs, check_admitted
from app.core.policy import Policy
from app.core.rollouts import ACTIVE
from app.core.services import label_of
from app.core.snapshot import NodeView, ServiceKey
from app.ids import new_id
from app.services import rollout_canaries
from app.services.away import Away, domains_of, services_of
from app.services.node_views import NodeReader, Setting, read_setting
from app.services.rollout_groups import outside
from app.store import bad_versions, events, fleet, leases, nodes, operations, rollout_nodes, rollouts, ways_back
from app.store import snapshot as store
from app.store.database import Change, Database, Priority
from app.store.leases import Request
from app.store.rollouts import Rollout
from wire.messages import OperationKind


@dataclass(frozen=True, slots=True)
class Chosen:
    """A request that the plan admits."""

    operation_id: str
    node_id: str
    rollout_id: str | None
    kind: OperationKind
    canary: bool


@dataclass(frozen=True, slots=True)
class Applied:
    granted: tuple[str, ...]
    """Operations that have their leases."""
    stale: bool
    """Some were not granted, because the fleet is not what the plan saw: plan anew."""


def apply(db: Database, seen: Setting, chosen: Sequence[Chosen], now: float) -> Applied:
    """Grant those of `chosen` (in this order) that still fit; `seen`: the setting that they were chosen under."""
    with db.write(Priority.BACKGROUND) as change:
        fleet.lock(change.conn)
        for rollout_id in sorted({one.rollout_id for one in chosen if one.rollout_id}):
            rollouts.get(change.conn, rollout_id, lock=True)
        for node_id in sorted(one.node_id for one in chosen):
            nodes.lock_row(change.conn, node_id)
        setting = read_setting(change.conn, now)
        if not same_rules(seen, setting):
            return Applied((), stale=True)
        wanted = _still_wanted(change.conn, chosen, seen, setting)
        fitting = _fitting(change.conn, wanted, setting, now)
        granted = [request.operation_id for request, costs in fitting if _grant(change, request, costs, now)]
    return Applied(tuple(granted), stale=len(granted) < len(chosen))


def same_rules(seen: Setting, setting: Setting) -> bool:
    """Whether groups, their policies and freezes are those that the plan was made under."""
    rules = (setting.groups, setting.ungrouped, setting.freezes)
    return rules == (seen.groups, seen.ungrouped, seen.freezes)


def _still_wanted(
    conn: Connection, chosen: Sequence[Chosen], seen: Setting, setting: Setting
) -> list[tuple[Chosen, Request]]:
    """Those whose request and rollout are still what they were."""
    requests = leases.requests(conn, [one.operation_id for one in chosen])
    before, after = _by_id(seen.rollouts), _by_id(setting.rollouts)
    bad = bad_versions.not_cleared(conn)
    back = ways_back.among(conn, list(requests)) if bad else set()
    forth = rollout_nodes.forth_though_back(conn, [one.operation_id for one in chosen])
    found = []
    for one in chosen:
        request = requests.get(one.operation_id)
        if request is None or setting.now - request.nonce_at > ANSWER_WITHIN_S:
            continue
        if one.rollout_id is not None and not _unchanged(before.get(one.rollout_id), after.get(one.rollout_id)):
            continue
        shunned = bad.get(request.target_digest)
        if shunned is not None and shunned.stops(one.operation_id in back):
            continue  # bad since: its rollout is halted, or its order called back, in a moment
        if one.operation_id in forth:
            continue  # no way back, which would pass the canaries, and it is called back in a moment
        found.append((one, request))
    return _behind_their_canaries(conn, found, after, setting)


def _by_id(found: Iterable[Rollout]) -> dict[str, Rollout]:
    return {rollout.id: rollout for rollout in found}


def _unchanged(before: Rollout | None, after: Rollout | None) -> bool:
    """Whether the rollout runs, under the policy that the plan saw."""
    if before is None or after is None or after.state not in ACTIVE:
        return False
    return _rules_of(before) == _rules_of(after)


def _rules_of(rollout: Rollout) -> Rollout:
    plain = replace(rollout, state_text="", forecast=None, moved_at=None, canaries_soaked_at=None)
    return replace(plain, canaries_waited_s=0.0, canaries_clock_at=None)


def _behind_their_canaries(
    conn: Connection, found: Sequence[tuple[Chosen, Request]], by_id: Mapping[str, Rollout], setting: Setting
) -> list[tuple[Chosen, Request]]:
    """Without those whose rollout has a canary that is not through, also one that came in or failed just now; or one
    that is through and cannot be seen to be well while the time after it is not over by what was counted."""
    gated = sorted(
        {
            one.rollout_id
            for one, _ in found
            if one.rollout_id is not None and not one.canary and not by_id[one.rollout_id].leads_back
        }
    )
    progress = store.progress(conn, gated) if gated else {}
    waits = {id for id in gated if progress.get(id, store.NO_PROGRESS).canaries_left}
    waits |= rollout_canaries.unwell(conn, [by_id[id] for id in gated], setting.now, setting.gateways).keys()
    return [(one, request) for one, request in found if one.canary or one.rollout_id not in waits]


# --- what fits ----------------------------------------------------------------------------------------------


def _fitting(
    conn: Connection, wanted: Sequence[tuple[Chosen, Request]], setting: Setting, now: float
) -> list[tuple[Request, Costs]]:
    """Those that fit beside what is away now, with what they take."""
    if not wanted:
        return []
    reader = NodeReader(setting)
    views = {view.id: view for view in reader.read(conn, sorted(one.node_id for one, _ in wanted))}
    keys = list(reader.service_place)
    by_id = _by_id(setting.rollouts)
    able = [
        (one, request)
        for one, request in wanted
        if _may_move(views.get(one.node_id), request)
        and not _noted_since(views[one.node_id], one, request, back=_leads_back(one, by_id))
        and not (one.rollout_id is not None and outside(by_id[one.rollout_id], views[one.node_id].groups))
    ]
    allowed = {rollout.id: rollout.allowances for rollout in setting.rollouts}
    costs = [
        _costs(views[one.node_id], one, request, keys, setting, allowed.get(one.rollout_id or "", frozenset()))
        for one, request in able
    ]
    away = Away(conn, setting)
    limits = Budgets(
        services=services_of(conn, away, costs, setting, now),
        groups=away.groups({group for one in costs for group in one.groups}),
        domains=away.domains({domain for one in costs for domain in one.domains}),
        exposures=_exposures(conn, {one.rollout for one in costs if one.rollout}, by_id),
    )
    forward = [one.node_id for one, _ in able if not one.canary and not _leads_back(one, by_id)]
    refused = away.out_of_turn([views[node_id] for node_id in forward])
    refused |= {violation.node for violation in check_admitted(costs, limits)}
    return [(request, taken) for (_, request), taken in zip(able, costs, strict=True) if taken.node not in refused]


def _leads_back(one: Chosen, by_id: Mapping[str, Rollout]) -> bool:
    return one.kind is OperationKind.ROLLBACK or (one.rollout_id is not None and by_id[one.rollout_id].leads_back)


def _may_move(view: NodeView | None, request: Request) -> bool:
    if view is None or not view.online or not view.commandable or view.absent or view.reserved:
        return False
    return view.placement_known or not view.up or request.override_floor


def _noted_since(view: NodeView, one: Chosen, request: Request, *, back: bool) -> bool:
    """It was pinned elsewhere, or the version failed on it, since the plan was made; the next one says so."""
    digest = request.target_digest
    if one.kind is OperationKind.REBOOT or not digest:
        return False
    pinned = not back and view.pinned_to != "" and view.pin_digest != digest
    return pinned or (digest in view.failed and not request.override_failed)


def _costs(
    view: NodeView,
    one: Chosen,
    request: Request,
    keys: Sequence[ServiceKey],
    setting: Setting,
    allowed: frozenset[ServiceKey],
) -> Costs:
    return Costs(
        node=view.id,
        already_missing=view.missing,
        services={keys[place]: replicas for place, replicas in view.placements} if view.up else {},
        groups=view.groups,
        domains=domains_of(view, setting),
        rollout=one.rollout_id or "",
        override_floor=request.override_floor,
        allowed=allowed,
    )


def _exposures(conn: Connection, rollout_ids: set[str], by_id: Mapping[str, Rollout]) -> dict[str, tuple[int, int]]:
    forward = {id for id in rollout_ids if not by_id[id].leads_back}
    if not forward:
        return {}
    exposed = Counter(store.exposures(conn).values())
    progress = store.progress(conn, sorted(forward))
    return {
        id: (exposed[id], by_id[id].policy.max_unavailable.of(progress.get(id, store.NO_PROGRESS).size))
        for id in forward
    }


# --- granting -----------------------------------------------------------------------------------------------


def _grant(change: Change, request: Request, costs: Costs, now: float) -> bool:
    conn = change.conn
    node = nodes.get(conn, request.node_id)
    assert node is not None, "its row is held"
    duration_s = lease_s(request)
    taken = [(scope, name, replicas) for (scope, name), replicas in sorted(costs.services.items())]
    granted = leases.grant(
        conn,
        request,
        lease_id=new_id("lease"),
        duration_s=duration_s,
        old_boot_id=node.boot_id,
        costs=taken,
        now=now,
    )
    if granted:
        operations.start_under_lease(conn, request.operation_id, node.id)
        events.append(
            conn,
            node_id=node.id,
            at=now,
            kind=EventKind.LEASE_GRANTED,
            text=_granted_text(taken, duration_s),
            operation_id=request.operation_id,
            boot_id=node.boot_id,
        )
        change.touch(f"desired:{node.id}", f"node:{node.id}", "events", "operations")
    return granted


def _granted_text(taken: Sequence[tuple[str, str, int]], duration_s: float) -> str:
    text = f"Has the lease: within {duration_s:.0f} s it may arm and reboot"
    if not taken:
        return text
    named = [f"{replicas} of {label_of((scope, name))}" for scope, name, replicas in taken[:3]]
    more = f" and of {len(taken) - 3} more" if len(taken) > 3 else ""
    return f"{text}, taking {', '.join(named)}{more} along"


def lease_s(request: Request) -> float:
    """For arming, and for draining before it."""
    drain_s: float = (request.policy.get("delivery") or {}).get("drain_s", 0.0)
    found: float = request.policy.get("lease_s", Policy().lease_s)
    return found + drain_s
