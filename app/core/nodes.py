"""A node as decisions and pages see it: who it is, what it shall be, what it was last observed to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from wire.messages import Activity, EvidenceClass, Health, OperationKind, Order, Phase, Result, Slot


class Admission(StrEnum):
    PENDING = "pending"
    ADMITTED = "admitted"
    RETIRED = "retired"


class Connection(StrEnum):
    ONLINE = "online"
    OFFLINE = "offline"
    NEVER = "never"


class OperationState(StrEnum):
    OPEN = "open"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Pin:
    """An operator's decision that the node follows one channel or one exact version; exactly one of the two is set."""

    channel_id: str | None
    channel_name: str | None
    image_id: str | None
    version: str | None
    actor: str
    reason: str
    at: float
    until: float | None

    @property
    def to(self) -> str:
        """What it is pinned to, in words."""
        return f"version {self.version}" if self.image_id else f"channel {self.channel_name}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """How the node gets the image and moves its services away first; see the fields of GroupPolicy."""

    drain: str = ""
    drain_s: float = 0.0
    mirrors: tuple[str, ...] = ()
    bandwidth_bytes_s: int = 0


@dataclass(frozen=True, slots=True)
class Operation:
    """One instruction to one node, as the server keeps it. Times are Unix seconds."""

    id: str
    node_id: str
    kind: OperationKind
    image_id: str | None
    target_version: str
    target_digest: str
    order: Order
    state: OperationState
    phase: Phase
    result: Result | None
    result_text: str
    failed_checks: tuple[dict[str, Any], ...]
    actor: str
    reason: str
    override_failed: bool
    policy: dict[str, float]
    old_boot_id: str
    old_slot: str
    old_version: str
    old_digest: str
    heard_s: float
    clock_at: float | None
    lease_nonce: str | None
    lease_nonce_at: float | None
    lease_asked_at: float | None
    hold: dict[str, Any] | None
    created_at: float
    phase_at: float | None
    cancel_asked_at: float | None
    ended_at: float | None
    holds_lease: bool = False
    """A lease granted for it has not been returned yet."""
    rollout_id: str | None = None
    override_floor: bool = False
    """An operator lets the node go below floors, audited."""
    delivery: Delivery = Delivery()
    claim: Mapping[str, Any] | None = None
    """The node's report of success, which came before its soak was seen to be over; None: there is none."""

    @property
    def open(self) -> bool:
        return self.state is OperationState.OPEN


@dataclass(frozen=True, slots=True)
class Previous:
    """What ran here before the booted version, as our own operations know it."""

    version: str
    digest: str
    image_id: str | None
    """An image that is not withdrawn and has this digest, if there is one."""


@dataclass(frozen=True, slots=True)
class FailedHere:
    """A version that failed on this node; `cleared_at` says that an operator allows it again."""

    version: str
    digest: str
    reason: str
    at: float
    cleared_at: float | None
    only_late: bool = False
    """Silence alone taught it, and an update has left the version since, confirmed as it was: its slot leads back."""


@dataclass(frozen=True, slots=True)
class Target:
    """An image as far as decisions go."""

    id: str
    os: str
    arch: str
    version: str
    digest: str
    withdrawn: bool


@dataclass(frozen=True, slots=True)
class Node:
    """Everything about one node except containers and history."""

    id: str
    name: str
    admission: Admission
    labels: dict[str, str]
    machine_id: str
    hardware: str
    replaces_id: str | None
    replaced_by_id: str | None
    joined_at: float
    admitted_at: float | None
    retired_at: float | None
    # desired
    order: Order
    desired_operation_id: str | None
    operation: Operation | None
    """The open operation that is desired; else one that was cancelled and of which the node owes its word."""
    channel_id: str | None
    channel_name: str | None
    pin: Pin | None
    # observed
    agent_version: str
    agent_mode: str
    evidence: str
    os_id: str
    os_name: str
    os_version: str
    kernel: str
    arch: str
    driver: str
    boot_id: str
    booted_at: float | None
    booted_slot: str
    booted_digest: str
    version: str
    slots: tuple[Slot, ...]
    health_state: str
    health: Health
    phase: str
    on_trial: bool
    activity: Activity
    placement_known: bool
    placement_reason: str
    engine: str
    containers_running: int
    connection: Connection
    gateway_id: str | None
    gateway_heartbeat_at: float | None
    """When the gateway that holds it (while online) last wrote its own heartbeat."""
    remote: str
    connected_at: float | None
    last_seen_at: float | None
    """While online, its gateway's heartbeat."""
    conflict: dict[str, Any] | None
    previous: Previous | None
    failed: tuple[FailedHere, ...]

    @property
    def booted(self) -> Slot | None:
        return next((slot for slot in self.slots if slot.booted), None)

    @property
    def passive(self) -> Slot | None:
        return next((slot for slot in self.slots if not slot.booted), None)

    @property
    def commandable(self) -> bool:
        """Whether we can know enough about it to command it (its evidence class)."""
        return self.evidence != EvidenceClass.PROTOCOL_ONLY
