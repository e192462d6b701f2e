"""How long a rollout will take: a range from its waves, its policies and their windows, or why it never ends. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.core import windows
from app.core.group_policy import GroupPolicy, Window
from app.core.holds import HoldCode
from app.core.plan import Plan
from app.core.planning.standing import leads_back
from app.core.planning.words import counted, named
from app.core.snapshot import RolloutView, Snapshot

QUICK_MOVE_S = 60.0
"""From the lease to confirmed on a machine that boots fast and whose checks pass at once."""
SLOW_STAGE_S = 1800.0
"""A few GiB over an ordinary line; the first wave waits for it where nothing is staged yet."""
_OPENINGS = 120
"""Stretches of windows that are looked at: four months of nightly ones; beyond them nobody plans."""
_DATED = frozenset({HoldCode.FREEZE, HoldCode.MINIMUM_AGE, HoldCode.CANARIES})
_WORDS = {
    HoldCode.NOT_COMMANDABLE: ("cannot be commanded", "cannot be commanded"),
    HoldCode.ABSENT: ("is absent", "are absent"),
    HoldCode.OFFLINE: ("is not connected", "are not connected"),
    HoldCode.OTHER_ROLLOUT: ("is with another rollout", "are with another rollout"),
    HoldCode.NO_IMAGE: ("has no image in it", "have no image in it"),
    HoldCode.PINNED: ("is pinned", "are pinned"),
    HoldCode.VERSION_EDGE: ("must pass another version first", "must pass another version first"),
    HoldCode.DOWNGRADE: ("runs a newer version", "run a newer version"),
    HoldCode.WITHDRAWN: ("waits for an image that is withdrawn", "wait for an image that is withdrawn"),
    HoldCode.BAD_VERSION: ("waits for a version that is bad", "wait for a version that is bad"),
    HoldCode.FAILED_HERE: ("failed with it before", "failed with it before"),
    HoldCode.KEEPING_WAY_BACK: (
        "keeps its way back for a rollout that is not over",
        "keep their way back for a rollout that is not over",
    ),
    HoldCode.PLACEMENT_UNKNOWN: ("runs nobody knows what", "run nobody knows what"),
}
"""What is said of one node and of several that only a person or the node itself can set moving."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of the nodes that can move: seconds from the plan's time until the last one has soaked."""

    low_s: float
    high_s: float
    """`inf`: not within the windows of the next months."""
    never: str = ""
    """“never ends unless …”; empty: it ends."""


def estimate(
    plan: Plan, snapshot: Snapshot, rollout: int, quick_s: float = QUICK_MOVE_S, slow_s: float | None = None
) -> Estimate:
    """Of one rollout, by its index in the snapshot. `quick_s`, `slow_s`: how long a node takes from its lease to
    confirmed at the least and at the most, where that was seen; else its policy's deadlines are the most."""
    view = snapshot.rollouts[rollout]
    low = high = 0.0
    for group, waves in _waves_by_group(plan, snapshot, rollout).items():
        policy = snapshot.groups[group].policy if group is not None else view.policy
        most = slow_s if slow_s is not None else _slow_move_s(view.policy)
        start = _start(plan, snapshot, rollout, group)
        line = _Line(view, policy, waves, _soaks_between(plan, snapshot, rollout))
        low = max(low, line.end(start, snapshot.now, quick_s) - snapshot.now)
        staged = start if _all_ready(snapshot, rollout) else start + view.policy.stage_jitter_s + SLOW_STAGE_S
        high = max(high, line.end(staged, snapshot.now, most) - snapshot.now)
    if any(node.exposed_to == view.id for node in snapshot.nodes):  # those that are under way may have just begun
        high += (slow_s if slow_s is not None else _slow_move_s(view.policy)) + view.policy.timing.soak_s
    return Estimate(low, max(low, high), _never(plan, snapshot, rollout))


@dataclass(frozen=True, slots=True)
class _Line:
    """The waves of the nodes of one policy group: which of them are canaries.

    Waves that are as wide as the rollout may expose nodes wait for each other's soak; narrower ones, that floors make
    so, go on while earlier ones soak. `soaks`: share of a soak that comes between two waves.
    """

    rollout: RolloutView
    policy: GroupPolicy
    waves: Sequence[bool]
    soaks: float

    def end(self, start: float, now: float, move_s: float) -> float:
        """When its last node has soaked, if each takes `move_s` from its lease to confirmed."""
        timing, back = self.rollout.policy.timing, leads_back(self.rollout)
        soak_s = 0.0 if back else timing.soak_s
        bound = () if back or self.rollout.break_glass else self.policy.windows
        at, canaries = start, sum(self.waves)
        if canaries:
            at = _after(bound, at, canaries, move_s + soak_s) + self.rollout.policy.canary_soak_s
        others = len(self.waves) - canaries
        end = _after(bound, at, others, move_s + self.soaks * soak_s)
        return end + (1.0 - self.soaks) * soak_s if others else end


