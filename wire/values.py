"""The values inside messages, in the words of the fleet: states, facts, slots, checks, images, operations."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from wire.limits import (
    CHECKS,
    CONTAINERS,
    FAILED_VERSIONS,
    MIRRORS,
    REASONS,
    Code,
    Count,
    Digest,
    Id,
    ImageReference,
    Key,
    Milliseconds,
    Name,
    Output,
    Seconds,
    SecondsLeft,
    Share,
    Signature,
    Small,
    Text,
    Time,
    Url,
)


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the values inside messages."""


# --- the words of the fleet ---------------------------------------------------------------------------------


class Phase(StrEnum):
    IDLE = "idle"
    STAGING = "staging"
    STAGED = "staged"
    DRAINING = "draining"
    REBOOTING = "rebooting"
    CONFIRMING = "confirming"
    SOAKING = "soaking"
    ROLLING_BACK = "rolling-back"


class OperationKind(StrEnum):
    STAGE = "stage"
    """Write and verify the image in the passive slot, and leave the booted slot as next boot."""
    ACTIVATE = "activate"
    """Stage if the image is not staged yet, then arm and reboot under a lease, confirm and soak."""
    ROLLBACK = "rollback"
    """Arm the passive slot as it is under a lease, reboot, confirm and soak.

    It must hold `image.digest`; without an image it must be a confirmed slot whose digest nobody knows, such as one
    that was filled at the factory.
    """
    REBOOT = "reboot"
    """Reboot into the booted slot, under a lease, and confirm."""
    DISARM = "disarm"
    """Make the booted slot the next boot again and leave the passive slot unbootable."""
    RESCUE = "rescue"
    """Confirm the booted slot as it is, failing checks or not: the audited override of rule 2."""


class Result(StrEnum):
    """How an operation ended on the node, by evidence and not by claim."""

    SUCCEEDED = "succeeded"
    FELL_BACK = "fell-back"
    NEVER_SWITCHED = "never-switched"
    STAGE_FAILED = "stage-failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    UNHEALTHY = "unhealthy"
    """Switched and was confirmed, but did not stay healthy through the soak; it stays where it is."""
    UNREACHABLE = "unreachable"
    """Went back because neither gateway nor witnesses answered: says nothing about the version."""
    TIMED_OUT = "timed-out"
    UNKNOWN = "unknown"


