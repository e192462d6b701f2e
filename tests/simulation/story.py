"""What happens in a run: a fleet, its policies, what operators do, and what breaks. All of it from the seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sim.dice import Dice
from sim.scenario import Scenario, checked, parse_scenario

TARGET, OTHER, BAD = "2.0.0", "3.0.0", "9.0.0"
ZONES = ["a", "b", "c"]
START_MINUTE = 8 * 60
"""Of the day: when a run begins."""
CALM_S = 200.0
"""After this nothing more goes wrong, and everything has to come to its end."""


class Fault(StrEnum):
    """What the run itself breaks; nodes break by their scenario."""

    KILL = "kill"
    """A process dies at a transaction."""
    CUT = "cut"
    """A connection is lost with what was on its way."""
    GATEWAY = "gateway"
    """The gateway is stopped in order, and starts again."""
    AWAY = "away"
    """The whole control plane is away for half an hour."""
    CLOCK = "clock"
    """The server's clock jumps."""
    DEAF = "deaf"
    """All nudges are lost for a while."""
    FUSE = "fuse"
    """An agent dies between the write of its state and what follows from it."""
    POWER = "power"
    MOVE = "move"


class Deed(StrEnum):
    """What operators do."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ROLL_BACK = "roll-back"
    FREEZE = "freeze"
    LIFT = "lift"
    UPDATE = "update"
    REBOOT = "reboot"
    NODE_BACK = "node-back"
    CANCEL = "cancel"
    SECOND = "second"
    """Another rollout, of the same nodes."""
    REVERSE = "reverse"
    WITHDRAW = "withdraw"
    PIN = "pin"
    RELABEL = "relabel"
    """Into another zone; where it runs stays the same."""
    WAVE_BACK = "wave-back"
    GROUP_BACK = "group-back"


@dataclass(frozen=True)
class Event:
    at_s: float
    what: Fault | Deed
    number: int
    """For whatever has to be chosen."""


@dataclass(frozen=True)
class Gap:
    """Minutes of each day (UTC) in which the group's windows are closed."""

    first_minute: int
    last_minute: int

    @property
    def windows(self) -> list[dict[str, Any]]:
        """What is left of the day; the run begins at 08:00."""
        spans = (("00:00", _time(self.first_minute)), (_time(self.last_minute), "00:00"))
        return [{"days": _DAYS, "opens": opens, "closes": closes, "zone": "UTC"} for opens, closes in spans]