def _soaks_between(plan: Plan, snapshot: Snapshot, rollout: int) -> float:
    view = snapshot.rollouts[rollout]
    mine = {candidate.node for candidate in snapshot.candidates if candidate.rollout == rollout}
    sizes = [size for wave in plan.waves if (size := len(mine.intersection(wave.nodes)))]
    limit = max(1, view.policy.max_unavailable.of(max(view.size, len(mine))))
    return min(1.0, math.ceil(sum(sizes) / limit) / len(sizes)) if sizes else 1.0


def _after(bound: Sequence[Window], at: float, waves: int, wave_s: float) -> float:
    """When so many waves are through, one after the other, each begun while a window is open."""
    if not waves:
        return at
    if not bound:
        return at + waves * wave_s
    for opens, closes in windows.next_openings(bound, at, _OPENINGS):
        begin = max(at, opens)
        fit = waves if math.isinf(closes) else min(waves, math.ceil((closes - begin) / wave_s))
        if fit > 0:
            at, waves = begin + fit * wave_s, waves - fit
        if waves == 0:
            return at
    return math.inf


def _waves_by_group(plan: Plan, snapshot: Snapshot, rollout: int) -> dict[int | None, list[bool]]:
    """By index of the policy group: for each wave with nodes of it and of this rollout, whether it is its canaries'."""
    places = {group.id: place for place, group in enumerate(snapshot.groups)}
    mine = {candidate.node: candidate.canary for candidate in snapshot.candidates if candidate.rollout == rollout}
    found: dict[int | None, list[bool]] = {}
    for wave in plan.waves:
        canary: dict[int | None, bool] = {}
        for node in wave.nodes:
            if node in mine:
                groups = snapshot.nodes[node].groups
                group = places[groups[0]] if groups else None
                canary[group] = canary.get(group, True) and mine[node]
        for group, is_canary in canary.items():
            found.setdefault(group, []).append(is_canary)
    return found


def _start(plan: Plan, snapshot: Snapshot, rollout: int, group: int | None) -> float:
    """Before this nothing of the group moves: a freeze, an image that is too young, canaries that soak."""
    ends = [
        hold.until
        for place, hold in plan.holds.items()
        if hold.until is not None and hold.code in _DATED and _belongs(snapshot, place, rollout, group)
    ]
    return max(ends, default=snapshot.now)


def _belongs(snapshot: Snapshot, place: int, rollout: int, group: int | None) -> bool:
    candidate = snapshot.candidates[place]
    groups = snapshot.nodes[candidate.node].groups
    return candidate.rollout == rollout and (group is None or snapshot.groups[group].id in groups[:1])


def _all_ready(snapshot: Snapshot, rollout: int) -> bool:
    return all(candidate.ready for candidate in snapshot.candidates if candidate.rollout == rollout)


def _slow_move_s(policy: GroupPolicy) -> float:
    drain_s = policy.drain_s if policy.drain else 0.0
    return drain_s + policy.timing.reboot_deadline_s + policy.timing.confirm_s


def _never(plan: Plan, snapshot: Snapshot, rollout: int) -> str:
    """What has to change for its last node to move; empty where all of them are in waves."""
    in_waves = {node for wave in plan.waves for node in wave.nodes}
    stay = [
        place
        for place, candidate in enumerate(snapshot.candidates)
        if candidate.rollout == rollout and candidate.node not in in_waves and place in plan.holds
    ]
    if not stay:
        return ""
    nodes = {snapshot.candidates[place].node for place in stay}
    causes = [f"{one.text} ({_helps(one.helps)})" for one in plan.impossible if nodes & set(one.nodes)]
    causes += _counted_reasons(plan, snapshot, stay)
    if not causes:
        causes = [f"{counted(len(stay), 'node')} can move again"]
    return "never ends unless this changes: " + "; ".join(causes)


def _helps(helps: Sequence[str]) -> str:
    return f"{', '.join(helps[:-1])} or {helps[-1]} would help" if len(helps) > 1 else f"{helps[0]} would help"


def _counted_reasons(plan: Plan, snapshot: Snapshot, stay: Iterable[int]) -> list[str]:
    names: dict[HoldCode, list[str]] = {}
    for place in stay:
        names.setdefault(plan.holds[place].code, []).append(snapshot.nodes[snapshot.candidates[place].node].name)
    return [
        f"{named(sorted(names[code]))} {words[len(names[code]) > 1]}" for code, words in _WORDS.items() if code in names
    ]
