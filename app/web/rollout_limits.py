"""How many nodes of a rollout may be on their way at once: its own limit beside those of the groups, and which of them
binds. Services have a say of their own. Pure.

What counts differs (docs/decisions/0012-exposure.md): the rollout counts its nodes from their lease to the end of
their soak, a group each of its nodes that does not serve, whatever the cause. Both hold at every moment, so that the
stricter one binds. Of a group's only that counts which its missing nodes leave. Where they are the same the rollout's
comes first, for a node that soaks takes a part of that one alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from app.core.group_policy import GroupPolicy
from app.core.snapshot import GroupView, NodeView, Snapshot
from app.web.rollout_words import MISSING, UNDER_WAY, amount

_MOST_GROUPS = 4


@dataclass(frozen=True, slots=True)
class GroupLimit:
    """One group of which the rollout has nodes."""

    words: str
    """As sentences name it."""
    most: int
    """Of its nodes that may be missing at once, failure domains and all."""
    text: str
    """What it allows."""
    missing: int
    """Of its nodes that are missing now."""
    room: int
    """Of its nodes that may go missing beside those."""
    needs: int
    """Nodes of it that the rollout is to move and that take of the room: all but those that run and are unhealthy."""

    @property
    def line(self) -> str:
        now = f"; {self.missing:,} {'is' if self.missing == 1 else 'are'} missing now" if self.missing else ""
        return f"{self.words}: {self.text}, whatever the cause{now}"

    @property
    def binds(self) -> str:
        return f"{self.words[:1].upper()}{self.words[1:]} binds: {self._allows}."

    @property
    def binds_too(self) -> str:
        return f"So does {self.words}: {self._allows}."

    @property
    def _allows(self) -> str:
        already = f", and {self.missing:,} {'is' if self.missing == 1 else 'are'} already" if self.missing else ""
        return f"{self.text} missing at once{already}"

    @property
    def lets(self) -> str:
        more = f"{self.room:,} more node{'s' if self.room != 1 else ''}" if self.missing else _nodes(self.room)
        return f"{self.words} would let {more} be missing"


@dataclass(frozen=True, slots=True)
class Limits:
    own: int
    """Nodes of the rollout that may be under way at once."""
    share: str
    """As its policy says it, where that is a share of its nodes."""
    nodes: int
    """That are to move."""
    groups: tuple[GroupLimit, ...]

    @property
    def lines(self) -> list[tuple[str, str]]:
        """(what, how much), as other lines of a policy."""
        share = f" ({self.share})" if self.share else ""
        own = f"at most {self.own:,} of this rollout’s {_nodes(self.nodes)}{share}"
        lines = [(UNDER_WAY, f"{own}, from the lease to the end of the soak")]
        lines += [(MISSING, group.line) for group in self.groups[:_MOST_GROUPS]]
        more = len(self.groups) - _MOST_GROUPS
        return [*lines, (MISSING, f"and what {more} more groups allow")] if more > 0 else lines

    @property
    def words(self) -> str:
        """Which of them binds, in a sentence or two; empty where no node is to move."""
        if not self.nodes:
            return ""
        strict = [group for group in self.groups if group.room < min(self.own, group.needs)]
        if strict:
            return " ".join(group.binds for group in strict[:_MOST_GROUPS]) + self._beside(strict)
        if self.own < self.nodes:
            looser = self.groups[0].lets if len(self.groups) == 1 and self.groups[0].room > self.own else ""
            beside = f"; {looser}" if looser else ""
            same = [group.binds_too for group in self.groups if group.room == self.own < group.needs]
            own = f"This rollout's own limit binds: {_nodes(self.own)} under way at once{beside}."
            return " ".join([own, *same[:_MOST_GROUPS]])
        return "No limit of the rollout or of a group binds: they may all go at once, as far as services let them."

    def _beside(self, strict: Sequence[GroupLimit]) -> str:
        """What the rollout's own limit is still good for where a group's is stricter."""
        if self.own >= self.nodes or len(strict) < len(self.groups) or not all(group.room for group in strict):
            return ""
        return f" The rollout's own limit of {_nodes(self.own)} only lets others move while the first ones soak."


def limits(snapshot: Snapshot, place: int) -> Limits:
    """Of the rollout with this index, for the nodes that it is to move."""
    view = snapshot.rollouts[place]
    mine = [snapshot.nodes[each.node] for each in snapshot.candidates if each.rollout == place]
    most = view.policy.max_unavailable
    wanted = {id for node in mine for id in node.groups}
    size = Counter(id for node in snapshot.nodes if not node.absent for id in node.groups)
    gone = [node for node in snapshot.nodes if node.missing]
    return Limits(
        own=most.of(max(view.size, len(mine))),
        share=amount(most) if most.share is not None else "",
        nodes=len(mine),
        groups=tuple(_group_limit(each, size[each.id], gone, mine) for each in snapshot.groups if each.id in wanted),
    )


def _group_limit(group: GroupView, size: int, gone: Sequence[NodeView], mine: Sequence[NodeView]) -> GroupLimit:
    """`gone`: nodes of the fleet that are missing; `mine`: those that are to move."""
    own, away = ([node for node in nodes if group.id in node.groups] for nodes in (mine, gone))
    budget = group.policy.max_unavailable.of(size)
    text = f"at most {budget:,} of {_nodes(size)}"
    most, room = budget, budget - len(away)
    domains = _domains(group.policy, own, group.id, ())
    if domains is not None:
        if group.policy.max_per_domain:
            text += f" and {group.policy.max_per_domain:,} in each {group.policy.domain_label}"
        most, room = min(most, domains), min(room, _domains(group.policy, own, group.id, away) or 0)
    needs = sum(node.healthy or not node.up for node in own)
    return GroupLimit(group.words, most, text, len(away), max(0, room), needs)


def _domains(policy: GroupPolicy, own: Sequence[NodeView], group_id: str, away: Sequence[NodeView]) -> int | None:
    """Of its nodes that failure domains let be missing at once beside those that are away; None: they do not limit
    it."""
    if not policy.domain_label:
        return None
    sizes = Counter(node.labels.get(policy.domain_label, "") for node in own)
    lost = Counter(node.labels.get(policy.domain_label, "") for node in away)
    each = [
        max(0, min(size, policy.max_per_domain - lost[value])) if policy.max_per_domain else size
        for value, size in sizes.items()
    ]
    in_turns = policy.one_domain_after_another and all(node.groups[0] == group_id for node in own)
    if not policy.max_per_domain and not in_turns:
        return None
    return max(each, default=0) if in_turns else sum(each)


def _nodes(number: int) -> str:
    return f"{number:,} node{'s' if number != 1 else ''}"
