"""What the phase machine remembers: one frozen value, on disk before anything is done because of it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from agent.evidence import Expected
from wire.messages import (
    Boot,
    Check,
    Desired,
    FailedVersion,
    Health,
    HealthState,
    Hold,
    Image,
    LeaseReturn,
    NodeEvent,
    Operation,
    OperationReport,
    Order,
    Outcome,
    Result,
    Slot,
)


class Step(StrEnum):
    """Where the machine stands: finer than the phase that pages show (see agent.phases.show)."""

    IDLE = "idle"
    HELD = "held"
    """An operation was taken and has not started anything."""
    STAGING = "staging"
    RETRYING = "retrying"
    """Between two tries of a download."""
    READY = "ready"
    """Everything is in place; waits for inhibitors and for a lease."""
    DRAINING = "draining"
    """A lease is in hand; the node's own executable moves services away."""
    ARMING = "arming"
    """A lease is in hand and the expected identity is on disk."""
    REBOOTING = "rebooting"
    CONFIRMING = "confirming"
    SOAKING = "soaking"
    ROLLING_BACK = "rolling-back"
    ACTING = "acting"
    """Marks slots, for an operation that needs no reboot."""


class WorkKind(StrEnum):
    """What the driver, the witnesses and the node's drain.d can be asked to do; done one after the other."""

    STAGE = "stage"
    ARM = "arm"
    DISARM = "disarm"
    MARK_GOOD = "mark-good"
    MARK_BAD = "mark-bad"
    REBOOT = "reboot"
    PROBE = "probe"
    """Ask the witnesses, and read the container engines anew."""
    DRAIN = "drain"
    UNDRAIN = "undrain"


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of what the state is made of."""


class Work(Kept, frozen=True, kw_only=True):
    """One thing to be done; `id` is new for every try, so that a late answer to an old one is noticed."""

    id: int
    kind: WorkKind
    slot: str = ""
    image: Image | None = None
    not_after_s: float | None = None
    """Boot clock: the work must not begin later (a lease's end)."""
    tries: int = 0
    mirrors: list[str] = []
    """Of staging: where to fetch before the image's own address."""
    bandwidth_bytes_s: int = 0
    """Of staging; 0: no cap."""
    script: str = ""
    """Of draining and undraining: name of a file in drain.d."""
    limit_s: float = 0.0
    """Of draining and undraining: how long it may take."""


class Remaining(Kept, frozen=True, kw_only=True):
    """A span that survives reboots: `left_s` seconds were left when the boot clock said `as_of_s`."""

    left_s: float
    as_of_s: float

    def at(self, boot_s: float) -> float:
        """Seconds left now, at least 0."""
        return max(0.0, self.left_s - (boot_s - self.as_of_s))


class Lease(Kept, frozen=True, kw_only=True):
    id: str
    operation_id: str
    until_s: float
    """Boot clock of the boot with `boot_id`."""
    boot_id: str


class Asking(Kept, frozen=True, kw_only=True):
    """A lease request that was sent and not answered."""

    nonce: str
    sent_s: float
    earlier: dict[str, float] = {}
    """Of the requests before it that were not answered either: nonce -> when it was sent."""

    def sent_with(self, nonce: str) -> float | None:
        """When the request with this nonce was sent; None: it is none of these."""
        return self.sent_s if nonce == self.nonce else self.earlier.get(nonce)


class Serving(Kept, frozen=True, kw_only=True):
    """What a reboot would take down: the part of a placement that admission counts."""

    known: bool = False
    reason: str = ""
    """Why it is not known."""
    replicas: dict[str, int] = {}
    """Service, as `agent.placement` names it -> healthy running replicas here; per-node services are left out."""


UNREAD = Serving(reason="containers have not been read yet")


class Drained(Kept, frozen=True, kw_only=True):
    """Draining has begun and was not undone: on disk before it begins, forgotten when undraining succeeded."""

    script: str
    limit_s: float
    operation_id: str
    failed: int = 0
    """Tries to undrain that failed."""
    error: str = ""
    again_s: float | None = None
    """Boot clock: when undraining is tried again."""


class Returned(Kept, frozen=True, kw_only=True):
    """A lease that was given back; said again at each welcome until the lease would have ended anyway."""

    message: LeaseReturn
    until_s: float


class Booted(Kept, frozen=True, kw_only=True):
    """Facts of the booted version."""

    slot: str
    digest: str | None = None
    version: str | None = None
    confirmed: bool = False
    stuck: bool = False
    """Neither confirmed nor able to go back: only a person decides (`rescue`, or another operation)."""


class KeptWayBack(Kept, frozen=True, kw_only=True):
    """The slot that leads back, and how long it may not be written; `left` None: until a person decides."""

    slot: str
    version: str | None = None
    digest: str | None = None
    left: Remaining | None = None


class Trial(Kept, frozen=True, kw_only=True):
    """What is known of the boot on trial, and of the soak after it. Times are of the boot clock."""

    until_s: float
    """Confirm deadline, or the end of the soak."""
    witnesses: dict[str, bool] = {}
    """As noted before the reboot."""
    standing: bool | None = None
    """Whether the witnesses still stood when last asked; None while nobody asked."""
    asked_round: int = -1
    """The check round for which the witnesses were asked last."""
    marked: bool = False
    """The booted slot was marked good: confirmed."""
    failed_checks: list[Check] = []
    """Of the last round that was not good, with their output: kept across a fallback."""


class Retreat(Kept, frozen=True, kw_only=True):
    """Going back by itself from a slot on trial: what will be reported once the old slot is seen booted."""

    result: Result
    reason: str
    to_slot: str
    from_slot: str
    from_version: str
    origin_confirmed: bool
    failed_checks: list[Check] = []
    tries: int = 0


class Ended(Kept, frozen=True, kw_only=True):
    operation_id: str
    order: Order
    result: Result
    at: float
    reason: str = ""


class Stop(StrEnum):
    """How the agent's last run ended: what a new boot id is explained with."""

    RUNNING = "running"
    """No end was seen: cut off."""
    AGENT_ONLY = "agent-only"
    ORDERLY = "orderly"
    """The machine was shutting down."""


class Rounds(Kept, frozen=True, kw_only=True):
    """What check rounds since the agent's start have shown. Times are of the boot clock."""

    number: int = 0
    last_s: float = 0.0
    """When the last round ended, or when the agent started."""
    state: HealthState | None = None
    reason: str = ""
    bad_in_a_row: int = 0
    """Rounds that were unhealthy or unknown."""
    unhealthy_in_a_row: int = 0
    recent_unhealthy: int = 0
    """A bit for each of the last ten rounds, the newest lowest; begun anew with a soak."""
    good_since_s: float | None = None
    not_good_since_s: float | None = None
    asleep_s: float = 0.0
    """How long the machine has been suspended in this boot, as far as it was taken into account."""


class State(Kept, frozen=True, kw_only=True):
    """All of it. Times named `_s` are of the boot clock of the boot `boot_id`."""

    step: Step = Step.IDLE
    boot_id: str = ""
    boot: Boot | None = None
    os: str = ""
    """The OS name that images must carry."""
    arch: str = ""
    stop: Stop = Stop.RUNNING
    newest: Order | None = None
    refused: Order | None = None
    """The last older order that was refused: said once."""
    operation: Operation | None = None
    order: Order | None = None
    """Of the operation."""
    pending: Desired | None = None
    """The newest desired state, waiting until the current operation has ended."""
    distrust: str = ""
    """Why the operation's image is not trusted, by the node's own keys; empty when it is."""
    pending_distrust: str = ""
    hold: Hold | None = None
    work: list[Work] = []
    retry_s: float | None = None
    """The first work failed and is tried again then."""
    work_error: str = ""
    next_work: int = 1
    stage_until_s: float | None = None
    stage_tries: int = 0
    staged: str | None = None
    """Digest that this agent wrote and verified in the passive slot."""
    expected: Expected | None = None
    armed: bool = False
    origin_confirmed: bool = False
    """Whether the slot that an armed operation leaves is confirmed."""
    lease: Lease | None = None
    asking: Asking | None = None
    ask_s: float | None = None
    """When to ask for a lease again."""
    relied: Serving | None = None
    """The least that requests without an answer have told the server: a grant may rest on any of them."""
    drained: Drained | None = None
    drain_tries: int = 0
    """Of the operation, as far as they failed."""
    returned: list[Returned] = []
    witnesses: dict[str, bool] = {}
    rebooted_s: float | None = None
    """When the machine took the reboot command."""
    trial: Trial | None = None
    retreat: Retreat | None = None
    booted: Booted | None = None
    slots: list[Slot] = []
    way_back: KeptWayBack | None = None
    failed: list[FailedVersion] = []
    outcome: Outcome | None = None
    ended: list[Ended] = []
    outbox: list[NodeEvent | OperationReport] = []
    next_seq: int = 1
    linked: bool = False
    welcomed: bool = False
    """The gateway has welcomed this node since this boot."""
    inhibitors: list[str] = []
    serving: Serving = UNREAD
    """What runs here now."""
    rounds: Rounds = Rounds()


def durable(state: State) -> State:
    """What goes to disk: without what every start of the agent sees anew."""
    return msgspec.structs.replace(state, linked=False, inhibitors=[], serving=UNREAD, rounds=Rounds())


def forget_server(state: State) -> State:
    """What stays when this machine joins again: facts of slots and versions, nothing of the old server's."""
    return State(
        boot_id=state.boot_id,
        boot=state.boot,
        os=state.os,
        arch=state.arch,
        stop=state.stop,
        staged=state.staged,
        booted=state.booted,
        slots=state.slots,
        way_back=state.way_back,
        failed=state.failed,
        drained=state.drained,
        next_work=state.next_work,
        next_seq=state.next_seq,
    )


def passive(state: State) -> Slot | None:
    """The slot that is not booted; None where there is only one."""
    return next((slot for slot in state.slots if not slot.booted), None)


def booted(state: State) -> Slot | None:
    """The booted slot, as last observed."""
    return next((slot for slot in state.slots if slot.booted), None)


def lease_lives(state: State, boot_s: float) -> bool:
    """Whether a lease is in hand that still permits to arm and reboot in this boot."""
    lease = state.lease
    return lease is not None and lease.boot_id == state.boot_id and boot_s < lease.until_s


def is_good(health: HealthState | None) -> bool:
    """Whether all required checks pass."""
    return health in (HealthState.HEALTHY, HealthState.DEGRADED)


def failing(health: Health) -> list[Check]:
    """Checks that did not pass, without their duration, so that an unchanged failure stays unchanged."""
    return [
        msgspec.structs.replace(check, duration_ms=0)
        for check in health.checks
        if check.state.value != "passed" and check.required
    ]
