"""The rules of the design, judged from outside: by what machines and containers do, never by what rows or agents say.

What the control plane could not know when it granted a lease excuses the reboot under it; nothing else does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from agent.drivers.files_record import EntryState
from agent.phases.model import Step
from sim.machine import Deed
from sim.node import SimNode
from sim.watch import Cause, Watch
from tests.simulation.gate import Soaked
from tests.simulation.records import Gain, Loss, Record, close_span, open_span
from tests.simulation.story import Story
from wire.messages import HealthState, OperationKind


class RuleBroken(AssertionError):
    """A rule of the design does not hold."""


Objection = Callable[[int, str, str, Soaked], str]
"""See `gate.Gate.objection`: of this node's number, under this operation, to this version."""


Keeps = Callable[[str, str, str], str]
"""See `gate.Gate.keeps`: of the rollout that brought a node to what it runs, under this operation, to this version."""


class Judge(Watch):
    """`rollout_of`: id of the rollout of an operation, empty for none."""

    def __init__(
        self,
        story: Story,
        rollout_of: Callable[[str], str],
        say: Callable[[str], None],
        objection: Objection = lambda number, operation_id, version, soaked: "",
        keeps: Keeps = lambda rollout_id, operation_id, version: "",
    ) -> None:
        super().__init__(len(story.scenario.services))
        self._say = say
        self._story = story
        self._rollout_of = rollout_of
        self._objection = objection
        self._keeps = keeps
        self.records: dict[int, Record] = defaultdict(Record)
        self.requests: dict[str, float] = {}
        """Nonce → when the request left its node."""
        self.losses: list[Loss] = []
        self.gains: list[Gain] = []
        """Of replicas that are healthy."""
        self.struck: set[str] = set()
        """Ids of operations that were under way when their node lost its power."""
        self.nodes: Sequence[SimNode] = ()
        self.reboots = 0

    def _record(self, node: SimNode) -> Record:
        return self.records[node.spec.number]

    # --- what the run tells ---------------------------------------------------------------------------------

    def granted(self, number: int, now: float) -> None:
        """A lease of this node was committed."""
        record = self.records[number]
        record.granted_at, record.missing_already = now, record.unhealthy_known

    def delivered(self, node: SimNode, nonce: str, duration_s: float) -> None:
        """A grant has reached its node; it counts from the request."""
        record = self._record(node)
        record.live_until = max(record.live_until, self.requests.get(nonce, 0.0) + duration_s)

    def known(self, node: SimNode, said_at: float, now: float) -> None:
        """All that the node's state was at `said_at` is in the database now."""
        self.missed(node, said_at, now)
        for gain in self.gains:
            if gain.node is node and gain.known_at is None and gain.at <= said_at:
                gain.known_at = now
        self._record(node).unhealthy_known = node.state.rounds.state is HealthState.UNHEALTHY

    def missed(self, node: SimNode, said_at: float, now: float) -> None:
        """Nobody counts from now on with what the node was until `said_at`: it said what became of it, or it has no
        connection, and then nothing on it counts until it says so over a new one."""
        for loss in self.losses:
            if loss.node is node and loss.known_at is None and loss.lost_at <= said_at:
                loss.known_at = now
        record = self._record(node)
        if record.down_since is not None and record.down_known_at is None and record.down_since <= said_at:
            record.down_known_at = now

    # --- replicas -------------------------------------------------------------------------------------------

    def replicas(self, node: SimNode, services: Sequence[int], change: int, cause: Cause, now: float) -> None:
        super().replicas(node, services, change, cause, now)
        if change > 0:
            self.gains += [Gain(node, service, now) for service in services]
            for loss in self.losses:
                if loss.node is node and loss.service in services and loss.back_at is None:
                    loss.back_at = now
            return
        gone = [gain for gain in self.gains if gain.node is node and gain.service in services]
        self.gains = [gain for gain in self.gains if gain not in gone]
        if cause in (Cause.OPERATION, Cause.RETREAT):
            for service in dict.fromkeys(services):
                self._floor(node, service, gone, now)
        else:
            self.losses += [Loss(node, service, now) for service in services]

    def _floor(self, node: SimNode, service: int, gone: Sequence[Gain], now: float) -> None:
        """Rule 3: never below the floor by our own doing. Replicas that are `gone` with the node, and that nobody knew
        of when its lease was granted, cost nothing: without them the service was as far down before."""
        floor = self._story.floors[service]
        granted_at = self._record(node).granted_at
        unknown = sum(
            loss.service == service and loss.back_at is None and loss.unknown_at(granted_at) for loss in self.losses
        )
        unknown += sum(gain.service == service and gain.unknown_at(granted_at) for gain in gone)
        if self.healthy[service] + unknown < floor:
            name = self._story.scenario.services[service].name
            raise RuleBroken(
                f"{node.spec.name} goes down and leaves {self.healthy[service]} of {name}, whose floor is {floor} "
                f"(lease granted {now - granted_at:.1f} s before; {unknown} lost or gained without anybody knowing)"
            )

    # --- deeds ----------------------------------------------------------------------------------------------

    def deed(self, node: SimNode, deed: Deed, slot: str, now: float) -> None:
        if deed is not Deed.DISARMED:
            self._say(f"{node.spec.name} {deed.name.lower().replace('_', ' ')} {slot}")
        match deed:
            case Deed.WRITES:
                self._writes(node, slot, now)
            case Deed.ARMED:
                self._arms(node, slot, now)
            case Deed.GOES_DOWN:
                self._goes_down(node, now)
            case Deed.POWER_LOST:
                self._struck(node)
                self._down(node, now, ours=False)
            case Deed.PANICKED:
                self._record(node).failed.add(node.machine.record.entry(slot).version)
            case Deed.BOOTED:
                self._booted(node, slot, now)
            case Deed.MARKED_GOOD:
                self._confirmed(node, now)
            case _:
                pass

    def _struck(self, node: SimNode) -> None:
        """What it was at may fail with the power, and nothing that it does later."""
        if node.state.operation is not None:
            self.struck.add(node.state.operation.id)

    def _writes(self, node: SimNode, slot: str, now: float) -> None:
        """Rule 2: the booted slot is never written, the passive one only when it is not the way back any more."""
        if slot == node.machine.booted:
            raise RuleBroken(f"{node.spec.name} writes the slot that it runs from")
        if node.machine.running.state is not EntryState.GOOD:
            raise RuleBroken(f"{node.spec.name} writes its way back while it is on trial")
        self._way_back(node, now)
        self._no_retry(node)

    def _way_back(self, node: SimNode, now: float) -> None:
        """Rule 2: what is booted has soaked, its rollout is over and kept the way back for long enough."""
        record, operation = self._record(node), node.state.operation
        if record.brought_by and operation is not None:
            version = operation.image.version if operation.image is not None else ""
            keeps = self._keeps(record.brought_by, operation.id, version)
            if keeps:
                raise RuleBroken(f"{node.spec.name} writes its way back for {version}, and {keeps}")
        zones = {self._story.zone_of(node.spec.number, moment) for moment in (record.granted_at, now)}
        kept_s = min(
            (group.way_back_s for group in self._story.groups for zone in zones if group.takes(zone)), default=0.0
        )
        if record.confirmed_at and now < record.confirmed_at + kept_s - 1e-6:
            raise RuleBroken(
                f"{node.spec.name} writes its way back {now - record.confirmed_at:.1f} s after it was confirmed, and "
                f"has to keep it for {kept_s:.0f} s"
            )

    def _no_retry(self, node: SimNode) -> None:
        """Rule 5: no automatic retry into a version that failed here."""
        operation = node.state.operation
        version = operation.image.version if operation is not None and operation.image is not None else ""
        if operation is not None and version in self._record(node).failed and not operation.override_failed:
            raise RuleBroken(f"{node.spec.name} tries {version} again, which failed there")

    def _arms(self, node: SimNode, slot: str, now: float) -> None:
        """Rule 2: staged is never next boot without a live lease; going back by itself arms what is confirmed."""
        if slot != node.machine.booted and node.state.step is not Step.ROLLING_BACK:
            self._no_retry(node)
            if now > self._record(node).live_until + 1e-6:
                raise RuleBroken(f"{node.spec.name} arms slot {slot} without a live lease")
            self._passes_gate(node)

    def _passes_gate(self, node: SimNode) -> None:
        """Rule 7 bars nothing that leads back; all else waits for freezes, windows and canaries."""
        operation = node.state.operation
        if operation is None or operation.kind is OperationKind.ROLLBACK:
            return
        version = operation.image.version if operation.image is not None else ""
        objection = self._objection(node.spec.number, operation.id, version, self._has_soaked)
        if objection:
            raise RuleBroken(f"{node.spec.name} moves to {version or 'the same slot'} and {objection}")

    def _has_soaked(self, number: int, version: str, soak_s: float, moment: float) -> bool:
        spans = [span for span in self.records[number].proved if span.version == version]
        return sum(span.before(moment) for span in spans) >= soak_s - SOAK_SLACK_S

    def _goes_down(self, node: SimNode, now: float) -> None:
        record = self._record(node)
        if node.state.step is Step.ROLLING_BACK:
            retreat = node.state.retreat
            if retreat is not None and retreat.result.value != "unreachable":
                record.failed.add(node.machine.running.version)
            self._down(node, now, ours=True)
            return
        self.reboots += 1
        if now > record.live_until + 1e-6:
            raise RuleBroken(f"{node.spec.name} reboots without a live lease")
        self._passes_gate(node)
        self._down(node, now, ours=True)
        self._budgets(node, now)
        self._exposure(node)

    def _down(self, node: SimNode, now: float, *, ours: bool) -> None:
        record = self._record(node)
        if node.body.up:
            on_trial = node.machine.booted != record.safe_slot
            record.may_switch = on_trial or now <= record.live_until + DISARM_S
        close_span(record, now)
        if record.down_since is None:
            record.down_since, record.down_known_at, record.ours = now, None, ours

    def _booted(self, node: SimNode, slot: str, now: float) -> None:
        """Rule 2: a power cut at any moment boots the confirmed slot unless a lease was live."""
        record = self._record(node)
        if slot != record.safe_slot and not record.may_switch:
            raise RuleBroken(f"{node.spec.name} boots slot {slot} without a lease; {record.safe_slot} is confirmed")
        record.live_until = 0.0 if slot == record.safe_slot else record.live_until
        if node.machine.running.state is EntryState.GOOD:
            record.brought_by = record.brought_by if slot == record.safe_slot else ""  # it was there before
            record.safe_slot = slot
            record.down_since = None
            open_span(record, node.machine.running.version, now)

    def _confirmed(self, node: SimNode, now: float) -> None:
        record = self._record(node)
        if record.safe_slot != node.machine.booted:
            record.confirmed_at = now
            record.brought_by = self._brought_by(node)
            open_span(record, node.machine.running.version, now)
        record.safe_slot, record.live_until, record.down_since = node.machine.booted, 0.0, None

    def _brought_by(self, node: SimNode) -> str:
        operation = node.state.operation
        came_back = node.machine.running.version == self._story.scenario.fleet.version
        return "" if operation is None or came_back else self._rollout_of(operation.id)

    # --- groups and rollouts --------------------------------------------------------------------------------

    def _budgets(self, node: SimNode, now: float) -> None:
        """Rule 3: never beyond a group's budget; who is down without anybody knowing is not counted."""
        if self._record(node).missing_already:
            return
        granted_at = self._record(node).granted_at
        zones = {other: self._story.zone_of(other.spec.number, granted_at) for other in (node, *self.nodes)}
        for group in self._story.groups:
            if not group.takes(zones[node]):
                continue
            missing = [other for other in self.nodes if group.takes(zones[other]) and self._counts(other, granted_at)]
            self._within(len(missing), group.max_unavailable, f"group {group.name}", node, missing)
            if group.max_per_zone:
                same = [other for other in missing if zones[other] == zones[node]]
                self._within(len(same), group.max_per_zone, f"zone {zones[node]}", node, same)

    def _counts(self, node: SimNode, granted_at: float) -> bool:
        record = self._record(node)
        if record.down_since is None:
            return False
        return record.ours or (record.down_known_at is not None and record.down_known_at < granted_at)

    def _within(self, count: int, most: int, what: str, node: SimNode, missing: Sequence[SimNode]) -> None:
        if count > most:
            names = ", ".join(other.spec.name for other in missing)
            raise RuleBroken(f"{node.spec.name} goes down as number {count} of {most} that {what} may miss: {names}")

    def _exposure(self, node: SimNode) -> None:
        """At most one wave is exposed to a version that has not proved itself."""
        operation = node.state.operation
        rollout = self._rollout_of(operation.id) if operation is not None else ""
        if not rollout or rollout not in self._story.plans or not self._under_way(node, rollout):
            return
        exposed = [other for other in self.nodes if self._under_way(other, rollout)]
        self._within(len(exposed), self._story.plans[rollout].max_unavailable, "may be exposed", node, exposed)

    def _under_way(self, node: SimNode, rollout: str) -> bool:
        operation = node.state.operation
        if operation is None or operation.image is None or node.state.step not in EXPOSED:
            return False
        if operation.image.version == self._story.scenario.fleet.version:
            return False  # on its way back
        return self._rollout_of(operation.id) == rollout


DISARM_S = 5.0
"""From the end of a lease until a machine has disarmed what was armed under it."""
SOAK_SLACK_S = 1.0
EXPOSED = frozenset({Step.REBOOTING, Step.CONFIRMING, Step.SOAKING})
