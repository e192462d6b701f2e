"""Groups: made, changed and removed by operators; what a page says of one; which policy a node's operations have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from app.core.actors import Actor
from app.core.errors import Invalid, NotFound, NotPossible
from app.core.freezes import Freeze
from app.core.group_policy import GroupPolicy
from app.core.groups import Group, check_name, check_precedence, groups_of, parse_selector
from app.core.nodes import Node
from app.core.policy_json import checked, policy_from_builtins
from app.core.windows import closes_at, is_open, next_openings
from app.ids import new_id
from app.services import service_scopes
from app.services.acting import need
from app.services.group_releases import nodes_stay_bound, not_frozen
from app.services.service_scopes import Cause, groups_changed
from app.store import audit, channels, fleet, freezes
from app.store import groups as store
from app.store.database import Change, Database
from app.store.groups import NewGroup

OPENINGS = 5
_MOST_GROUPS = 1_000
"""Every look at the fleet asks each group of each node."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator wants of a group; None: as it is (of a new one: the default)."""

    name: str | None = None
    selector: str | None = None
    precedence: int | None = None
    channel: str | None = None
    """Name of a channel; empty: none."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the policy that change (core.policy_json, core.policy_text); None as a value: as by default."""


@dataclass(frozen=True, slots=True)
class Described:
    """What the page of a group says."""

    group: Group
    channel: str
    """Its name; empty: none."""
    members: int
    """Admitted nodes that the selector takes."""
    open_now: bool
    closes_at: float | None
    openings: tuple[tuple[float, float], ...]
    """The next stretches in which its windows are open, from and to; `inf`: never closes."""
    freezes: tuple[Freeze, ...]
    """Of the group and of the fleet, that hold or will."""


def create(db: Database, actor: Actor, wish: Wish, reason: str, now: float) -> str:
    """A new group; returns its id. Invalid names the field; NotPossible when the name is taken."""
    if wish.name is None or wish.selector is None:
        raise Invalid("name" if wish.name is None else "selector", "A group needs a name and a selector.")
    blank = NewGroup(new_id("group"), wish.name, parse_selector(wish.selector), 0, None, {})
    try:
        with db.write() as change:
            _lock(change)
            groups_before = store.all_groups(change.conn)
            if len(store.names(change.conn)) >= _MOST_GROUPS:
                raise NotPossible("too-many-groups", f"There are {_MOST_GROUPS} groups; there can be no more.")
            group = _wished(change.conn, blank, wish)
            store.add(change.conn, group, actor.name, now)
            _record(change, actor, "group.create", reason, None, group, now)
            groups_changed(change, groups_before, Cause(actor, f"group {group.name} was made", now))
    except IntegrityError as error:
        raise _taken(wish.name) from error
    return blank.id


def change(db: Database, actor: Actor, group_id: str, wish: Wish, reason: str, now: float) -> None:
    """Change what the wish names, for plans and operations from now on. A running rollout keeps its frozen policy; it
    follows the selector: whom that takes out leaves, whom it brings in is taken in. NotPossible where that would free
    nodes that wait (group_releases)."""
    try:
        with db.write() as change:
            _lock(change)
            before, groups_before = _as_said(change.conn, group_id), store.all_groups(change.conn)
            after = _wished(change.conn, before, wish)
            if after == before:
                raise NotPossible("no-change", f"{before.name} is so already; nothing was changed.")
            store.change(change.conn, after)
            if after.selector != before.selector:
                nodes_stay_bound(change.conn, (before.selector, after.selector), groups_before, now)
            _record(change, actor, "group.change", reason, before, after, now)
            if (before.name, before.selector, before.precedence) != (after.name, after.selector, after.precedence):
                renamed = (before.name, after.name) if before.name != after.name else None
                cause = Cause(actor, f"group {before.name} changed", now)
                groups_changed(change, groups_before, cause, renamed)
    except IntegrityError as error:
        raise _taken(wish.name or "") from error


