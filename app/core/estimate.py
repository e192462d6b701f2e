"""How long a rollout will take: a range from its waves, its policies and their windows, or why it never ends. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.core import windows
from app.core.group_policy import GroupPolicy, Window
from app.core.holds import HoldCode
from app.core.plan import Plan
from app.core.planning.standing import leads_back
from app.core.planning.words import counted, named
from app.core.rollouts import RolloutKind
from app.core.snapshot import MoveTimes, RolloutView, Snapshot

QUICK_MOVE_S = 5.0
"""From the lease to confirmed at the very least: a small virtual machine whose checks pass at once. The low end of a
range has to hold, also where a better packing than the forecast's saves a wave: soaks and windows carry it."""
SLOW_STAGE_S = 1800.0
"""A few GiB over an ordinary line; the first wave waits for it where nothing is staged yet."""
_UNLIKE = 2.0
"""How much faster or slower than all that moved before it a node is taken to be."""
_OPENINGS = 120
"""Stretches of windows that are looked at: four months of nightly ones; beyond them nobody plans."""
_DATED = frozenset({HoldCode.FREEZE, HoldCode.MINIMUM_AGE, HoldCode.CANARIES})
_WORDS = {
    HoldCode.NOT_COMMANDABLE: ("cannot be commanded", "cannot be commanded"),
    HoldCode.ABSENT: ("is absent", "are absent"),
    HoldCode.OFFLINE: ("is not connected", "are not connected"),
    HoldCode.OTHER_ROLLOUT: ("is with another rollout", "are with another rollout"),
    HoldCode.OTHER_GROUP: ("is not of its group", "are not of its group"),
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
    moved: MoveTimes | None = None
    """Of its own nodes, what it counts with; None: none has moved yet, and its policy's deadlines are the most."""


def estimate(plan: Plan, snapshot: Snapshot, rollout: int) -> Estimate:
    """Of one rollout, by its index in the snapshot."""
    view = snapshot.rollouts[rollout]
    quick_s, slow_s = _move_s(view)
    low = high = 0.0
    for group, waves in _waves_by_group(plan, snapshot, rollout).items():
        policy = snapshot.groups[group].policy if group is not None else view.policy
        start = _start(plan, snapshot, rollout, group)
        line = _Line(view, policy, waves, _soaks_between(plan, snapshot, rollout), _exposed(snapshot, rollout))
        low = max(low, line.earliest(start, quick_s) - snapshot.now)
        staged = start if _all_staged(snapshot, rollout) else start + view.policy.stage_jitter_s + SLOW_STAGE_S
        high = max(high, line.latest(staged, slow_s) - snapshot.now)
    if any(node.exposed_to == view.id for node in snapshot.nodes):  # those that are under way may have just begun
        high += slow_s + view.policy.timing.soak_s
    return Estimate(low, max(low, high), _never(plan, snapshot, rollout), view.moved)


@dataclass(frozen=True, slots=True)
class _Line:
    """The waves of the nodes of one policy group: which of them are canaries.

    Waves that are as wide as the rollout may expose nodes wait for each other's soak; narrower ones, that floors make
    so, go on while earlier ones soak.
    """

    rollout: RolloutView
    policy: GroupPolicy
    waves: Sequence[tuple[bool, int]]
    """Of each: whether it is the canaries', and how many nodes it moves."""
    soaks: float
    """Share of a soak that comes between two waves."""
    exposed: int
    """Most nodes of the rollout that may be moving or soaking at once."""

    def earliest(self, start: float, move_s: float) -> float:
        """Before this its last node cannot have soaked, if each takes `move_s` from its lease to confirmed: waves of
        floors and domains follow each other's moves alone, and only as many soak at once as may be exposed."""
        at = start
        if canaries := self._canaries:
            at = _after(self._bound, at, canaries, move_s) + self._soak_s + self.rollout.policy.canary_soak_s
        others = [nodes for is_canary, nodes in self.waves if not is_canary]
        if not others:
            return at
        rounds = _after(self._bound, at, math.ceil(sum(others) / self.exposed), move_s + self._soak_s)
        return max(rounds, _after(self._bound, at, len(others), move_s) + self._soak_s)

    def latest(self, start: float, move_s: float) -> float:
        """By then its last node has soaked, if each takes `move_s` at the most."""
        at, soak_s = start, self._soak_s
        if canaries := self._canaries:
            at = _after(self._bound, at, canaries, move_s + soak_s) + self.rollout.policy.canary_soak_s
        others = len(self.waves) - canaries
        end = _after(self._bound, at, others, move_s + self.soaks * soak_s)
        return end + (1.0 - self.soaks) * soak_s if others else end

    @property
    def _canaries(self) -> int:
        return sum(is_canary for is_canary, _ in self.waves)

    @property
    def _soak_s(self) -> float:
        return 0.0 if leads_back(self.rollout) else self.rollout.policy.timing.soak_s

    @property
    def _bound(self) -> Sequence[Window]:
        return () if leads_back(self.rollout) or self.rollout.break_glass else self.policy.windows


def _exposed(snapshot: Snapshot, rollout: int) -> int:
    view = snapshot.rollouts[rollout]
    mine = {candidate.node for candidate in snapshot.candidates if candidate.rollout == rollout}
    return max(1, view.policy.max_unavailable.of(max(view.size, len(mine))))


def _soaks_between(plan: Plan, snapshot: Snapshot, rollout: int) -> float:
    mine = {candidate.node for candidate in snapshot.candidates if candidate.rollout == rollout}
    sizes = [size for wave in plan.waves if (size := len(mine.intersection(wave.nodes)))]
    return min(1.0, math.ceil(sum(sizes) / _exposed(snapshot, rollout)) / len(sizes)) if sizes else 1.0


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


def _waves_by_group(plan: Plan, snapshot: Snapshot, rollout: int) -> dict[int | None, list[tuple[bool, int]]]:
    """By index of the policy group: for each wave with nodes of it and of this rollout, whether it is its canaries',
    and how many they are."""
    places = {group.id: place for place, group in enumerate(snapshot.groups)}
    mine = {candidate.node: candidate.canary for candidate in snapshot.candidates if candidate.rollout == rollout}
    found: dict[int | None, list[tuple[bool, int]]] = {}
    for wave in plan.waves:
        canary: dict[int | None, bool] = {}
        nodes: Counter[int | None] = Counter()
        for node in wave.nodes:
            if node in mine:
                groups = snapshot.nodes[node].groups
                group = places[groups[0]] if groups else None
                canary[group] = canary.get(group, True) and mine[node]
                nodes[group] += 1
        for group, is_canary in canary.items():
            found.setdefault(group, []).append((is_canary, nodes[group]))
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


def _all_staged(snapshot: Snapshot, rollout: int) -> bool:
    """Whether nobody has anything to download before it can go."""
    view = snapshot.rollouts[rollout]
    digests = {target.digest for target in view.targets}
    return view.kind is RolloutKind.REBOOT or all(
        candidate.ready or snapshot.nodes[candidate.node].staged_digest in digests
        for candidate in snapshot.candidates
        if candidate.rollout == rollout
    )


def _move_s(view: RolloutView) -> tuple[float, float]:
    """How long a node takes from its lease to confirmed, at the least and at the most. Its policy's deadlines are the
    most until some have moved; then the others are trusted to take no less than half of the fastest of them, and no
    more than twice the slowest."""
    policy, moved = view.policy, view.moved
    drain_s = policy.drain_s if policy.drain else 0.0
    deadline_s = drain_s + policy.timing.reboot_deadline_s + policy.timing.confirm_s
    if moved is None:
        return QUICK_MOVE_S, deadline_s
    quick_s = max(QUICK_MOVE_S, moved.fastest_s / _UNLIKE)
    return quick_s, max(quick_s, min(deadline_s, moved.slowest_s * _UNLIKE))


def _never(plan: Plan, snapshot: Snapshot, rollout: int) -> str:
    """What has to change for its last node to move; empty where all of them are in waves."""
    in_waves = {node for wave in plan.waves for node in wave.nodes}
    stay = [
        place
        for place, candidate in enumerate(snapshot.candidates)
        if candidate.rollout == rollout and candidate.node not in in_waves and place in plan.holds
    ]
    awaits = snapshot.rollouts[rollout].awaits
    if not stay and not awaits:
        return ""
    nodes = {snapshot.candidates[place].node for place in stay}
    causes = [f"{one.text} ({_helps(one.helps)})" for one in plan.impossible if nodes & set(one.nodes)]
    causes += _counted_reasons(plan, snapshot, stay)
    causes += [awaits] if awaits else []
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
