"""What is away now and what serves, counted anew inside the transaction that grants: never from anything remembered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import Connection

from app.core.group_policy import GroupPolicy
from app.core.plan_check import Costs, Supply
from app.core.services import scope_of
from app.core.snapshot import NodeView, ServiceKey
from app.services.node_views import UNGROUPED, NodeReader, Setting
from app.services.service_views import service_views
from app.store import budgets, groups
from app.store import snapshot as store


class Away:
    """Members that do not serve now, counted for groups and domains."""

    def __init__(self, conn: Connection, setting: Setting) -> None:
        self._conn, self._setting = conn, setting
        fresh = [id for id in setting.gateways if setting.fresh(id)]
        self.up = budgets.up(fresh)
        reader = NodeReader(setting)
        found = reader.read(conn, budgets.not_serving(conn, self.up))
        self._services = list(reader.service_place)
        self.nodes = [view for view in found if not view.absent]
        self._absent = [view for view in found if view.absent]

    def reserved(self) -> Counter[ServiceKey]:
        """Replicas that leases have taken."""
        taken: Counter[ServiceKey] = Counter()
        for view in self.nodes:
            for place, replicas in view.placements if view.reserved else ():
                taken[self._services[place]] += replicas
        return taken

    def groups(self, ids: set[str]) -> dict[str, tuple[int, int]]:
        missing = Counter(group for view in self.nodes if view.missing for group in view.groups)
        return {id: (missing[id], self._most(id)) for id in ids}

    def domains(self, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, int]]:
        missing = Counter(domain for view in self.nodes if view.missing for domain in domains_of(view, self._setting))
        return {domain: (missing[domain], self._policy(domain[0]).max_per_domain) for domain in wanted}

    def out_of_turn(self, chosen: Sequence[NodeView]) -> set[str]:
        """Nodes whose policy group moves one domain after another, when it is another one's turn: that of the first
        by name in which a node is under way, else of the node that was chosen first."""
        refused: set[str] = set()
        for group in self._setting.groups:
            label = group.policy.domain_label
            if not group.policy.one_domain_after_another or not label:
                continue
            bound = [view for view in chosen if view.groups[0] == group.id]
            busy = (
                {view.labels.get(label, "") for view in self._under_way() if group.id in view.groups} if bound else ()
            )
            turn = min(busy, default=None)
            for view in bound:
                value = view.labels.get(label, "")
                turn = value if turn is None else turn
                if value != turn:
                    refused.add(view.id)
        return refused

    def _under_way(self) -> list[NodeView]:
        """Reserved or on trial, which are among those that do not serve, and soaking, which are not. Who is absent
        counts nowhere, and keeps no domain's turn."""
        exposed = NodeReader(self._setting).read(self._conn, sorted(store.exposures(self._conn)))
        soaking = [view for view in exposed if not view.absent]
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


def domains_of(view: NodeView, setting: Setting) -> list[tuple[str, str]]:
    """(group, value of its domain label) for groups of the node that limit their domains."""
    return [
        (group.id, view.labels.get(group.policy.domain_label, ""))
        for group in setting.groups
        if group.id in view.groups and group.policy.domain_label and group.policy.max_per_domain
    ]


def services_of(
    conn: Connection, away: Away, costs: Sequence[Costs], setting: Setting, now: float
) -> dict[ServiceKey, Supply]:
    """Of each service with a floor that one of these takes from."""
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
    reserved = away.reserved()
    views = service_views(conn, healthy, names, setting.frozen, now)
    return {
        key: Supply(healthy[key], view.expected, reserved[key], view.floor)
        for key, view in views.items()
        if view.floor is not None
    }