class HealthState(StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class CheckState(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    UNKNOWN = "unknown"


class EvidenceClass(StrEnum):
    AGENT_WITH_PLACEMENT = "agent with slots and placement"
    AGENT_WITHOUT_PLACEMENT = "agent without placement"
    PROTOCOL_ONLY = "protocol only"


class BootCause(StrEnum):
    OPERATION = "operation"
    LOCAL_COMMAND = "local command"
    OTHER_COORDINATOR = "other coordinator"
    FALLBACK = "fallback"
    PANIC = "panic"
    WATCHDOG_OR_POWER = "watchdog or power"
    FIRST_SEEN = "first seen"
    UNKNOWN = "unknown"


class Order(msgspec.Struct, frozen=True, order=True):
    """Position of an instruction: nodes refuse what is older than the newest they saw (rule 8)."""

    epoch: Count
    generation: Count


# --- what a node says of itself -----------------------------------------------------------------------------


class AgentFacts(Struct, frozen=True, kw_only=True):
    version: Name
    mode: Name = "agent"


class OsFacts(Struct, frozen=True, kw_only=True):
    id: Name
    """The OS name that images are matched against, as `ID` in os-release."""
    name: Name = ""
    version: Name = ""
    kernel: Name = ""
    arch: Name = ""
    driver: Name = ""


class Boot(Struct, frozen=True, kw_only=True):
    id: Id
    at: Time
    """When this boot began, by the node's clock."""
    cause: BootCause = BootCause.UNKNOWN
    operation_id: Id | None = None
    text: Text = ""


class Facts(Struct, frozen=True, kw_only=True):
    agent: AgentFacts
    os: OsFacts
    boot: Boot
    evidence: EvidenceClass = EvidenceClass.AGENT_WITHOUT_PLACEMENT
    hostname: Name = ""


class Slot(Struct, frozen=True, kw_only=True):
    name: Code
    booted: bool
    next_boot: bool
    version: Name | None = None
    digest: Digest | None = None
    good: bool | None = None
    """True when confirmed good, False when marked bad, None when not known or not yet confirmed."""
    tries_left: Small | None = None


class Check(Struct, frozen=True, kw_only=True):
    name: Name
    state: CheckState
    required: bool = True
    """A failed required check makes the node unhealthy, a failed wanted one degraded."""
    text: Text = ""
    """One line: what was found."""
    output: Output = ""
    """The end of what a failed check printed, at most 4 KiB."""
    duration_ms: Milliseconds = 0


Checks = Annotated[list[Check], Meta(max_length=CHECKS)]


class Health(Struct, frozen=True, kw_only=True):
    state: HealthState
    reasons: Annotated[list[Text], Meta(max_length=REASONS)] = []
    checks: Checks = []


class Container(Struct, frozen=True, kw_only=True):
    id: Id
    name: Name
    image: ImageReference
    service: Name
    scope: Name = ""
    """Empty: no orchestrator gave one; the server uses the node's group."""
    state: Name = "running"
    health: Name = "none"
    """starting, healthy, unhealthy, or none (no health check defined)."""
    started_at: Time | None = None
    replicas: Small | None = None
    """Expected replicas as the container's labels say, if they do."""
    per_node: bool = False


class Placement(Struct, frozen=True, kw_only=True):
    known: bool
    reason: Text = ""
    """Why it is not known."""
    engine: Name = ""
    containers: Annotated[list[Container], Meta(max_length=CONTAINERS)] = []


class Hold(Struct, frozen=True, kw_only=True):
    code: Code
    text: Text


class Outcome(Struct, frozen=True, kw_only=True):
    """How the last operation that touched slots ended; stays until the next one ends."""

    result: Result
    operation_id: Id
    at: Time
    version: Name = ""
    reason: Text = ""
    failed_checks: Checks = []


class FailedVersion(Struct, frozen=True, kw_only=True):
    version: Name
    digest: Digest
    reason: Text
    at: Time


class WayBack(Struct, frozen=True, kw_only=True):
    slot: Code
    version: Name | None = None
    digest: Digest | None = None


class Trial(Struct, frozen=True, kw_only=True):
    """The booted slot is on trial (confirming) or soaking."""

    confirmed: bool
    left_s: SecondsLeft
    """Seconds until the confirm deadline (not confirmed) or the end of the soak time (confirmed)."""
    text: Text = ""


class Activity(Struct, frozen=True, kw_only=True):
    phase: Phase = Phase.IDLE
    operation_id: Id | None = None
    order: Order | None = None
    target: Name = ""
    """Version the operation leads to."""
    progress: Share | None = None
    """Share done of the current download or write, 0 to 1."""
    holds: Annotated[list[Hold], Meta(max_length=REASONS)] = []
    trial: Trial | None = None
    outcome: Outcome | None = None
    way_back: WayBack | None = None
    failed_versions: Annotated[list[FailedVersion], Meta(max_length=FAILED_VERSIONS)] = []
    inhibitors: Annotated[list[Text], Meta(max_length=REASONS)] = []


class Evidence(Struct, frozen=True, kw_only=True):
    """What the node saw before and after: the server compares it with what it sees itself (rule 1)."""

    old_boot_id: Id | None = None
    boot_id: Name = ""
    booted_slot: Code | None = None
    booted_digest: Digest | None = None
    booted_version: Name | None = None


# --- what a node is to do ------------------------------------------------------------------------------------


class Image(Struct, frozen=True, kw_only=True):
    """What a node needs to stage an image and to decide for itself whether to trust it."""

    os: Name
    arch: Name
    version: Name
    digest: Digest
    size: Count
    url: Url = ""
    """Short-lived signed URL, or the registered one; empty where nothing is downloaded (rollback)."""
    signature: Name = ""
    """Detached Ed25519 signature over wire.identity.image_statement."""
    key_id: Name = ""


class Operation(Struct, frozen=True, kw_only=True):
    id: Id
    kind: OperationKind
    image: Image | None = None
    soak_s: Seconds = 600.0
    confirm_s: Seconds = 600.0
    """How long the node may try to confirm after the reboot."""
    keep_way_back_s: Seconds = 0.0
    """How long after the soak the passive slot stays the way back."""
    author: Name = ""
    reason: Text = ""
    override_failed: bool = False
    """An operator cleared the version after it failed here: it may be tried again."""
    drain: Name = ""
    """File in the node's own drain.d that moves its services away before the reboot; empty: nothing is drained."""
    drain_s: Seconds = 0.0
    """How long draining may take; the lease is longer by it."""
    mirrors: Annotated[list[Url], Meta(max_length=MIRRORS)] = []
    """Where the image is fetched first, in order, as `<mirror>/<64 hex digits of its digest>`; `image.url` is last."""
    bandwidth_bytes_s: Count = 0
    """Bytes per second that fetching the image may take; 0: as fast as it comes."""


# --- keys ---------------------------------------------------------------------------------------------------


class NextServerKey(Struct, frozen=True, kw_only=True):
    """The server's newer key, named by the key that the node pins (see wire.identity for the signed bytes)."""

    key: Key
    signature: Signature
    """By the pinned key."""
