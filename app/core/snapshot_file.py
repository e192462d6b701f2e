"""A snapshot as a file: JSON that is read again with no database. Pure: text in, text out.

The document is `{"twinroot": "snapshot", "version": 1, "snapshot": {…}}` with the fields of app.core.snapshot; times
are Unix seconds. Files of another version are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import msgspec

from app.core.errors import Invalid
from app.core.group_policy import Amount, GroupPolicy
from app.core.policy import Policy
from app.core.policy_json import DAYS, LONGEST_S
from app.core.snapshot import Snapshot
from app.core.windows import is_zone, minute_of_day

_KIND, _VERSION = "snapshot", 1
_LAST_MOMENT = 32_503_680_000.0
"""The year 3000: calendars end, and no fleet is planned for then."""


class _Head(msgspec.Struct):
    twinroot: str = ""
    version: int = 0


class _Document(msgspec.Struct):
    snapshot: Snapshot
    twinroot: str = _KIND
    version: int = _VERSION


def dump(snapshot: Snapshot) -> bytes:
    """As JSON, indented for eyes and diffs."""
    return msgspec.json.format(msgspec.json.encode(_Document(snapshot), order="deterministic"), indent=1) + b"\n"


def load(content: bytes, name: str = "the file") -> Snapshot:
    """Read back; Invalid says in one sentence why it is no snapshot, or that it points to what is not there."""
    try:
        head = msgspec.json.decode(content, type=_Head)
        if head.twinroot != _KIND:
            raise Invalid("snapshot", f"{name} is no snapshot of Twinroot.")
        if head.version != _VERSION:
            raise Invalid("snapshot", f"{name} has version {head.version}; this Twinroot reads version {_VERSION}.")
        snapshot = msgspec.json.decode(content, type=_Document).snapshot
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid("snapshot", f"{name} is no snapshot of Twinroot: {error}.") from error
    wrong = _points_nowhere(snapshot) or _makes_no_sense(snapshot)
    if wrong is not None:
        raise Invalid("snapshot", f"{name} does not hold together: {wrong}.")
    return snapshot


def _points_nowhere(snapshot: Snapshot) -> str | None:
    groups = {group.id for group in snapshot.groups}
    services, nodes, rollouts = len(snapshot.services), len(snapshot.nodes), len(snapshot.rollouts)
    for node in snapshot.nodes:
        for id in node.groups:
            if id not in groups:
                return f"node {node.name} is in a group {id} that is not there"
        if len({service for service, _ in node.placements}) < len(node.placements):
            return f"node {node.name} names a service twice"
        if node.placements and not node.placement_known and not node.reserved:
            return f"node {node.name} says what it runs although that is not known"
        for service, replicas in (*node.placements, *node.returning):
            if not 0 <= service < services:
                return f"node {node.name} runs service number {service} of {services}"
            if replicas < 0:
                return f"node {node.name} runs {replicas} replicas of a service"
    for place, candidate in enumerate(snapshot.candidates):
        if not 0 <= candidate.node < nodes:
            return f"candidate {place} is node number {candidate.node} of {nodes}"
        if not 0 <= candidate.rollout < rollouts:
            return f"candidate {place} is of rollout number {candidate.rollout} of {rollouts}"
    return None


def _makes_no_sense(snapshot: Snapshot) -> str | None:
    """A moment that no calendar has, or a policy under which nothing can be planned."""
    for what, moment in _moments(snapshot):
        if not 0 <= moment <= _LAST_MOMENT:
            return f"{what} is {moment:g}, which is no time"
    owners = [(f"group {group.name or group.id}", group.policy) for group in snapshot.groups]
    owners += [(rollout.name, rollout.policy) for rollout in snapshot.rollouts]
    for owner, policy in owners:
        wrong = _no_policy(policy)
        if wrong is not None:
            return f"the policy of {owner} is none: {wrong}"
    return None


def _moments(snapshot: Snapshot) -> Iterator[tuple[str, float]]:
    yield "now", snapshot.now
    for rollout in snapshot.rollouts:
        yield f"the beginning of {rollout.name}", rollout.created_at
        yield f"the soak of the canaries of {rollout.name}", rollout.canaries_soaked_at or 0.0
        for target in rollout.targets:
            yield f"the age of {target.version}", target.created_at
    for place, candidate in enumerate(snapshot.candidates):
        yield f"the beginning of candidate {place}", candidate.since


def _no_policy(policy: GroupPolicy) -> str | None:
    """What no plan can be made under; that it could be a group's is not asked, for a plan explains that as well."""
    for name, value in [*_fields(policy), *((f"timing.{name}", value) for name, value in _fields(policy.timing))]:
        if isinstance(value, Amount) and (value.count is None) == (value.share is None):
            return f"{name} needs either a count or a share"
        if name.endswith("_s") and isinstance(value, float) and not 0 <= value <= LONGEST_S:
            return f"{name} must be from 0 to {LONGEST_S:g} seconds, not {value:g}"
    for window in policy.windows:
        if any(not 0 <= day < len(DAYS) for day in window.days):
            return "a week has seven days"
        for time in (window.opens, window.closes):
            if minute_of_day(time) is None:
                return f"“{time}” is no time such as 22:30"
        if not is_zone(window.zone):
            return f"“{window.zone}” is no time zone that is known here"
    return None


def _fields(value: GroupPolicy | Policy) -> list[tuple[str, Any]]:
    return [(each.name, getattr(value, each.name)) for each in fields(value)]
