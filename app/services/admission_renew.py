"""Renewing: a node whose lease is out asks again, and goes on only while that still breaks nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from app.core.domains import Loss
from app.core.freezes import freeze_hold
from app.core.holds import Hold, HoldCode
from app.core.leases import ANSWER_WITHIN_S, retry_s
from app.core.plan_check import Budgets, Costs, Supply, check_admitted
from app.core.rollouts import ACTIVE
from app.core.services import label_of
from app.core.snapshot import NodeView, ServiceKey
from app.core.windows import is_open
from app.services.away import Away, domains_of, services_of
from app.services.domain_losses import current
from app.services.node_views import NodeReader, Setting, read_setting
from app.services.rollout_groups import outside
from app.services.rollout_views import loss_holds
from app.store import bad_versions, fleet, leases, nodes, operations
from app.store.bad_versions import BadVersion
from app.store.database import Database, Priority
from app.store.renewals import Renewal, asking_again
from app.store.rollouts import Rollout
from wire.messages import OperationKind

Shut = Callable[[Setting], Mapping[str, tuple[Hold, ...]]]
"""By rollout, and by group for orders to one of its nodes: the health gates that are shut."""


def renew(db: Database, operation_ids: Sequence[str], now: float, shut: Shut = lambda setting: {}) -> None:
    """Requests of nodes whose lease is still out on the same boot: under the new nonce, while that breaks nothing.

    Each is looked at as if it asked for the first time, with what runs on it now: a replica may have moved to it since,
    another have died, its version have become bad. Those that do not fit wait, and what they hold stays reserved, for
    nobody knows whether they use it.
    """
    with db.write(Priority.BACKGROUND) as change:
        fleet.lock(change.conn)
        for node_id in sorted(leases.nodes_of(change.conn, operation_ids)):
            nodes.lock_row(change.conn, node_id)
        setting = read_setting(change.conn, now)
        away, losses = Away(change.conn, setting), current(change.conn, now, setting.groups)
        gates, bad = shut(setting), bad_versions.not_cleared(change.conn)
        for found in asking_again(change.conn, now - ANSWER_WITHIN_S, operation_ids):
            as_now = _Now(change.conn, found, away, setting)
            hold = _stopped(found, setting, losses, gates) or as_now.hold(bad)
            if hold is None:
                taken = [(scope, name, replicas) for (scope, name), replicas in sorted(as_now.taken.items())]
                if leases.renew(change.conn, found.lease, found.nonce, taken, now):
                    operations.not_held(change.conn, found.lease.operation_id)
            else:
                told = {"code": hold.code.value, "text": hold.text, "retry_s": retry_s(0), "nonce": found.nonce}
                operations.answer_to_wait(change.conn, found.lease.operation_id, found.nonce, told)
            change.touch(f"desired:{found.lease.node_id}")


def _stopped(
    found: Renewal, setting: Setting, losses: Sequence[Loss], gates: Mapping[str, tuple[Hold, ...]]
) -> Hold | None:
    """Its rollout does not run or is about a group that it is not of any more, a freeze holds it, its window has
    closed, much of a domain was lost at once, or a health gate is shut."""
    rollout = next((each for each in setting.rollouts if each.id == found.rollout_id), None)
    if found.rollout_id and (rollout is None or rollout.state not in ACTIVE):
        return Hold(HoldCode.NOT_RUNNING, "waits for its rollout, which does not run", found.rollout_id)
    if _leads_back(found, rollout):
        return None
    member_of, passes = setting.grouping.of(found.labels), rollout is not None and rollout.break_glass
    if rollout is not None and outside(rollout, [group.id for group in member_of]):
        text = f"asked again, and is not of group {rollout.group_name} any more, which {rollout.name} is about"
        return Hold(HoldCode.OTHER_GROUP, text, rollout.group_id or "")
    frozen = None if passes else freeze_hold(setting.freezes, [group.id for group in member_of], setting.now)
    if frozen is not None:
        return frozen
    if member_of and not passes and not is_open(member_of[0].policy.windows, setting.now):
        return Hold(HoldCode.WINDOW, f"asked again, and the window of group {member_of[0].name} has closed")
    asked = found.rollout_id or (member_of[0].id if member_of else "")
    return next(iter((*loss_holds(losses, setting.now), *gates.get(asked, ()))), None)


def _leads_back(found: Renewal, rollout: Rollout | None) -> bool:
    return found.kind == OperationKind.ROLLBACK or (rollout is not None and rollout.leads_back)


def _barred(found: Renewal, node: NodeView, bad: Mapping[str, BadVersion], back: bool) -> Hold | None:
    """Its version became bad since, here or everywhere, or the node was pinned to another; pins do not stop the way
    back, nor does what failed elsewhere."""
    if not found.digest:
        return None
    if node.pinned_to and node.pin_digest != found.digest and not back:
        return Hold(HoldCode.PINNED, f"asked again, and is pinned to {node.pinned_to} now", node.id)
    if found.digest in node.failed and not found.override_failed:
        return Hold(HoldCode.FAILED_HERE, f"asked again, and {found.version} failed on it since", node.id)
    shunned = bad.get(found.digest)
    if shunned is not None and shunned.stops(back):
        return Hold(HoldCode.BAD_VERSION, f"asked again, and {found.version} is bad: {shunned.reason}", found.digest)
    return None


class _Now:
    """What a node under a lease takes as things are now, and what holds it: the checker that grants, on its own."""

    def __init__(self, conn: Connection, found: Renewal, away: Away, setting: Setting) -> None:
        self._conn, self._found, self._away, self._setting = conn, found, away, setting
        reader = NodeReader(setting)
        self._view = next(iter(reader.read(conn, [found.lease.node_id])), None)
        keys = list(reader.service_place)
        placements = self._view.placements if self._view is not None else ()
        self.taken = {keys[place]: replicas for place, replicas in placements}

    def hold(self, bad: Mapping[str, BadVersion]) -> Hold | None:
        """`bad`: by digest."""
        view, override = self._view, self._found.override_floor
        if view is None or view.absent or not view.online or not view.commandable:
            return Hold(HoldCode.OFFLINE, "asked again, and cannot be reached now", self._found.lease.node_id)
        if not (override or (view.placement_known and self._found.placement_told)):
            text = "asked again, and what runs on it is not known, and it may be a service"
            return Hold(HoldCode.PLACEMENT_UNKNOWN, text, view.id)
        rollout = next((each for each in self._setting.rollouts if each.id == self._found.rollout_id), None)
        barred = _barred(self._found, view, bad, _leads_back(self._found, rollout))
        if barred is not None:
            return barred
        costs = Costs(
            node=view.id,
            already_missing=replace(view, reserved=False).missing,
            services=self.taken,
            groups=view.groups,
            domains=domains_of(view, self._setting),
            rollout="",  # it is exposed to it already
            override_floor=override,
            allowed=rollout.allowances if rollout is not None else frozenset(),
        )
        return self._over(costs)

    def _over(self, costs: Costs) -> Hold | None:
        """The first limit that it breaks. Its own reservation is not counted beside what it takes."""
        own = 0 if costs.already_missing else 1
        names = {group.id: f"group {group.name}" for group in self._setting.groups}
        for key, supply in self._supplies(costs).items():
            if check_admitted([costs], Budgets(services={key: supply})):
                left = f"{supply.counted - self.taken[key]} of {supply.expected} expected replicas"
                text = f"asked again, and {label_of(key)} has {left} beside it now, floor {supply.floor}"
                return Hold(HoldCode.SERVICE_FLOOR, text, label_of(key))
        for group, (missing, most) in self._away.groups(set(costs.groups)).items():
            if check_admitted([costs], Budgets(groups={group: (missing - own, most)})):
                words = names.get(group, "the nodes without a group")
                text = f"asked again, and of {words} {missing} nodes are missing with it now, at most {most} may"
                return Hold(HoldCode.GROUP_BUDGET, text, group)
        for domain, (missing, most) in self._away.domains(set(costs.domains)).items():
            if check_admitted([costs], Budgets(domains={domain: (missing - own, most)})):
                text = f"asked again, and in {domain[1]} {missing} nodes are missing with it now, at most {most} may"
                return Hold(HoldCode.DOMAIN_BUDGET, text, domain[0])
        return None

    def _supplies(self, costs: Costs) -> dict[ServiceKey, Supply]:
        """As if it served and had reserved nothing."""
        found = services_of(self._conn, self._away, [costs], self._setting, self._setting.now)
        return {
            key: replace(supply, healthy=supply.healthy + self.taken[key], reserved=supply.reserved - self.taken[key])
            for key, supply in found.items()
        }