def remove(db: Database, actor: Actor, group_id: str, reason: str, now: float) -> None:
    """Remove a group; NotPossible while a rollout of it has not ended, or it holds something back (group_releases)."""
    need(reason, "Say why the group is removed: it is kept in the audit log.")
    with db.write() as change:
        _lock(change)
        before, groups_before = _as_said(change.conn, group_id), store.all_groups(change.conn)
        for number, state in store.open_rollouts(change.conn, group_id):
            text = (
                f"Rollout {number} of {before.name} is {state.value.replace('-', ' ')}: abort it, or let it end first."
            )
            raise NotPossible("rollout-open", text)
        not_frozen(change.conn, before.id, before.name, now)
        store.remove(change.conn, group_id)
        nodes_stay_bound(change.conn, (before.selector,), groups_before, now)
        _record(change, actor, "group.remove", reason, before, None, now)
        groups_changed(change, groups_before, Cause(actor, f"group {before.name} was removed", now))
        change.touch("freezes")


def describe(conn: Connection, group_id: str, now: float) -> Described:
    """NotFound when there is none."""
    group = store.get(conn, group_id)
    if group is None:
        raise NotFound("group", group_id)
    channel = channels.get(conn, group.channel_id) if group.channel_id is not None else None
    windows = group.policy.windows
    return Described(
        group=group,
        channel=channel.name if channel is not None else "",
        members=store.members(conn, group.selector),
        open_now=is_open(windows, now),
        closes_at=closes_at(windows, now),
        openings=tuple(next_openings(windows, now, OPENINGS)),
        freezes=tuple(each for each in freezes.not_over(conn, now) if each.group_id in (None, group_id)),
    )


def groups_of_node(conn: Connection, node: Node) -> tuple[Group, ...]:
    """The groups that a node is in; the first is its policy group."""
    return groups_of(node.labels, store.all_groups(conn))


def policy_for(conn: Connection, node: Node) -> GroupPolicy:
    """The policy that a node's operations have: its policy group's; where no group selects it, the careful defaults
    with the durations of the fleet's policy."""
    groups = groups_of_node(conn, node)
    return groups[0].policy if groups else GroupPolicy(timing=fleet.policy(conn))


def _lock(change: Change) -> None:
    """Admission reads groups under this lock: it never sees half of two policies."""
    fleet.lock(change.conn)
    service_scopes.lock(change)


def _as_said(conn: Connection, group_id: str) -> NewGroup:
    group = store.get(conn, group_id)
    if group is None:
        raise NotFound("group", group_id)
    said = store.said(conn, group_id)
    return NewGroup(group.id, group.name, group.selector, group.precedence, group.channel_id, said)


def _wished(conn: Connection, before: NewGroup, wish: Wish) -> NewGroup:
    after = replace(before, said=_merged(before.said, wish.policy))
    policy_from_builtins(after.said)  # together they must make sense too
    if wish.name is not None:
        after = replace(after, name=check_name(wish.name))
    if wish.selector is not None:
        after = replace(after, selector=parse_selector(wish.selector))
    if wish.precedence is not None:
        after = replace(after, precedence=check_precedence(wish.precedence))
    if wish.channel is not None:
        after = replace(after, channel_id=_channel(conn, wish.channel))
    return after


def _merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` over `before`; durations one by one; a value of None takes the field back to its default."""
    after: dict[str, Any] = dict(before)
    for name, value in changes.items():
        if value is None:
            after.pop(name, None)
        elif name == "timing" and isinstance(value, Mapping):
            timing = {**before.get("timing", {}), **value}
            after["timing"] = {each: seconds for each, seconds in timing.items() if seconds is not None}
        else:
            after[name] = value
    if after.get("timing") == {}:
        del after["timing"]
    return checked(after)


def _channel(conn: Connection, name: str) -> str | None:
    if not name:
        return None
    channel = channels.find(conn, name)
    if channel is None:
        raise Invalid("channel", f"There is no channel “{name}”.")
    return channel.id


def _record(
    change: Change, actor: Actor, action: str, reason: str, before: NewGroup | None, after: NewGroup | None, now: float
) -> None:
    about = after or before
    assert about is not None, "something was made, changed or removed"
    audit.append(change.conn, actor, action, f"group:{about.id}", reason, _logged(before), _logged(after), now)
    change.touch("groups", "fleet", "nodes")


def _logged(group: NewGroup | None) -> dict[str, Any] | None:
    if group is None:
        return None
    return {
        "name": group.name,
        "selector": group.selector.text,
        "precedence": group.precedence,
        "channel": group.channel_id,
        "policy": dict(group.said),
    }


def _taken(name: str) -> NotPossible:
    return NotPossible("group-exists", f"There is a group {name.strip()} already; nothing was changed.")
