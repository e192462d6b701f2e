"""A scenario: what a simulated fleet is made of and what goes wrong in it, from a small TOML file (docs/sim.md)."""

from __future__ import annotations

import hashlib
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from wire.limits import Digest, Labels

MAX_NODES = 50_000
MIB = 1024 * 1024

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Named = Annotated[str, Meta(min_length=1, max_length=128)]
Span = NotNegative | Annotated[tuple[NotNegative, ...], Meta(min_length=2, max_length=2)]
"""Seconds (or MiB a second): one number, or the least and the most of an even spread."""


class ScenarioError(Exception):
    """A scenario that cannot be run: one sentence with the place of what is wrong."""


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables of the file."""


class FleetPart(Part, frozen=True, kw_only=True):
    nodes: Annotated[int, Meta(ge=1, le=MAX_NODES)] = 12
    prefix: Named = "sim"
    """Names are `<prefix>-00001` and so on."""
    zones: Annotated[tuple[Named, ...], Meta(min_length=1)] = ("a", "b", "c")
    """Label `zone`, taken in turn."""
    labels: Labels = {}
    os: Named = "sim"
    arch: Named = "amd64"
    version: Named = "1.0.0"
    """What all nodes run at first."""


class ImagePart(Part, frozen=True, kw_only=True):
    """An image that the scenario knows; whatever else the control plane orders is taken as it comes."""

    version: Named
    digest: Digest | None = None
    """Absent: made from OS, architecture and version."""
    size_mib: Positive = 300.0


class DurationsPart(Part, frozen=True, kw_only=True):
    boot_s: Span = (20.0, 40.0)
    """From power to the start of the agent; also what one attempt costs that does not come up."""
    shutdown_s: Span = (2.0, 6.0)
    containers_s: Span = (2.0, 10.0)
    """From the end of the boot until a container is healthy."""
    download_mib_s: Span = (5.0, 20.0)
    drain_s: Span = (1.0, 5.0)
    checks_s: Positive = 15.0
    """Between two rounds of checks where a round may matter."""
    trial_checks_s: Positive = 2.0
    restart_s: NotNegative = 1.0
    """From the death of an agent to its next start."""


class ServicePart(Part, frozen=True, kw_only=True):
    name: Named
    scope: str = "sim"
    replicas: Annotated[int, Meta(ge=0)] = 1
    per_node: bool = False
    """One on every node that it may use; `replicas` does not count then."""
    spread: Annotated[str, Meta(pattern="^(even|zones|pack)$")] = "even"
    """even: over all nodes; zones: a zone after the other; pack: on as few nodes as take them."""
    most_per_node: Annotated[int, Meta(ge=1)] = 1
    zone: str = ""
    """Only in this zone."""
    declared: bool = True
    """Containers carry the expected replicas as a label."""


class Fault(Part, frozen=True, kw_only=True, tag_field="kind"):
    """Which nodes: a share of them, by chance but the same for the same seed; of one zone; or by number from 1."""

    share: Share = 1.0
    zone: str = ""
    nodes: list[int] = []


class NoBoot(Fault, frozen=True, kw_only=True, tag="no-boot"):
    """This version does not come up."""

    version: Named


class ChecksFail(Fault, frozen=True, kw_only=True, tag="checks-fail"):
    """On this version a required check fails `after_s` after the boot, for `for_s` (0: for ever)."""

    version: str = ""
    """Empty: on whatever is booted."""
    after_s: NotNegative = 0.0
    for_s: NotNegative = 0.0
    breaks_services: bool = False
    """The containers of the node are unhealthy too."""


class SlowDownload(Fault, frozen=True, kw_only=True, tag="slow-download"):
    factor: Annotated[float, Meta(ge=1)] = 10.0


class DeadDownload(Fault, frozen=True, kw_only=True, tag="dead-download"):
    """Downloads that end in this time fail."""

    at_s: NotNegative = 0.0
    for_s: NotNegative = 0.0
    """0: for ever."""


class NetworkLost(Fault, frozen=True, kw_only=True, tag="network-lost"):
    at_s: NotNegative
    for_s: Positive


class Flapping(Fault, frozen=True, kw_only=True, tag="flapping"):
    """The network is away for half of each period."""

    period_s: Positive = 120.0
    at_s: NotNegative = 0.0
    for_s: Positive = 3600.0


class Claim(StrEnum):
    SUCCESS = "success"
    """Its firmware boots the same slot for ever, and it reports success."""
    DIGEST = "digest"
    """It does not switch either, and shows the digest that was asked for as booted."""


class Lies(Fault, frozen=True, kw_only=True, tag="lies"):
    """The agent says what is not so."""

    claim: Claim = Claim.SUCCESS


class ContainersMove(Fault, frozen=True, kw_only=True, tag="containers-move"):
    """So many replicas an hour, of the whole fleet, move to other nodes: the new one is healthy before the old ends."""

    per_hour: Positive


class PowerCut(Fault, frozen=True, kw_only=True, tag="power-cut"):
    at_s: NotNegative
    for_s: NotNegative = 30.0


class AgentDies(Fault, frozen=True, kw_only=True, tag="agent-dies"):
    """So many agents an hour, of the whole fleet, are killed."""

    per_hour: Positive


AnyFault = (
    NoBoot
    | ChecksFail
    | SlowDownload
    | DeadDownload
    | NetworkLost
    | Flapping
    | Lies
    | ContainersMove
    | PowerCut
    | AgentDies
)


class Scenario(Part, frozen=True, kw_only=True):
    """Times named `at_s` are seconds since the start of the run."""

    name: str = ""
    seed: int = 1
    fleet: FleetPart = FleetPart()
    durations: DurationsPart = DurationsPart()
    images: list[ImagePart] = []
    services: list[ServicePart] = []
    faults: list[AnyFault] = []

    def digest_of(self, version: str) -> str:
        """The digest of a version that the scenario knows, else the one that is made from its name."""
        known = next((image for image in self.images if image.version == version), None)
        if known is not None and known.digest is not None:
            return known.digest
        words = f"{self.fleet.os} {self.fleet.arch} {version}"
        return "sha256:" + hashlib.sha256(words.encode()).hexdigest()


def read_scenario(path: Path) -> Scenario:
    """The scenario in the file; ScenarioError names the line or the key."""
    try:
        content = path.read_text()
    except OSError as problem:
        raise ScenarioError(f"{path}: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise ScenarioError(f"{path}: not UTF-8 text") from problem
    return parse_scenario(content, str(path))


def parse_scenario(content: str, name: str = "scenario") -> Scenario:
    """As read_scenario, of text at hand."""
    try:
        scenario = msgspec.convert(tomllib.loads(content), Scenario)
    except tomllib.TOMLDecodeError as problem:
        raise ScenarioError(f"{name}: {problem}") from problem
    except msgspec.ValidationError as problem:
        raise ScenarioError(f"{name}: {problem}".replace("`$.", "`")) from problem
    return checked(scenario, name)


def checked(scenario: Scenario, name: str = "scenario") -> Scenario:
    """The same, when its parts fit together; ScenarioError."""
    wrong = _wrong(scenario)
    if wrong:
        raise ScenarioError(f"{name}: {wrong}")
    return scenario


def _wrong(scenario: Scenario) -> str:
    """What no type can say; empty when all is well."""
    zones = set(scenario.fleet.zones)
    for number, service in enumerate(scenario.services):
        if service.zone and service.zone not in zones:
            return f"there is no zone {service.zone!r} - at `services[{number}].zone`"
    names = [(service.scope, service.name) for service in scenario.services]
    for number, key in enumerate(names):
        if key in names[:number]:
            return f"service {key[1]!r} is there twice - at `services[{number}].name`"
    for number, fault in enumerate(scenario.faults):
        if fault.zone and fault.zone not in zones:
            return f"there is no zone {fault.zone!r} - at `faults[{number}].zone`"
        if isinstance(fault, NoBoot) and fault.version == scenario.fleet.version:
            return f"the fleet runs {fault.version} at first - at `faults[{number}].version`"
        if any(not 1 <= node <= scenario.fleet.nodes for node in fault.nodes):
            return f"nodes are numbered from 1 to {scenario.fleet.nodes} - at `faults[{number}].nodes`"
    for field in msgspec.structs.fields(DurationsPart):
        span = getattr(scenario.durations, field.name)
        if isinstance(span, tuple) and span[0] > span[1]:
            return f"the least comes before the most - at `durations.{field.name}`"
    return (
        "" if _rate(scenario.durations.download_mib_s) > 0 else "no download ever ends - at `durations.download_mib_s`"
    )


def _rate(span: Span) -> float:
    return span[0] if isinstance(span, tuple) else span
