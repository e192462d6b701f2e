"""What an operator composes: which nodes, where to, under which policy; and what that means in the fleet now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from app.core.errors import Invalid, NotFound, NotPossible
from app.core.group_policy import GroupPolicy
from app.core.groups import EVERY, Selector, parse_selector
from app.core.policy_json import policy_to_builtins, with_changes
from app.core.rollouts import RolloutKind, RolloutState
from app.core.snapshot import ServiceKey
from app.services.service_views import check_known
from app.store import channels, fleet, groups, images
from app.store.images import Image
from app.store.rollout_facts import Facts, Reader, targets
from app.store.rollouts import Rollout

MOST_CHOSEN = 5_000
"""Nodes that are named one by one; more are what groups are for."""
GROUPS_OWN = frozenset(
    {
        "follow",
        "domain_label",
        "max_per_domain",
        "one_domain_after_another",
        "windows",
        "minimum_age_s",
        "absent_after_s",
        "health_gate",
    }
)
"""Fields of the policy that bind as the groups of each node have them, whatever moves it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSpec:
    """Either `group_id` or `node_ids`; for an update one of `image_ids`, `channel_id` and `version`."""

    kind: RolloutKind = RolloutKind.UPDATE
    group_id: str | None = None
    node_ids: tuple[str, ...] = ()
    image_ids: tuple[str, ...] = ()
    channel_id: str | None = None
    """What the channel points at when the rollout is drafted."""
    version: str = ""
    """All images of this version that are not withdrawn."""
    policy: GroupPolicy | None = None
    """Instead of the group's, in all its fields; None: the group's as it is when the rollout is started."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Fields that this rollout has of its own, beside the group's policy (core.policy_json); none of GROUPS_OWN."""
    allowances: frozenset[ServiceKey] = frozenset()
    """Single replicas that may move in this rollout."""
    left_out: tuple[str, ...] = ()
    """Ids of nodes that it leaves alone."""
    allow_downgrade: bool = False
    break_glass: bool = False
    """It passes freezes and windows; audited."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A spec with its names found."""

    targets: tuple[Image, ...]
    policy: GroupPolicy
    group_name: str
    selector: str
    """Empty where nodes are chosen one by one."""
    node_ids: tuple[str, ...] = field(default=())

    @property
    def version(self) -> str:
        """As people call what it leads to."""
        return ", ".join(dict.fromkeys(image.version for image in self.targets))


def resolve(conn: Connection, spec: RolloutSpec) -> Resolved:
    """NotFound, Invalid and NotPossible say what cannot be used."""
    for field_name in sorted(GROUPS_OWN & spec.overrides.keys()):
        text = f"{field_name} binds as the group has it: one rollout cannot have another. Change it in the group."
        raise Invalid(field_name, text)
    policy, name, selector = _nodes_of(conn, spec)
    check_known(conn, spec.allowances)
    return Resolved(
        targets=_targets(conn, spec),
        policy=spec.policy or with_changes(policy, spec.overrides),
        group_name=name,
        selector=selector,
        node_ids=tuple(dict.fromkeys(spec.node_ids)),
    )


def _nodes_of(conn: Connection, spec: RolloutSpec) -> tuple[GroupPolicy, str, str]:
    if (spec.group_id is None) == (not spec.node_ids):
        raise Invalid("group_id", "Choose a group or nodes, one of the two.")
    if spec.group_id is None:
        if len(spec.node_ids) > MOST_CHOSEN:
            raise Invalid("node_ids", f"At most {MOST_CHOSEN:,} nodes are chosen one by one; make a group of them.")
        return GroupPolicy(timing=fleet.policy(conn)), "", ""
    group = groups.get(conn, spec.group_id)
    if group is None:
        raise NotFound("group", spec.group_id)
    return group.policy, group.name, group.selector.text or EVERY


