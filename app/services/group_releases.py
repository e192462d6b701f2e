"""What a group holds back is never let go unseen: a change of who is in which group that would free nodes from a freeze
or from windows, while something waits to move them, is refused (docs/decisions/0037-nothing-is-released-unseen.md)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import Connection, or_

from app.core.errors import NotPossible
from app.core.group_policy import GroupPolicy
from app.core.groups import Group, Grouping, Selector
from app.services import freezes
from app.store import groups
from app.store.node_query import in_group
from app.store.pending_moves import PendingMove, pending_moves
from app.store.schema import nodes as node_rows

_NAMED = 3


def not_frozen(conn: Connection, group_id: str, name: str, now: float) -> None:
    """NotPossible while the group is frozen, or will be: its freezes would end with it."""
    for each in freezes.standing(conn, group_id, now):
        is_so = "is" if each.holds_at(now) else "is to be"
        text = f"Group {name} {is_so} frozen by {each.actor}: “{each.reason}”. Lift that freeze first, for it would"
        raise NotPossible("frozen", f"{text} end with the group and nobody would be told; nothing was changed.")


def nodes_stay_bound(conn: Connection, selectors: Collection[Selector], before: Sequence[Group], now: float) -> None:
    """After groups were changed in this transaction: NotPossible when nodes that one of the selectors takes are free of
    a freeze or of windows that held them. `before`: all groups as they were."""
    was, found = Grouping(before), Grouping(groups.all_groups(conn))
    pending = pending_moves(conn, or_(*map(in_group, selectors)))
    _refuse(conn, ((each, was.of(each.labels), found.of(each.labels)) for each in pending), now)


def node_stays_bound(conn: Connection, node_id: str, before: Mapping[str, str], now: float) -> None:
    """As `nodes_stay_bound`, after this node was given other labels than `before`."""
    grouping = Grouping(groups.all_groups(conn))
    pending = pending_moves(conn, node_rows.c.id == node_id)
    _refuse(conn, ((each, grouping.of(before), grouping.of(each.labels)) for each in pending), now)


Change = tuple[PendingMove, Sequence[Group], Sequence[Group]]
"""What waits to move a node, and its groups before and after."""


def _refuse(conn: Connection, changes: Iterable[Change], now: float) -> None:
    frozen: dict[str, bool] = {}
    freed: dict[tuple[str, str], list[str]] = {}
    for pending, old, new in changes:
        for group in old:
            if group.id not in frozen:
                frozen[group.id] = any(each.holds_at(now) for each in freezes.standing(conn, group.id, now))
        what = _no_longer_bound(pending, old, new, {id for id, is_so in frozen.items() if is_so})
        if what:
            freed.setdefault((what, pending.by), []).append(pending.name)
    if freed:
        (what, by), names = next(iter(freed.items()))
        raise NotPossible("released", _sentence(what, by, names))


def _no_longer_bound(pending: PendingMove, old: Sequence[Group], new: Sequence[Group], frozen: Collection[str]) -> str:
    """What held the node and would not any more; empty: nothing, or it leaves the rollout with the group."""
    stays = {group.id for group in new}
    if pending.group_id in {group.id for group in old} - stays:
        return ""
    for group in old:
        if group.id in frozen and group.id not in stays:
            return f"the freeze of group {group.name}"
    if not old or (new and new[0].id == old[0].id):
        return ""
    other = new[0].policy if new else GroupPolicy()  # of another group, also where the old one still takes the node
    if old[0].policy.windows and other.windows != old[0].policy.windows:
        return f"the windows of group {old[0].name}"
    if other.minimum_age_s < old[0].policy.minimum_age_s:
        return f"the minimum age of images in group {old[0].name}"
    return ""


def _sentence(what: str, by: str, names: Sequence[str]) -> str:
    who = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    waits, it = ("waits", "it") if len(names) == 1 else ("wait", "them")
    return (
        f"{who} {waits} for {by}, and {what} would not bind {it} any more. Let that end first, leave {it} out of it, or"
        f" end what binds {it} yourself, where everybody sees it. Nothing was changed."
    )