def _time(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


_DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


@dataclass(frozen=True)
class GroupPlan:
    name: str
    selector: str
    zone: str
    """Empty: all."""
    max_unavailable: int
    max_per_zone: int
    policy: Mapping[str, Any]
    gap: Gap | None = None

    @property
    def soak_s(self) -> float:
        return float(self.policy["timing"]["soak_s"])

    @property
    def way_back_s(self) -> float:
        """How long after its confirmation a node's old slot is its way back at least."""
        return self.soak_s + float(self.policy["timing"]["keep_way_back_s"])

    def takes(self, zone: str) -> bool:
        return self.zone in ("", zone)


@dataclass
class Story:
    seed: int
    scenario: Scenario
    version: str
    """Where the rollout leads."""
    groups: list[GroupPlan]
    floors: list[int]
    """Of the scenario's services."""
    events: list[Event]
    conductors: int
    round_s: float
    """Between two rounds without a nudge."""
    wake_s: float
    """From a nudge to a round."""
    plans: dict[str, GroupPlan] = field(default_factory=dict)
    """Rollout id → its group; filled in as they are made."""
    relabelled: dict[int, list[tuple[float, str]]] = field(default_factory=dict)
    """Number of the node → since when in which zone; filled in as it happens."""

    def zone_of(self, number: int, moment: float) -> str:
        """Where the node was by its label just before that moment."""
        zones = self.scenario.fleet.zones
        since = [zone for at, zone in self.relabelled.get(number, []) if at < moment]
        return since[-1] if since else zones[(number - 1) % len(zones)]


def story(seed: int) -> Story:
    """The story of a seed; the same for the same seed."""
    dice = Dice("story", seed)
    scenario = _scenario(seed, dice)
    floors = [0 if each.per_node else max(1, each.replicas - 1) for each in scenario.services]
    version = BAD if dice.chance() < 0.3 else TARGET
    groups = _groups(dice, scenario, keep_s=10.0 * (2 + dice.below(10)) if dice.chance() < 0.25 else 0.0)
    return Story(
        seed=seed,
        scenario=scenario,
        version=version,
        groups=groups,
        floors=floors,
        events=sorted([*_events(dice), *_seldom(Dice("seldom", seed))], key=lambda event: event.at_s),
        conductors=2 if dice.chance() < 0.3 else 1,
        round_s=dice.between(30.0, 80.0),
        wake_s=dice.between(0.2, 2.0) if dice.chance() < 0.15 else dice.between(4.0, 14.0),
    )


def _scenario(seed: int, dice: Dice) -> Scenario:
    nodes = [3, 3, 3, 4, 4, 5, 5, 6][dice.below(8)] if dice.chance() < 0.3 else 2 + dice.below(2)
    if dice.chance() < 0.03:
        nodes = 8 + dice.below(5)
    zones = ZONES[: 1 + dice.below(3)]
    lines = [f"seed = {seed}", "[fleet]", f"nodes = {nodes}", f"zones = {zones}"]
    lines += ["[durations]", "boot_s = [3, 10]", "shutdown_s = [1, 2]", "containers_s = [1, 6]"]
    lines += ["download_mib_s = [5, 40]", "checks_s = 15", "trial_checks_s = 5"]
    for number in range(1 + dice.below(2)):
        replicas = 2 + dice.below(min(3, nodes - 1))
        lines += ["[[services]]", f"name = 'service-{number}'", f"replicas = {replicas}"]
        lines += [f"spread = '{'zones' if dice.chance() < 0.5 else 'even'}'"]
    if dice.chance() < 0.5:
        lines += ["[[services]]", "name = 'agent'", "per_node = true"]
    return checked(parse_scenario("\n".join([*lines, *_broken(dice)])))


def _broken(dice: Dice) -> list[str]:
    """What is wrong with the bad version, and with nodes."""
    lines = ["[[faults]]", f"version = '{BAD}'"]
    match dice.below(3):
        case 0:
            lines += ["kind = 'no-boot'", "share = 0.7"]
        case 1:
            lines += ["kind = 'checks-fail'", "share = 0.8"]
        case _:
            broken = "true" if dice.chance() < 0.5 else "false"
            lines += ["kind = 'checks-fail'", "after_s = 30", f"breaks_services = {broken}"]
    if dice.chance() < 0.2:
        lines += ["[[faults]]", "kind = 'network-lost'", f"at_s = {dice.below(150)}", "for_s = 60", "share = 0.3"]
    if dice.chance() < 0.2:
        lines += ["[[faults]]", "kind = 'dead-download'", f"at_s = {dice.below(60)}", "for_s = 60", "share = 0.5"]
    if dice.chance() < 0.15:
        lines += ["[[faults]]", "kind = 'power-cut'", f"at_s = {dice.below(200)}", "for_s = 20", "zone = 'a'"]
    if dice.chance() < 0.1:
        lines += ["[[faults]]", "kind = 'lies'", "nodes = [1]", f"claim = '{['success', 'digest'][dice.below(2)]}'"]
    return lines


def _groups(dice: Dice, scenario: Scenario, keep_s: float) -> list[GroupPlan]:
    first = START_MINUTE + 1 + dice.below(2)
    gap = Gap(first, first + 1 + dice.below(2)) if dice.chance() < 0.15 else None
    groups = [_group(dice, "all", "zone", "", keep_s, gap)]
    if dice.chance() < 0.3:
        zone = scenario.fleet.zones[0]
        groups.append(_group(dice, "zone", f"zone={zone}", zone, keep_s, None))
    return groups


def _group(dice: Dice, name: str, selector: str, zone: str, keep_s: float, gap: Gap | None) -> GroupPlan:
    most = 1 + dice.below(3)
    per_zone = 1 + dice.below(2) if dice.chance() < 0.3 else 0
    policy: dict[str, Any] = {
        "timing": {
            "soak_s": 10.0 + 5.0 * dice.below(4),
            "confirm_s": 60.0,
            "lease_s": 60.0,
            "reboot_deadline_s": 900.0,
            "stage_deadline_s": 3600.0,
            "keep_way_back_s": keep_s,
        },
        "canaries": {"count": dice.below(3)},
        "canary_soak_s": 10.0 * dice.below(4),
        "max_unavailable": {"count": most},
        "failure_limit": {"count": dice.below(3)},
        "on_failure": "roll-back" if dice.chance() < 0.5 else "halt",
        "stage_parallel": 2 + dice.below(20),
        "stage_jitter_s": 10.0,
    }
    if per_zone:
        policy |= {"domain_label": "zone", "max_per_domain": per_zone}
    elif dice.chance() < 0.15:
        policy |= {"domain_label": "zone", "one_domain_after_another": True}
    if dice.chance() < 0.2:
        policy |= {"drain": "10-move", "drain_s": 20.0}
    if gap is not None:
        policy["windows"] = gap.windows
    return GroupPlan(name, selector, zone, most, per_zone, policy, gap)


def _events(dice: Dice) -> list[Event]:
    events: list[Event] = []
    for fault, most in _MOST.items():
        events += [_event(dice, fault) for _ in range(dice.below(most + 1))]
    if dice.chance() < 0.05:
        events.append(_event(dice, Fault.AWAY))
    for deed in Deed:
        if deed not in SELDOM and dice.chance() < _CHANCES.get(deed, 0.15):
            events.append(_event(dice, deed))
    if dice.chance() < 0.1:  # two rollouts over the same nodes from the beginning
        events.append(Event(21.0 + 20.0 * dice.chance(), Deed.SECOND, dice.bits()))
    return sorted(events, key=lambda event: event.at_s)


def _seldom(dice: Dice) -> list[Event]:
    """By a dice of their own: what else happens in a seed stays as it is."""
    return [_event(dice, deed) for deed in SELDOM if dice.chance() < SELDOM_CHANCE]


def _event(dice: Dice, what: Fault | Deed) -> Event:
    return Event(20.0 + dice.chance() * (CALM_S - 20.0), what, dice.bits())


SELDOM = (Deed.WITHDRAW, Deed.PIN, Deed.RELABEL, Deed.WAVE_BACK, Deed.GROUP_BACK)
SELDOM_CHANCE = 0.06
_CHANCES = {Deed.FREEZE: 0.3, Deed.LIFT: 0.1}
_MOST = {
    Fault.KILL: 4,
    Fault.CUT: 4,
    Fault.GATEWAY: 1,
    Fault.CLOCK: 1,
    Fault.DEAF: 1,
    Fault.FUSE: 2,
    Fault.POWER: 2,
    Fault.MOVE: 3,
}
"""How often each happens at most."""
