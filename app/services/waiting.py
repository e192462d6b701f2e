"""What a node waits for, gathered for its page: its rollout, its groups, its services, its deadline (rule 10)."""

from __future__ import annotations

from sqlalchemy import Connection

from app.core.clocks import could_hear, deadline_s
from app.core.conditions import Around, Clock, Conditions, Turn
from app.core.group_policy import Amount
from app.core.groups import Group
from app.core.holds import Hold, HoldCode
from app.core.image_match import canonical_arch
from app.core.nodes import Node, Operation
from app.core.policy import Policy
from app.core.rollouts import TERMINAL, RolloutKind, RolloutNodeState, RolloutState
from app.core.services import label_of
from app.core.version_edges import edge
from app.core.waiting import Link, chain, span
from app.core.windows import closes_at, is_open, next_opening
from app.services import domain_losses, services
from app.services.deadlines import waits_for_us
from app.services.freezes import hold_for
from app.services.groups import groups_of_node
from app.services.services import WhatIf
from app.store import fleet, gateways, rollout_facts, rollout_nodes, rollouts
from app.store.rollout_nodes import RolloutNode
from app.store.rollouts import Rollout
from wire.messages import HealthState

_UNDER_WAY = frozenset({RolloutNodeState.WAITING, RolloutNodeState.ORDERED, RolloutNodeState.MOVING})
_STOPPED = frozenset({RolloutState.PAUSED, RolloutState.HALTED})
_NOT_STARTED_OR_OVER = TERMINAL | {RolloutState.DRAFT}


def waiting(conn: Connection, node: Node, now: float) -> list[Link]:
    """The chain of its page; empty where nothing is asked of the node and no rollout has it."""
    rollout, row = _rollout_of(conn, node)
    if node.operation is None and rollout is None:
        return []
    return chain(node, _around(conn, node, rollout, row, now))


def _rollout_of(conn: Connection, node: Node) -> tuple[Rollout | None, RolloutNode | None]:
    """Its operation's, else the newest that it waits in."""
    if node.operation is not None:
        if node.operation.rollout_id is None:
            return None, None
        rollout = rollouts.get(conn, node.operation.rollout_id)
        return rollout, None if rollout is None else rollout_nodes.get(conn, rollout.id, node.id)
    for row in rollout_nodes.of_node(conn, node.id):
        back_owed = row.back_ended_at is None and (row.back_at is not None or row.hold is not None)
        if row.state not in _UNDER_WAY and not back_owed:
            continue
        rollout = rollouts.get(conn, row.rollout_id)
        if row.state not in _UNDER_WAY and (rollout is None or rollout.state is not RolloutState.ROLLING_BACK):
            continue  # it left, and its hold says when it comes in again
        if rollout is not None and rollout.state not in _NOT_STARTED_OR_OVER:
            return rollout, row
    return None, None


def _around(conn: Connection, node: Node, rollout: Rollout | None, row: RolloutNode | None, now: float) -> Around:
    groups = groups_of_node(conn, node)
    return Around(
        conditions=Conditions(
            timed=hold_for(conn, [group.id for group in groups], now) or _window(groups, now),
            timed_text=_timed_text(groups, now),
            budget=_budget_text(groups),
            floor=_floor_text(services.what_if(conn, [node.id], now)),
            health=_health_text(node, groups, rollout),
        ),
        hold=_stopped(conn, node, rollout) or _hold(node.operation, row),
        turn=_turn(rollout, row),
        clock=_clock(conn, node, now),
        edge=_edge(conn, node, rollout),
    )


def _stopped(conn: Connection, node: Node, rollout: Rollout | None) -> Hold | None:
    """Of a node without an order, whose rollout gives none: what its row kept from before is not why it waits now."""
    if rollout is None or rollout.state not in _STOPPED or node.operation is not None:
        return None
    for target in rollout_facts.targets(conn, list(rollout.targets)):
        if target.withdrawn:
            text = f"{target.version} is withdrawn: {rollout.name} cannot go on"
            return Hold(HoldCode.WITHDRAWN, text, target.digest)
        if target.bad:
            text = f"{target.version} is bad ({target.bad}): {rollout.name} cannot go on"
            return Hold(HoldCode.BAD_VERSION, text, target.digest)
    why = rollout.state_text or f"it is {rollout.state.value}"
    return Hold(HoldCode.NOT_RUNNING, f"waits for {rollout.name}: {why[:1].lower()}{why[1:]}", rollout.id)


