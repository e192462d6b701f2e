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
from app.core.freezes import freeze_hold
from app.core.group_policy import GroupPolicy
from app.core.holds import Hold, HoldCode
from app.core.leases import ANSWER_WITHIN_S, retry_s
from app.core.plan_check import Budgets, Costs, check_admitted
from app.core.policy import Policy
from app.core.rollouts import ACTIVE
from app.core.services import label_of, scope_of
from app.core.snapshot import NodeView, ServiceKey, ServiceView
from app.ids import new_id
from app.services.admission_view import UNGROUPED, NodeReader, Setting, read_setting
from app.services.service_views import service_views
from app.store import budgets, events, fleet, groups, leases, nodes, operations, rollouts
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
    found = []
    for one in chosen:
        request = requests.get(one.operation_id)
        if request is None or setting.now - request.nonce_at > ANSWER_WITHIN_S:
            continue
        if one.rollout_id is not None and not _unchanged(before.get(one.rollout_id), after.get(one.rollout_id)):
            continue
        found.append((one, request))
    return _behind_their_canaries(conn, found, after)


def _by_id(found: Iterable[Rollout]) -> dict[str, Rollout]:
    return {rollout.id: rollout for rollout in found}


def _unchanged(before: Rollout | None, after: Rollout | None) -> bool:
    """Whether the rollout runs, under the policy that the plan saw."""
    if before is None or after is None or after.state not in ACTIVE:
        return False
    return _rules_of(before) == _rules_of(after)


def _rules_of(rollout: Rollout) -> Rollout:
    return replace(rollout, state_text="", forecast=None, moved_at=None, canaries_soaked_at=None)


def _behind_their_canaries(
    conn: Connection, found: Sequence[tuple[Chosen, Request]], by_id: Mapping[str, Rollout]
) -> list[tuple[Chosen, Request]]:
    """Without those whose rollout has a canary that is not through: also one that came in or failed just now."""
    gated = sorted(
        {
            one.rollout_id
            for one, _ in found
            if one.rollout_id is not None and not one.canary and not by_id[one.rollout_id].leads_back
        }
    )
    progress = store.progress(conn, gated) if gated else {}
    waits = {id for id in gated if progress.get(id, store.NO_PROGRESS).canaries_left}
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
    able = [(one, request) for one, request in wanted if _may_move(views.get(one.node_id), request)]
    costs = [_costs(views[one.node_id], one, request, keys, setting) for one, request in able]
    away = Away(conn, setting)
    limits = Budgets(
        services={
            key: (healthy, view.floor)
            for key, (healthy, view) in _services(conn, away, costs, setting, now).items()
            if view.floor is not None
        },
        groups=away.groups({group for one in costs for group in one.groups}),
        domains=away.domains({domain for one in costs for domain in one.domains}),
        exposures=_exposures(conn, {one.rollout for one in costs if one.rollout}, by_id),
    )
    forward = [one.node_id for one, _ in able if not _leads_back(one, by_id)]
    refused = away.out_of_turn([views[node_id] for node_id in forward])
    refused |= {violation.node for violation in check_admitted(costs, limits)}
    return [(request, taken) for (_, request), taken in zip(able, costs, strict=True) if taken.node not in refused]


def _leads_back(one: Chosen, by_id: Mapping[str, Rollout]) -> bool:
    return one.kind is OperationKind.ROLLBACK or (one.rollout_id is not None and by_id[one.rollout_id].leads_back)


def _may_move(view: NodeView | None, request: Request) -> bool:
    if view is None or not view.online or not view.commandable or view.absent or view.reserved:
        return False
    return view.placement_known or not view.up or request.override_floor


def _costs(view: NodeView, one: Chosen, request: Request, keys: Sequence[ServiceKey], setting: Setting) -> Costs:
    return Costs(
        node=view.id,
        already_missing=view.missing,
        services={keys[place]: replicas for place, replicas in view.placements} if view.up else {},
        groups=view.groups,
        domains=domains_of(view, setting),
        rollout=one.rollout_id or "",
        override_floor=request.override_floor,
    )


def domains_of(view: NodeView, setting: Setting) -> list[tuple[str, str]]:
    """(group, value of its domain label) for groups of the node that limit their domains."""
    return [
        (group.id, view.labels.get(group.policy.domain_label, ""))
        for group in setting.groups
        if group.id in view.groups and group.policy.domain_label and group.policy.max_per_domain
    ]


def _services(
    conn: Connection, away: Away, costs: Sequence[Costs], setting: Setting, now: float
) -> dict[ServiceKey, tuple[int, ServiceView]]:
    """(healthy on nodes that are up, the service) of each that one of these takes from."""
    keys = {key for one in costs for key in one.services}
    if not keys:
        return {}
    names = {group.name for group in setting.groups}
    raw = sorted(keys | {("", name) for scope, name in keys if scope in names})
    healthy: Counter[ServiceKey] = Counter(dict.fromkeys(sorted(keys), 0))
    for row in budgets.serving(conn, away.up, raw):
        key = (scope_of(row.scope, setting.group_of(row.labels)), row.service)
        if key in keys:
            healthy[key] += row.n
    for said in budgets.declared(conn, away.up):
        for scope, name, replicas in said:
            if (scope, name) in keys:
                healthy[(scope, name)] += replicas
    views = service_views(conn, healthy, names, setting.frozen, now)
    return {key: (healthy[key], views[key]) for key in views}


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


