"""What rolling back a group would do now: which of its updates it stops, which nodes go back to what, and who stays.

Only a node whose last move led forth goes back, to what it ran before that. Ways back are not turned round: asked for
twice, a group goes back once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from app.core.errors import NotFound
from app.core.groups import Group
from app.core.rollouts import RolloutKind, RolloutNodeState, RolloutState
from app.store import bad_versions, failed_versions, groups, last_moves, rollout_facts, rollouts
from app.store.last_moves import InRollout, LastMove, Standing
from app.store.rollouts import Rollout

_CAN_STOP = (RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED)
_NOT_MOVED = (RolloutNodeState.WAITING, RolloutNodeState.ORDERED)
_UNDER_WAY = (*_NOT_MOVED, RolloutNodeState.MOVING)


@dataclass(frozen=True, slots=True)
class Back:
    """Nodes that go back from one version to one other."""

    version: str
    before: str
    nodes: int
    local: int
    """So many of them find it in their passive slot; the others download it."""


@dataclass(frozen=True, slots=True)
class GroupWayBack:
    group: Group
    stops: tuple[Rollout, ...]
    """Updates of the group that are under way: they are rolled back, and move nobody any more."""
    with_them: tuple[Standing, ...]
    """Nodes that these moved, or are moving: they go back with them."""
    goes: tuple[Standing, ...]
    """Nodes that earlier updates, or orders to single nodes, moved: a rollout of its own sends them back."""
    stays: tuple[tuple[Standing, str], ...]
    """Everybody else, with the reason in words that follow “stays:”."""
    barred: bool
    """Some of those that stay would go back, if what they ran before were not bad, or had not failed on them."""
    asked_twice: bool
    """Some of them are being sent back already."""
    leaves: tuple[tuple[str, str], ...]
    """(rollout, node): who goes back and would be moved forth by an update of another group leaves that."""

    @property
    def backs(self) -> list[Back]:
        """Most nodes first."""
        found: dict[tuple[str, str], list[bool]] = {}
        for one in (*self.with_them, *self.goes):
            before = one.other_version if one.move is LastMove.FORTH else ""
            found.setdefault((one.version, before), []).append(one.local)
        backs = [Back(version, before, len(local), sum(local)) for (version, before), local in found.items()]
        return sorted(backs, key=lambda back: (-back.nodes, back.version, back.before))

    @property
    def reasons(self) -> list[tuple[str, list[str]]]:
        """Why nodes stay, with their names; most nodes first."""
        found: dict[str, list[str]] = {}
        for one, why in self.stays:
            found.setdefault(why, []).append(one.name)
        return sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))


def way_back_of_group(conn: Connection, group_id: str) -> GroupWayBack:
    """NotFound."""
    group = groups.get(conn, group_id)
    if group is None:
        raise NotFound("group", group_id)
    stops = [one for one in rollouts.in_states(conn, _CAN_STOP) if _is_update_of(one, group_id)]
    reached = {one.id: rollout_facts.reached(conn, one.id) for one in stops}
    members = last_moves.of_group(conn, group.selector)
    inside = last_moves.in_open_rollouts(conn, group.selector)
    barred = _barred(conn, members)
    why = {one.node_id: _stays(one, inside.get(one.node_id, ()), reached, barred) for one in members}
    goes = tuple(one for one in members if why[one.node_id] is None)
    return GroupWayBack(
        group=group,
        stops=tuple(stops),
        with_them=tuple(one for one in members if why[one.node_id] == _WITH_IT),
        goes=goes,
        stays=tuple((one, text) for one in members if (text := why[one.node_id]) is not None and text != _WITH_IT),
        barred=bool(barred),
        asked_twice=any(_is_sent_back(each) for some in inside.values() for each in some),
        leaves=tuple((each.rollout_id, one.node_id) for one in goes for each in _waits(inside.get(one.node_id, ()))),
    )


_WITH_IT = ""


def _is_update_of(rollout: Rollout, group_id: str) -> bool:
    return rollout.group_id == group_id and rollout.kind is RolloutKind.UPDATE


def _barred(conn: Connection, members: Sequence[Standing]) -> dict[str, str]:
    """Node → why what it ran before is no way back, until an operator clears it (rule 5)."""
    forth = [one for one in members if one.move is LastMove.FORTH]
    bad = bad_versions.not_cleared(conn)
    failed = failed_versions.on_nodes(conn, {one.other_digest for one in forth})
    found = {}
    for one in forth:
        if one.other_digest in bad:
            found[one.node_id] = f"what it ran before, {one.other_version}, is bad fleet-wide"
        elif (late := failed.get((one.node_id, one.other_digest))) is not None and not (late and one.confirmed):
            found[one.node_id] = f"what it ran before, {one.other_version}, failed on it"
    return found


def _stays(
    one: Standing, inside: Sequence[InRollout], reached: Mapping[str, Collection[str]], barred: Mapping[str, str]
) -> str | None:
    """Why the node is not sent back by a rollout of its own; None: it is."""
    for each in inside:
        if _is_sent_back(each):
            return f"rollout {each.number} sends it back already"
        if each.rollout_id not in reached:
            if each.kind is RolloutKind.UPDATE and each.state is RolloutNodeState.MOVING:
                return f"rollout {each.number}, which is not of this group, is moving it"
        elif each.state in _NOT_MOVED:
            return f"rollout {each.number} has not moved it"
        elif each.state is RolloutNodeState.MOVING or (each.moved and one.digest in reached[each.rollout_id]):
            return _WITH_IT
    if one.move is LastMove.FORTH:
        return barred.get(one.node_id)
    return {
        LastMove.BACK: f"its last way led back, from {one.other_version or 'another version'}",
        LastMove.FELL: f"it went back by itself, from {one.other_version or 'another version'}",
    }.get(one.move, "no update is known that brought it to what it runs")


def _is_sent_back(each: InRollout) -> bool:
    return each.back or (each.kind is RolloutKind.ROLLBACK and each.state in _UNDER_WAY)


def _waits(inside: Sequence[InRollout]) -> list[InRollout]:
    """The updates that would move it forth again. (One of the group itself would have kept it from going back.)"""
    return [each for each in inside if each.kind is RolloutKind.UPDATE and each.state in _NOT_MOVED]