def _targets(conn: Connection, spec: RolloutSpec) -> tuple[Image, ...]:
    if spec.kind is not RolloutKind.UPDATE:
        return ()
    if sum((bool(spec.image_ids), spec.channel_id is not None, bool(spec.version))) != 1:
        raise Invalid("target", "Say where to: images, a channel or a version, one of them.")
    found = _chosen(conn, spec)
    if not found:
        raise Invalid("target", _NOTHING.format(spec.version) if spec.version else "The channel points at no image.")
    for image in found:
        if image.withdrawn_at is not None:
            raise NotPossible("withdrawn", f"{image.name} is withdrawn; choose another version.")
    platforms = {(image.os, image.arch) for image in found}
    if len(platforms) != len(found):
        raise Invalid("target", "There are several images for one OS and architecture; choose one of each.")
    return tuple(found)


_NOTHING = "There is no image of version “{}” that is not withdrawn."


def _chosen(conn: Connection, spec: RolloutSpec) -> list[Image]:
    if spec.version:
        return images.of_version(conn, spec.version)
    ids: Sequence[str] = spec.image_ids
    if spec.channel_id is not None:
        if channels.get(conn, spec.channel_id) is None:
            raise NotFound("channel", spec.channel_id)
        ids = [move.image_id for move in channels.pointers(conn) if move.channel_id == spec.channel_id]
    found = []
    for image_id in dict.fromkeys(ids):
        image = images.get(conn, image_id)
        if image is None:
            raise NotFound("image", image_id)
        found.append(image)
    return found


def rollout_of(
    spec: RolloutSpec,
    resolved: Resolved,
    *,
    id: str,
    number: int,
    actor: str,
    now: float,
    source_id: str | None = None,
    moved_channel_id: str | None = None,
) -> Rollout:
    """The draft that the spec asks for. `source_id`: the rollout that it reverses; `moved_channel_id`: the channel
    whose move asks for it."""
    return Rollout(
        id=id,
        number=number,
        kind=spec.kind,
        state=RolloutState.DRAFT,
        state_text="",
        group_id=spec.group_id,
        group_name=resolved.group_name,
        selector=resolved.selector,
        targets=tuple(image.id for image in resolved.targets),
        version=resolved.version,
        policy=resolved.policy,
        expected={},
        allowances=spec.allowances,
        left_out=tuple(dict.fromkeys(spec.left_out)),
        allow_downgrade=spec.allow_downgrade,
        break_glass=spec.break_glass,
        source_id=source_id,
        channel_id=moved_channel_id,
        actor=actor,
        reason=spec.reason.strip(),
        forecast=None,
        created_at=now,
        overrides=policy_to_builtins(spec.policy, whole=True) if spec.policy is not None else spec.overrides,
    )


def as_now(conn: Connection, rollout: Rollout) -> Rollout:
    """The draft as it would be started now: policy, name and selector of its group as they are, with what is its own.

    Invalid where its own fields and the group's do not go together any more. Of a group that is gone it keeps what it
    was drafted with.
    """
    if rollout.group_id is None:
        kept = bool(rollout.group_name)
        usual = GroupPolicy(timing=fleet.policy(conn))
        return rollout if kept else replace(rollout, policy=with_changes(usual, rollout.overrides))
    group = groups.get(conn, rollout.group_id)
    if group is None:  # removed at this moment
        return rollout
    selector = (group.selector.text or EVERY) if rollout.selector else ""
    policy = with_changes(group.policy, rollout.overrides)
    return replace(rollout, policy=policy, selector=selector, group_name=group.name)


def reader(conn: Connection, rollout: Rollout, now: float) -> Reader:
    """Facts of nodes as this rollout looks at them."""
    digests = [target.digest for target in targets(conn, rollout.targets)]
    return Reader(conn, digests, rollout.policy.absent_after_s, now)


def selector_of(conn: Connection, rollout: Rollout) -> Selector | None:
    """That of its group as it is now; None where its nodes were chosen one by one."""
    if not rollout.selector:
        return None
    group = groups.get(conn, rollout.group_id) if rollout.group_id is not None else None
    return group.selector if group is not None else parse_selector(rollout.selector)


def members(conn: Connection, rollout: Rollout, chosen: Sequence[str], now: float) -> list[Facts]:
    """The admitted nodes that it is about: its group's now, or those that were chosen."""
    selector = selector_of(conn, rollout)
    found = reader(conn, rollout, now)
    return found.all_of(selector) if selector is not None else found.of(chosen)
