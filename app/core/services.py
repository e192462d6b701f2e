"""Services: their expected replicas, how few our own actions may leave, why replicas came and went. Pure.

A service is the containers of one (scope, name) on any nodes. Its scope is what the container's labels say, else the
name of the node's policy group, else empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from app.core.snapshot import ServiceKey, ServiceView

PEAK_DAYS = 7
"""Without a label or an operator's word, the most replicas seen healthy within so many days are expected."""
LASTS_S = 300.0
"""For so long more replicas than ever have to be healthy until they count as seen: a replica that moves is there twice
for some moments, or some minutes where the old one drains. Counted while somebody could have heard their end."""

_NOT_SERVING = ("unhealthy", "starting")


def scope_of(container_scope: str, policy_group: str) -> str:
    """The scope of a container of a node whose policy group has this name (empty: it is in none)."""
    return container_scope or policy_group


def serves(state: str, health: str) -> bool:
    """Whether a container counts as a healthy replica; one without a health check does while it runs."""
    return state == "running" and health not in _NOT_SERVING


def label_of(key: ServiceKey) -> str:
    """`scope/name`, as people and subjects of holds name it."""
    return f"{key[0]}/{key[1]}" if key[0] else key[1]


@dataclass(frozen=True, slots=True)
class Said:
    """What an operator said of a service; None: nothing."""

    floor: int | None = None
    expected: int | None = None
    single_allowed: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a service."""

    healthy: int = 0
    """Now."""
    labelled: int | None = None
    """The most that a label of its containers asks for."""
    peak: int = 0
    """Most seen healthy in the last days, for as long as LASTS_S."""
    per_node: bool = False
    """All its containers say that it is on every node by design."""


NOTHING_SAID = Said()


def expected_replicas(said: Said, seen: Seen, frozen: int = 0, least: int = 0) -> int:
    """An operator's word is the last; a label's is next, and never fewer than a rollout froze. Without them it is what
    a rollout that runs froze, so that nothing that is seen meanwhile lifts the floor; else the most seen, and not fewer
    than `least`, which one that is stopped and not over froze."""
    if said.expected is not None:
        return said.expected
    if seen.labelled is not None:
        return max(seen.labelled, frozen, least)
    return max(frozen or seen.peak or seen.healthy, least)


def stricter(one: Said, other: Said) -> Said:
    """What holds where both are said of one service."""
    return Said(
        floor=max((floor for floor in (one.floor, other.floor) if floor is not None), default=None),
        expected=max((number for number in (one.expected, other.expected) if number is not None), default=None),
        single_allowed=one.single_allowed and other.single_allowed,
    )


def kept(said: Said, now: ServiceView, before: Iterable[ServiceView]) -> Said:
    """What has to be said of a service so that it is held to no less than each of those that became part of it.

    `now`: the service as it is seen, whatever is said of it.
    """
    olds = list(before)
    expected = max((old.expected for old in olds), default=0)
    floor = max((old.floor for old in olds if old.floor is not None), default=0)
    reached = now.expected if said.expected is None else said.expected
    if reached < expected:
        said, reached = replace(said, expected=expected), expected
    per_node = now.floor is None and said.floor is None
    if floor > (0 if per_node else floor_of(said, reached, said.single_allowed)):
        said = replace(said, floor=floor, single_allowed=said.single_allowed and reached > 1)
    return said


@dataclass(frozen=True, slots=True)
class Rise:
    """What is to be seen of a service before more replicas count as seen. Times are Unix seconds."""

    seen_at: float
    """When the service was first seen: until LASTS_S later it is starting up, and every number counts at once."""
    healthy: int = 0
    """So many, more than count, have been healthy since then; 0: no more than count."""
    since: float = 0.0


def rising(
    rise: Rise | None, counted: int, healthy: int, now: float, heard_s: Callable[[float], float]
) -> tuple[int, Rise]:
    """How many of those that are healthy now count as seen, and what to remember. `counted`: the most that counted
    until now; `heard_s`: for how long since then somebody could have been heard."""
    if rise is None:
        return healthy, Rise(now)
    calm = Rise(rise.seen_at)
    if healthy <= counted or (rise.seen_at <= now and heard_s(rise.seen_at) < LASTS_S):
        return healthy, calm
    if not rise.healthy or rise.since > now:  # our clock was set back: begin again
        return counted, Rise(rise.seen_at, healthy, now)
    level = min(rise.healthy, healthy)
    if heard_s(rise.since) < LASTS_S:
        return counted, Rise(rise.seen_at, level, rise.since)
    return level, Rise(rise.seen_at, healthy, now) if healthy > level else calm


def floor_of(said: Said, expected: int, allowed: bool) -> int:
    """Fewest healthy replicas that our own actions may leave: one less than expected, and a single one never moves
    unless that is allowed. An operator's floor is taken as it is; an allowance frees a single replica all the same."""
    if expected <= 1 and allowed:
        return 0
    if said.floor is not None:
        return said.floor
    return 1 if expected == 1 else max(expected - 1, 0)


