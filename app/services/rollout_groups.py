"""What a node's policy group decides in rollouts of others: which channel the node follows, and how long it soaks.

A rollout that a channel's move asked for is only about nodes whose policy group is the one that follows. What a person
composes takes every node that they chose; none of them soaks for less than its policy group demands.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from sqlalchemy import Connection

from app.core.group_policy import GroupPolicy
from app.core.groups import Group, Grouping
from app.core.nodes import Node
from app.core.rollout_entry import Targets
from app.store import channels, groups, rollout_facts
from app.store.rollouts import Rollout


def entry_targets(conn: Connection, rollout: Rollout) -> Targets:
    """Its images as they are now, and which nodes of its group another one decides about."""
    return Targets(
        rollout.kind,
        rollout_facts.targets(conn, rollout.targets),
        allow_downgrade=rollout.allow_downgrade,
        elsewhere=elsewhere(conn, rollout),
    )


def elsewhere(conn: Connection, rollout: Rollout) -> Mapping[str, str]:
    """Node id → why a rollout that a channel's move asked for is not about it: another group decides its channel."""
    if rollout.channel_id is None or rollout.group_id is None:
        return {}
    in_order = groups.all_groups(conn)
    place = next((number for number, group in enumerate(in_order) if group.id == rollout.group_id), 0)
    found: dict[str, str] = {}
    for group in in_order[:place]:
        why = _follows(conn, group)
        for node_id in groups.member_ids(conn, group.selector):
            found.setdefault(node_id, why)
    return found


def _follows(conn: Connection, group: Group) -> str:
    channel = channels.get(conn, group.channel_id) if group.channel_id is not None else None
    if channel is None:
        return f"it is of group {group.name}, which follows no channel"
    return f"it follows {channel.name} by group {group.name}"


def outside(rollout: Rollout, group_ids: Collection[str]) -> bool:
    """A node of these groups is not of the one that the rollout is about: moved forth by it, it would pass the windows
    and freezes of that group, which do not bind it any more. Ways back go on (rule 7)."""
    return rollout.group_id is not None and not rollout.leads_back and rollout.group_id not in group_ids


def order_policy(grouping: Grouping, rollout: Rollout, node: Node) -> GroupPolicy:
    """The rollout's policy for one node. A soak that was set for this rollout counts for nodes of its own group, or for
    those that were chosen one by one."""
    member_of = grouping.of(node.labels)
    own = member_of[0] if member_of else None
    if own is None or own.id == rollout.group_id or rollout.leads_back:
        return rollout.policy
    if rollout.group_id is None and "soak_s" in rollout.overrides.get("timing", {}):
        return rollout.policy
    return with_longer_soak(rollout.policy, own.policy)


def with_longer_soak(policy: GroupPolicy, other: GroupPolicy | None) -> GroupPolicy:
    """The policy, with the soak of the other one where that is longer."""
    if other is None or other.timing.soak_s <= policy.timing.soak_s:
        return policy
    return replace(policy, timing=replace(policy.timing, soak_s=other.timing.soak_s))
