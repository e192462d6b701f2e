"""The conditions that a node meets or not whatever the others do, in the order of the chain (rule 10)."""

from __future__ import annotations

from app.core import windows
from app.core.holds import Hold, HoldCode
from app.core.image_match import canonical_arch
from app.core.planning.standing import Standing, leads_back
from app.core.planning.words import span
from app.core.rollouts import ACTIVE, RolloutKind, RolloutState
from app.core.snapshot import Candidate, NodeView, RolloutView, TargetView
from app.core.version_edges import edge
from app.core.versions import version_key

_STATES = {
    RolloutState.DRAFT: "waits for somebody to start {}",
    RolloutState.PAUSED: "waits for {} to be resumed: it is paused",
    RolloutState.HALTED: "waits for {}: it has been halted",
}
_MAY_BE_ENDLESS = frozenset({HoldCode.FREEZE, HoldCode.WINDOW})


class Gates:
    """What holds a candidate now; answers are remembered, so one object is good for one Standing at one time."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self._targets = [
            {(target.os_id, canonical_arch(target.arch)): target for target in rollout.targets}
            for rollout in standing.rollouts
        ]
        self._fitting: dict[tuple[int, str, str], TargetView | None] = {}
        self._of_target: dict[tuple[int, str, str, str], tuple[TargetView | None, Hold | None]] = {}
        self._timed: dict[tuple[int, tuple[int, ...], str, str], list[Hold]] = {}
        self._health: dict[int, Hold | None] = {}

    def standing_order(self, place: int) -> Hold | None:
        """What only a person or the node itself changes; time alone does not."""
        standing = self.standing
        candidate = standing.candidates[place]
        node = standing.nodes[candidate.node]
        if not node.commandable or node.absent or not node.online:
            return self._node(node)
        taken = self._taken(place, candidate) if candidate.node in standing.holders else None
        kept = None if standing.back[candidate.rollout] else candidate.kept
        return taken or self._target(candidate, standing.rollouts[candidate.rollout], node) or kept

    def first(self, place: int, *, ready: bool = False) -> Hold | None:
        """The first reason up to and including readiness; None: only the others and its services count now.

        `ready`: it is taken for ready, whatever it was told when it asked last.
        """
        candidate = self.standing.candidates[place]
        rollout = self.standing.rollouts[candidate.rollout]
        return (
            self.standing_order(place)
            or self.not_running(rollout)
            or self.timed(candidate.rollout, candidate.node)
            or (None if ready else self._ready(candidate))
            or self.canaries(candidate)
        )

    def not_running(self, rollout: RolloutView) -> Hold | None:
        if rollout.state in ACTIVE:
            return None
        text = _STATES.get(rollout.state, "waits for {}, which has ended").format(rollout.name)
        return Hold(HoldCode.NOT_RUNNING, text, rollout.id)

    def timed(self, rollout_place: int, node_place: int) -> Hold | None:
        """The first of freeze, window, minimum age."""
        holds = self._timed_holds(rollout_place, node_place)
        return holds[0] if holds else None

    def endless(self, rollout_place: int, node_place: int) -> Hold | None:
        """A freeze that nobody gave an end, or a window that never opens."""
        holds = self._timed_holds(rollout_place, node_place)
        return next((hold for hold in holds if hold.code in _MAY_BE_ENDLESS and hold.until is None), None)

    def _timed_holds(self, rollout_place: int, node_place: int) -> list[Hold]:
        node, memberships = self.standing.nodes[node_place], self.standing.memberships[node_place]
        key = (rollout_place, memberships, node.os_id, node.arch)
        if key not in self._timed:
            rollout = self.standing.rollouts[rollout_place]
            found = [
                *self._freezes(rollout, memberships),
                self._window(rollout, memberships),
                self._minimum_age(rollout, memberships, self.target(rollout_place, node)),
            ]
            self._timed[key] = [hold for hold in found if hold is not None]
        return self._timed[key]

    def health(self, candidate: Candidate) -> Hold | None:
        """Health gates: those of its rollout that are shut, and unhealthy nodes of its policy group. Who is unhealthy
        itself does not wait for these: being led elsewhere may be all that makes it well."""
        rollout = self.standing.rollouts[candidate.rollout]
        if self.standing.back[candidate.rollout]:
            return None
        if rollout.gates:
            return rollout.gates[0]
        memberships = self.standing.memberships[candidate.node]
        waits = bool(memberships) and self.standing.nodes[candidate.node].healthy
        return self._unhealthy(memberships[0]) if waits else None

    def canaries(self, candidate: Candidate) -> Hold | None:
        """Until the canaries have soaked and the canary soak is over, the others wait."""
        rollout = self.standing.rollouts[candidate.rollout]
        if candidate.canary or rollout.direct or self.standing.back[candidate.rollout]:
            return None
        if rollout.canaries_left > 0:
            left = rollout.canaries_left
            text = "waits for the last canary to soak" if left == 1 else f"waits for {left:,} canaries to soak"
            return Hold(HoldCode.CANARIES, text, rollout.id)
        if rollout.canaries_wait:
            return Hold(HoldCode.CANARIES, rollout.canaries_wait, rollout.id)
        over = canaries_over(rollout)
        if over is not None and self.standing.now < over:
            text = f"waits for the soak of the canaries to end: in {span(over - self.standing.now)}"
            return Hold(HoldCode.CANARIES, text, rollout.id, until=over)
        return None

    def target(self, rollout_place: int, node: NodeView) -> TargetView | None:
        """The image that this rollout has for the node."""
        key = (rollout_place, node.os_id, node.arch)
        if key not in self._fitting:
            self._fitting[key] = self._targets[rollout_place].get((node.os_id, canonical_arch(node.arch)))
        return self._fitting[key]

    def _node(self, node: NodeView) -> Hold:
        if not node.commandable:
            return Hold(HoldCode.NOT_COMMANDABLE, "cannot be commanded", node.id)
        if node.absent:
            return Hold(HoldCode.ABSENT, "counts as absent; it goes on when it is back", node.id)
        return Hold(HoldCode.OFFLINE, "is not connected; it goes on when it is back", node.id)

    def _taken(self, place: int, candidate: Candidate) -> Hold | None:
        holder = self.standing.holders[candidate.node]
        if holder == place:
            return None
        rollout = self.standing.rollouts[self.standing.candidates[holder].rollout]
        who = "an order to this node" if rollout.direct else rollout.name
        return Hold(HoldCode.OTHER_ROLLOUT, f"waits for {who}, which comes first", rollout.id)

    def _target(self, candidate: Candidate, rollout: RolloutView, node: NodeView) -> Hold | None:
        key = (candidate.rollout, node.os_id, node.arch, node.version)
        found = self._of_target.get(key)
        if found is None:
            found = self._of_target[key] = self._target_of_version(candidate.rollout, node)
        target, hold = found
        if target is None:
            return hold
        pinned = node.pinned_to and node.pin_digest != target.digest
        if pinned and not self.standing.back[candidate.rollout]:
            return Hold(HoldCode.PINNED, f"is pinned to {node.pinned_to}", node.id)
        if hold is None and target.digest in node.failed and not candidate.override_failed:
            return Hold(HoldCode.FAILED_HERE, f"{target.version} failed on it before", node.id)
        return hold

    def _target_of_version(self, rollout_place: int, node: NodeView) -> tuple[TargetView | None, Hold | None]:
        """What it moves to, None for a reboot; and what holds all nodes of this OS, architecture and version."""
        rollout, back = self.standing.rollouts[rollout_place], self.standing.back[rollout_place]
        if rollout.kind is RolloutKind.REBOOT:
            return None, None
        target = self.target(rollout_place, node)
        if target is not None:
            return target, self._of_version(rollout, target, node.version, back)
        text = f"{rollout.name} has no image for {node.os_id or 'an unknown OS'} {node.arch or 'of unknown kind'}"
        return None, None if back else Hold(HoldCode.NO_IMAGE, text, rollout.id)

    def _of_version(self, rollout: RolloutView, target: TargetView, booted: str, back: bool) -> Hold | None:
        if not back:
            refused = edge(target, booted)
            if refused is not None:
                return Hold(HoldCode.VERSION_EDGE, refused, rollout.id)
            if not rollout.allow_downgrade and version_key(target.version) < version_key(booted):
                text = f"{target.version} is older than {booted}, and {rollout.name} does not lead back"
                return Hold(HoldCode.DOWNGRADE, text, rollout.id)
        if target.withdrawn:
            return Hold(HoldCode.WITHDRAWN, f"{target.version} is withdrawn", rollout.id)
        if target.bad:
            return Hold(HoldCode.BAD_VERSION, f"{target.version} is bad: {target.bad}", rollout.id)
        return None

    def _freezes(self, rollout: RolloutView, memberships: tuple[int, ...]) -> list[Hold]:
        """What holds the whole fleet, then its groups; the way back and broken glass pass freezes and nothing else."""
        fleet = self.standing.fleet_hold
        holds = [fleet, *(self.standing.groups[group].frozen for group in memberships)]
        passes = rollout.break_glass or leads_back(rollout)
        return [hold for hold in holds if hold is not None and not (passes and hold.code is HoldCode.FREEZE)]

    def _window(self, rollout: RolloutView, memberships: tuple[int, ...]) -> Hold | None:
        if not memberships or rollout.break_glass or leads_back(rollout):
            return None
        group, now = self.standing.groups[memberships[0]], self.standing.now
        if windows.is_open(group.policy.windows, now):
            return None
        opens = windows.next_opening(group.policy.windows, now)
        when = f"opens in {span(opens - now)}" if opens is not None else "never opens"
        return Hold(HoldCode.WINDOW, f"waits for the window of group {group.name}: {when}", group.id, until=opens)

    def _minimum_age(
        self, rollout: RolloutView, memberships: tuple[int, ...], target: TargetView | None
    ) -> Hold | None:
        if not memberships or target is None or leads_back(rollout) or rollout.kind is RolloutKind.REBOOT:
            return None
        group = self.standing.groups[memberships[0]]
        minimum_s = group.policy.minimum_age_s
        old_enough = target.created_at + minimum_s
        if not minimum_s or self.standing.now >= old_enough:  # none asked: also where our clock was set back
            return None
        text = f"{target.version} is too young for group {group.name}: {span(old_enough - self.standing.now)} to go"
        return Hold(HoldCode.MINIMUM_AGE, text, group.id, until=old_enough)

    def _ready(self, candidate: Candidate) -> Hold | None:
        if candidate.ready:
            return None
        if candidate.said is not None:
            return candidate.said
        text = "has been ordered and is not ready yet" if candidate.operation_id else "has not been ordered yet"
        return Hold(HoldCode.NOT_READY, text, self.standing.nodes[candidate.node].id)

    def _unhealthy(self, place: int) -> Hold | None:
        if place not in self._health:
            group, number = self.standing.groups[place], self.standing.unhealthy[place]
            shut = group.policy.health_gate and number > group.policy.failure_limit.of(self.standing.size[place])
            of = f"nodes of {group.words}" if group.name else "nodes without a group"
            text = f"waits for the {of}: {number:,} are unhealthy"
            self._health[place] = Hold(HoldCode.HEALTH_GATE, text, group.id) if shut else None
        return self._health[place]


def canaries_over(rollout: RolloutView) -> float | None:
    """When the soak of its canaries ends or ended; None: it had none, or not all have soaked themselves."""
    soaked_at = rollout.canaries_soaked_at
    return soaked_at + rollout.policy.canary_soak_s if soaked_at is not None and not rollout.canaries_left else None