def view(
    key: ServiceKey,
    said: Said,
    seen: Seen,
    *,
    frozen: int = 0,
    least: int = 0,
    allowed_for: tuple[str, ...] = (),
) -> ServiceView:
    """The service as plans see it. `frozen`: what rollouts that run expect at most; `least`: what those do that are
    paused or halted; `allowed_for`: ids of rollouts that may move its single replica."""
    expected = expected_replicas(said, seen, frozen, least)
    floor = None if seen.per_node and said.floor is None else floor_of(said, expected, said.single_allowed)
    return ServiceView(key, expected, floor, allowed=said.single_allowed, allowed_for=allowed_for)


# --- why replicas come and go -------------------------------------------------------------------------------


class ChangeCause(StrEnum):
    OPERATION = "operation"
    """Ours: an update, a way back or a reboot under a lease."""
    OFFLINE = "offline"
    REBOOT = "reboot"
    """The node booted without us."""
    MOVED = "moved"
    """Gone here and come elsewhere at the same time."""
    SCOPE = "scope"
    """The same replicas, called otherwise: their nodes are in another policy group."""
    CONTAINER = "container"
    """The container itself stopped, started, or changed its health."""
    UNSEEN = "unseen"
    """The node cannot see its containers."""
    LEFT = "left"
    """The node was retired, or declared lost."""


@dataclass(frozen=True, slots=True)
class NodeMoment:
    """What of a node explains a change of its replicas."""

    name: str
    member: bool
    """Admitted and not declared lost."""
    online: bool
    placement_known: bool
    rebooted: bool
    """In another boot than when its replicas were last looked at."""
    boot_cause: str
    """What its newest boot event says, such as `local command`; empty: nothing."""
    operation: str
    """The operation of ours that it is down for or was last down for, in words; empty: none."""
    under_way: bool
    """That operation has it down, or its lease is out."""


def explain(change: int, moved: bool, node: NodeMoment, lost_by: ChangeCause | None) -> tuple[ChangeCause, str]:
    """Cause and one sentence for replicas lost (below 0) or returned on a node. The first that explains it speaks.

    `lost_by`: why replicas were last lost there, for those that return. `moved`: as many came elsewhere, or went.
    """
    return _lost(moved, node) if change < 0 else _returned(moved, node, lost_by)


def _lost(moved: bool, node: NodeMoment) -> tuple[ChangeCause, str]:
    if not node.member:
        return ChangeCause.LEFT, f"{node.name} left the fleet"
    if node.operation and (node.under_way or node.rebooted):
        return ChangeCause.OPERATION, f"{node.name}: {node.operation}"
    if not node.online:
        return ChangeCause.OFFLINE, f"{node.name} went offline"
    if node.rebooted:
        return ChangeCause.REBOOT, _rebooted(node)
    if not node.placement_known:
        return ChangeCause.UNSEEN, f"{node.name} cannot see its containers"
    if moved:
        return ChangeCause.MOVED, f"moved away from {node.name}"
    return ChangeCause.CONTAINER, f"stopped or turned unhealthy on {node.name}"


def _returned(moved: bool, node: NodeMoment, lost_by: ChangeCause | None) -> tuple[ChangeCause, str]:
    if node.operation and (node.rebooted or lost_by is ChangeCause.OPERATION):
        return ChangeCause.OPERATION, f"back on {node.name} after {node.operation}"
    if node.rebooted:
        return ChangeCause.REBOOT, f"back: {_rebooted(node)}"
    if lost_by in (ChangeCause.OFFLINE, ChangeCause.LEFT, ChangeCause.OPERATION):
        return lost_by, f"{node.name} is back"
    if lost_by is ChangeCause.UNSEEN:
        return lost_by, f"{node.name} sees its containers again"
    if moved:
        return ChangeCause.MOVED, f"moved to {node.name}"
    return ChangeCause.CONTAINER, f"runs and is healthy on {node.name}"


def _rebooted(node: NodeMoment) -> str:
    because = f" ({node.boot_cause})" if node.boot_cause else ""
    return f"{node.name} rebooted without us{because}"