def _turn(rollout: Rollout | None, row: RolloutNode | None) -> Turn | None:
    if rollout is None:
        return None
    back = row is not None and row.back_at is not None
    return Turn(
        number=rollout.number,
        moves=rollout.kind is not RolloutKind.REBOOT,
        target=row.old_version if row is not None and back else rollout.version,
        leads_back=rollout.leads_back or back,
        break_glass=rollout.break_glass,
    )


def _hold(operation: Operation | None, row: RolloutNode | None) -> Hold | None:
    """What its rollout keeps, which is told anew while it waits, else the answer to its request for a lease; None:
    nothing, or in words of another version."""
    kept = row.hold if row is not None else None
    said = kept or (operation.hold if operation is not None else None)
    if said is None or said["code"] not in tuple(HoldCode):
        return None
    return Hold(HoldCode(said["code"]), said["text"], said.get("subject") or "", said.get("until"))


def _edge(conn: Connection, node: Node, rollout: Rollout | None) -> str:
    """Why its target cannot follow what it runs; only an order or a rollout that is under way has a target."""
    if node.operation is not None:
        image_ids = [node.operation.image_id or ""]
    else:
        image_ids = list(rollout.targets) if rollout is not None else []
    fitting = (
        target
        for target in rollout_facts.targets(conn, image_ids)
        if (target.os_id, canonical_arch(target.arch)) == (node.os_id, canonical_arch(node.arch))
    )
    return next((refused for target in fitting if (refused := edge(target, node.version)) is not None), "")


# --- the conditions in words --------------------------------------------------------------------------------


def _window(groups: tuple[Group, ...], now: float) -> Hold | None:
    """The policy group's windows, where they are shut."""
    if not groups or is_open(groups[0].policy.windows, now):
        return None
    opens = next_opening(groups[0].policy.windows, now)
    when = f"opens in {span(opens - now)}" if opens is not None else "never opens"
    return Hold(HoldCode.WINDOW, f"the window of group {groups[0].name} is shut: {when}", groups[0].id, opens)


def _timed_text(groups: tuple[Group, ...], now: float) -> str:
    if not groups or not groups[0].policy.windows:
        return "No freeze, and no window binds it"
    closes = closes_at(groups[0].policy.windows, now)
    for_long = f"closes in {span(closes - now)}" if closes is not None else "does not close"
    return f"No freeze; the window of group {groups[0].name} is open and {for_long}"


def _budget_text(groups: tuple[Group, ...]) -> str:
    if not groups:
        return "Budget: in no group, so one node at a time"
    each = "; ".join(f"of {group.name} {_amount(group.policy.max_unavailable)}" for group in groups)
    return f"Budget: {each} may be missing at once"


def _amount(amount: Amount) -> str:
    return f"{amount.share:.0%}".replace("%", " %") if amount.share is not None else f"{amount.count:,}"


def _floor_text(touched: list[WhatIf]) -> str:
    """The service with the least room speaks: the worst stands first."""
    worst = next((each for each in touched if each.service.view.floor is not None and each.lost), None)
    if worst is None:
        return "Service floors: nothing with a floor runs on it"
    name, floor = label_of(worst.service.key), worst.service.view.floor
    return f"Service floors: without it {name} has {worst.left:,} of {worst.service.healthy:,}, its floor is {floor:,}"


def _health_text(node: Node, groups: tuple[Group, ...], rollout: Rollout | None) -> str:
    queries = [gate.name for gate in rollout.policy.prometheus] if rollout is not None else []
    binds = groups and groups[0].policy.health_gate and node.health_state != HealthState.UNHEALTHY
    healthy = [f"group {groups[0].name} must be healthy"] if binds else []
    wanted = healthy + [f"“{name}” must hold" for name in queries]
    return f"Health gate: {', and '.join(wanted)}" if wanted else "No health gate"


def _clock(conn: Connection, node: Node, now: float) -> Clock | None:
    operation = node.operation
    if operation is None or not operation.open:
        return None
    left_s = deadline_s(operation, Policy(**operation.policy)) - operation.heard_s
    if waits_for_us(operation, now):
        return Clock(left_s, "it waits for us")
    if not could_hear(gateways.all_seen(conn), node.gateway_id, now, fleet.policy(conn)):
        return Clock(left_s, "no gateway could hear the node")
    if any(node.id in loss.nodes for loss in domain_losses.current(conn, now)):
        return Clock(left_s, "much of its failure domain was lost at once")
    return Clock(left_s)
