"""What goes into the phase machine and the commands that come out."""

from __future__ import annotations

import msgspec

from agent.evidence import Verdict
from agent.phases.model import Serving, Work
from wire.messages import (
    Ack,
    BootCause,
    Check,
    Desired,
    Health,
    LeaseGrant,
    LeaseRequest,
    LeaseReturn,
    LeaseWait,
    Slot,
)


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """When an input is taken, and what the pure machine may not make itself."""

    boot_s: float
    """CLOCK_BOOTTIME: goes on while suspended, starts at each boot."""
    wall: float
    """Unix seconds; only shown."""
    asleep_s: float = 0.0
    """How long the machine has been suspended since it booted."""
    nonce: str
    """Fresh for every input."""
    chance: float = 0.5
    """A random share, 0 to 1, for jitter."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Spans in seconds that the configuration may change; the defaults say why."""

    stage_s: float = 3600.0
    """A slow link may need most of an hour for an image; after that a person should look."""
    stage_backoff_s: float = 2.0
    stage_backoff_most_s: float = 120.0
    lease_answer_s: float = 10.0
    """A gateway answers within a second; ten forgive a busy database."""
    reboot_s: float = 600.0
    """Longer than the slowest orderly shutdown: after this the reboot did not happen."""
    unasked_confirm_s: float = 60.0
    """Passing checks for this long confirm a slot that somebody else booted."""
    checks_late_s: float = 120.0
    """Checks have their own limits; when no round ended for so long, they count as failed."""
    work_retry_s: float = 5.0
    drain_backoff_s: float = 30.0
    """Between two tries to drain or undrain: what stands in the way has to be mended by somebody first."""
    drain_backoff_most_s: float = 900.0


# --- inputs -------------------------------------------------------------------------------------------------


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The agent starts: always the first input of a run."""

    boot_id: str
    slots: list[Slot]
    boot_at: float = 0.0
    """When this boot began, by the node's clock; only shown."""
    os: str = ""
    arch: str = ""
    """What images for this node must carry."""
    cause: BootCause = BootCause.UNKNOWN
    """What the machine itself knows of why this boot happened."""
    verdict: Verdict = Verdict.UNKNOWN
    """By the driver's evidence table; read only where something was expected."""


class Instructed(msgspec.Struct, frozen=True, kw_only=True):
    """A desired state came; `distrust` says why the node's own keys do not trust its image."""

    desired: Desired
    distrust: str = ""


class Welcomed(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway proved itself and let this node in; in a conflict of identities it commands nothing."""

    conflict: bool = False


class LinkLost(msgspec.Struct, frozen=True, kw_only=True):
    pass


class WorkDone(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    slots: list[Slot]
    """As observed after it."""
    witnesses: dict[str, bool] = {}
    standing: bool = False
    """Of a probe: whether the witnesses that were noted before the reboot still stand."""
    check: Check | None = None
    """Of draining and undraining: how it ended, with its output."""


class WorkFailed(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    code: str
    text: str
    transient: bool = False
    """Of staging: another try may help."""
    check: Check | None = None
    """Of draining and undraining: how it ended, with its output."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A round of checks is over."""

    health: Health


class SlotsSeen(msgspec.Struct, frozen=True, kw_only=True):
    slots: list[Slot]


class Inhibited(msgspec.Struct, frozen=True, kw_only=True):
    """Who forbids a reboot at present; empty when nobody does."""

    names: list[str]


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """What runs in containers here, or why that is not known."""

    serving: Serving


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """Something beside the slots that the history keeps."""

    kind: str
    text: str


class Ticked(msgspec.Struct, frozen=True, kw_only=True):
    """Time has passed."""


class Stopping(msgspec.Struct, frozen=True, kw_only=True):
    """The agent stops; `orderly`: because the machine shuts down."""

    orderly: bool


Input = (
    Started
    | Instructed
    | LeaseGrant
    | LeaseWait
    | Ack
    | Welcomed
    | LinkLost
    | WorkDone
    | WorkFailed
    | Checked
    | SlotsSeen
    | Inhibited
    | Placed
    | Noted
    | Ticked
    | Stopping
)

# --- commands -----------------------------------------------------------------------------------------------


class Do(msgspec.Struct, frozen=True, kw_only=True):
    """Begin this work; answered by WorkDone or WorkFailed with its id."""

    work: Work


class Abandon(msgspec.Struct, frozen=True, kw_only=True):
    """Stop this work if it still runs, before anything else is begun; its answer is not wanted."""

    work_id: int


class Send(msgspec.Struct, frozen=True, kw_only=True):
    """Say this on the present connection; lost with it. Events and reports travel by the outbox instead."""

    message: LeaseRequest | LeaseReturn


Command = Do | Abandon | Send
