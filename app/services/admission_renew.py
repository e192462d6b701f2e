"""Renewing: a node whose lease is out asks again, and goes on only while that still breaks nothing."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from app.core.domains import Loss
from app.core.freezes import freeze_hold
from app.core.holds import Hold, HoldCode
from app.core.leases import ANSWER_WITHIN_S, retry_s
from app.core.plan_check import Costs
from app.core.rollouts import ACTIVE
from app.core.services import label_of
from app.core.windows import is_open
from app.services.away import Away, services_of
from app.services.domain_losses import current
from app.services.node_views import Setting, read_setting
from app.services.rollout_views import loss_holds
from app.store import fleet, leases, nodes, operations
from app.store.database import Database, Priority
from wire.messages import OperationKind


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
        away, losses = Away(change.conn, setting), current(change.conn, now, setting.groups)
        for found in leases.asking_again(change.conn, now - ANSWER_WITHIN_S, operation_ids):
            hold = _stopped(found, setting, losses) or _over_limits(change.conn, found, away, setting, now)
            if hold is None:
                leases.renew(change.conn, found.lease, found.nonce, now)
            else:
                told = {"code": hold.code.value, "text": hold.text, "retry_s": retry_s(0), "nonce": found.nonce}
                operations.answer_to_wait(change.conn, found.lease.operation_id, found.nonce, told)
            change.touch(f"desired:{found.lease.node_id}")


def _stopped(found: leases.Renewal, setting: Setting, losses: Sequence[Loss]) -> Hold | None:
    """Its rollout does not run, a freeze holds it, its window has closed, or much of a domain was lost at once."""
    rollout = next((each for each in setting.rollouts if each.id == found.rollout_id), None)
    if found.rollout_id and (rollout is None or rollout.state not in ACTIVE):
        return Hold(HoldCode.NOT_RUNNING, "waits for its rollout, which does not run", found.rollout_id)
    if found.kind == OperationKind.ROLLBACK or (rollout is not None and rollout.leads_back):
        return None
    member_of, passes = setting.grouping.of(found.labels), rollout is not None and rollout.break_glass
    frozen = None if passes else freeze_hold(setting.freezes, [group.id for group in member_of], setting.now)
    if frozen is not None:
        return frozen
    if member_of and not passes and not is_open(member_of[0].policy.windows, setting.now):
        return Hold(HoldCode.WINDOW, f"asked again, and the window of group {member_of[0].name} has closed")
    return next(iter(loss_holds(losses, setting.now)), None)


def _over_limits(conn: Connection, found: leases.Renewal, away: Away, setting: Setting, now: float) -> Hold | None:
    held = found.lease
    allowed = next((each.allowances for each in setting.rollouts if each.id == found.rollout_id), frozenset())
    taken = {(scope, name): replicas for scope, name, replicas in held.costs}
    costs = Costs(held.node_id, True, taken, (), (), "")
    for key, supply in services_of(conn, away, [costs], setting, now).items():
        if supply.counted < supply.floor and not (supply.expected <= 1 and key in allowed):
            left = f"{supply.counted} of {supply.expected} expected replicas"
            text = f"asked again, and {label_of(key)} has {left} beside it now, floor {supply.floor}"
            return Hold(HoldCode.SERVICE_FLOOR, text, label_of(key))
    view_of = {view.id: view for view in away.nodes}
    groups_of = set(view_of[held.node_id].groups) if held.node_id in view_of else set()
    for group, (missing, most) in away.groups(groups_of).items():
        if missing > most:
            text = f"asked again, and its group misses {missing} nodes with it now, at most {most}"
            return Hold(HoldCode.GROUP_BUDGET, text, group)
    return None