class Away:
    """Members that do not serve now, counted for groups and domains."""

    def __init__(self, conn: Connection, setting: Setting) -> None:
        self._conn, self._setting = conn, setting
        fresh = [id for id in setting.gateways if setting.fresh(id)]
        self.up = budgets.up(fresh)
        found = NodeReader(setting).read(conn, budgets.not_serving(conn, self.up))
        self.nodes = [view for view in found if not view.absent]
        self._absent = [view for view in found if view.absent]

    def groups(self, ids: set[str]) -> dict[str, tuple[int, int]]:
        missing = Counter(group for view in self.nodes if view.missing for group in view.groups)
        return {id: (missing[id], self._most(id)) for id in ids}

    def domains(self, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, int]]:
        missing = Counter(domain for view in self.nodes if view.missing for domain in domains_of(view, self._setting))
        return {domain: (missing[domain], self._policy(domain[0]).max_per_domain) for domain in wanted}

    def out_of_turn(self, chosen: Sequence[NodeView]) -> set[str]:
        """Nodes of groups that move one domain after another, when another domain is under way."""
        refused: set[str] = set()
        for group in self._setting.groups:
            label = group.policy.domain_label
            if not group.policy.one_domain_after_another or not label:
                continue
            busy = {view.labels.get(label, "") for view in self._under_way() if group.id in view.groups}
            for view in chosen:
                value = view.labels.get(label, "")
                if group.id not in view.groups:
                    continue
                if busy - {value}:
                    refused.add(view.id)
                elif view.id not in refused:
                    busy = {value}
        return refused

    def _under_way(self) -> list[NodeView]:
        """Reserved or on trial, which are among those that do not serve, and soaking, which are not."""
        soaking = NodeReader(self._setting).read(self._conn, sorted(store.exposures(self._conn)))
        return [view for view in self.nodes if view.reserved or view.on_trial] + soaking

    def _most(self, group_id: str) -> int:
        limit = self._policy(group_id).max_unavailable
        if limit.count is not None:
            return limit.count
        group = next(each for each in self._setting.groups if each.id == group_id)
        absent = sum(group_id in view.groups for view in self._absent)
        return limit.of(groups.members(self._conn, group.selector) - absent)

    def _policy(self, group_id: str) -> GroupPolicy:
        if group_id == UNGROUPED:
            return self._setting.ungrouped
        return next(each.policy for each in self._setting.groups if each.id == group_id)


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


# --- renewing -----------------------------------------------------------------------------------------------


def renew(db: Database, operation_ids: Sequence[str], now: float) -> None:
    """Requests of nodes whose lease is still out on the same boot: under the new nonce, while that breaks nothing.

    Their reservations count already, so it breaks nothing when all limits hold with them away. Else they wait, and
    what they hold stays reserved, for nobody knows whether they use it.
    """
    with db.write(Priority.BACKGROUND) as change:
        fleet.lock(change.conn)
        for node_id in sorted(leases.nodes_of(change.conn, operation_ids)):
            nodes.lock_row(change.conn, node_id)
        setting = read_setting(change.conn, now)
        away = Away(change.conn, setting)
        for found in leases.asking_again(change.conn, now - ANSWER_WITHIN_S, operation_ids):
            hold = _stopped(found, setting) or _over_limits(change.conn, found.lease, away, setting, now)
            if hold is None:
                leases.renew(change.conn, found.lease, found.nonce, now)
            else:
                told = {"code": hold.code.value, "text": hold.text, "retry_s": retry_s(0), "nonce": found.nonce}
                operations.answer_to_wait(change.conn, found.lease.operation_id, found.nonce, told)
            change.touch(f"desired:{found.lease.node_id}")


def _stopped(found: leases.Renewal, setting: Setting) -> Hold | None:
    """Its rollout does not run, or a freeze holds it."""
    rollout = _by_id(setting.rollouts).get(found.rollout_id) if found.rollout_id else None
    if found.rollout_id and (rollout is None or rollout.state not in ACTIVE):
        return Hold(HoldCode.NOT_RUNNING, "waits for its rollout, which does not run", found.rollout_id)
    if found.kind == OperationKind.ROLLBACK or (rollout is not None and (rollout.leads_back or rollout.break_glass)):
        return None
    return freeze_hold(setting.freezes, [group.id for group in setting.grouping.of(found.labels)], setting.now)


def _over_limits(conn: Connection, held: leases.Lease, away: Away, setting: Setting, now: float) -> Hold | None:
    taken = {(scope, name): replicas for scope, name, replicas in held.costs}
    costs = Costs(held.node_id, True, taken, (), (), "")
    for key, (healthy, view) in _services(conn, away, [costs], setting, now).items():
        if view.floor is not None and healthy < view.floor:
            text = f"asked again, and {label_of(key)} has {healthy} replicas beside it now, floor {view.floor}"
            return Hold(HoldCode.SERVICE_FLOOR, text, label_of(key))
    view_of = {view.id: view for view in away.nodes}
    groups_of = set(view_of[held.node_id].groups) if held.node_id in view_of else set()
    for group, (missing, most) in away.groups(groups_of).items():
        if missing > most:
            text = f"asked again, and its group misses {missing} nodes with it now, at most {most}"
            return Hold(HoldCode.GROUP_BUDGET, text, group)
    return None
