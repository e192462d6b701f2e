"""Message types of subprotocol `twinroot.v1`, one JSON object per text frame, tagged by `type`.

Unknown fields are ignored and new fields have defaults, so that an end two minor versions older still works.
Times are Unix seconds (float) of the sender's clock and only ever shown; nothing is decided by the node's
wall clock. Durations are seconds and end in `_s`. Binary values (nonces, keys, signatures) are unpadded
base64url text. Digests are `sha256:` followed by 64 lower-case hex digits.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wire.limits import (
    FAILED_VERSIONS,
    SLOTS,
    Code,
    Count,
    Digest,
    Id,
    Key,
    Labels,
    Name,
    Seconds,
    Signature,
    Small,
    Text,
    Time,
    Token,
)
from wire.values import (
    Activity,
    AgentFacts,
    Boot,
    BootCause,
    Check,
    Checks,
    CheckState,
    Container,
    Evidence,
    EvidenceClass,
    Facts,
    FailedVersion,
    Health,
    HealthState,
    Hold,
    Image,
    NextServerKey,
    Operation,
    OperationKind,
    Order,
    OsFacts,
    Outcome,
    Phase,
    Placement,
    Result,
    Slot,
    Struct,
    Trial,
    WayBack,
)

__all__ = [
    "MAX_FRAME_BYTES",
    "MAX_PARTS",
    "MAX_WHOLE_BYTES",
    "MINOR",
    "PART_CHARS",
    "PROTOCOL",
    "Ack",
    "Activity",
    "AgentFacts",
    "Ask",
    "Boot",
    "BootCause",
    "Challenge",
    "Check",
    "CheckState",
    "Container",
    "Desired",
    "Evidence",
    "EvidenceClass",
    "Facts",
    "FailedVersion",
    "FromNode",
    "FromServer",
    "Health",
    "HealthState",
    "Heartbeat",
    "Hello",
    "Hold",
    "Image",
    "Join",
    "JoinHello",
    "Joined",
    "LeaseGrant",
    "LeaseRequest",
    "LeaseReturn",
    "LeaseWait",
    "Message",
    "NextServerKey",
    "NodeEvent",
    "Operation",
    "OperationKind",
    "OperationReport",
    "Order",
    "OsFacts",
    "Outcome",
    "Part",
    "Phase",
    "Placement",
    "Proof",
    "Refused",
    "Result",
    "Slot",
    "Status",
    "Struct",
    "Trial",
    "WayBack",
    "Welcome",
]

PROTOCOL = "twinroot.v1"
MINOR = 2
"""Minor version of the protocol; raised when fields or messages are added. 2: draining, mirrors, bandwidth."""

MAX_FRAME_BYTES = 256 * 1024
"""Largest frame either end accepts; a larger state travels in `part` messages."""

MAX_WHOLE_BYTES = 8 * 1024 * 1024
"""Largest message that may be put together from parts: some 20,000 containers, far beyond any real node."""

PART_CHARS = 192 * 1024
"""Most characters of text in one part; fewer where UTF-8 or the escaping of quotes makes them longer."""

MAX_PARTS = 1024
"""Most parts of one message: who fills the frames needs fewer than a hundred."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Base of all messages."""


# --- opening: prove who you are, both ways (rule 11) --------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """node → gateway, first message of a node that has joined."""

    node_id: Id
    nonce: Key
    minor: Small
    agent_version: Name
    machine_id: Name
    hardware: Name
    """Fingerprint of the hardware: `sha256:` of product and board serials and the like; see agent.facts."""
    boot_id: Id
    server_fingerprint: Digest | None = None
    """Of the server's key that the node pins; absent: the oldest that the server still has."""


class JoinHello(Message, frozen=True, kw_only=True, tag="join-hello"):
    """node → gateway, first message of a join; spends nothing."""

    nonce: Key
    minor: Small
    agent_version: Name
    server_fingerprint: Digest | None = None
    """Of the server's key, as the join command names it; absent as in Hello."""


class Challenge(Message, frozen=True, kw_only=True, tag="challenge"):
    """gateway → node: the server proves itself first (see wire.identity for the signed bytes)."""

    nonce: Key
    server_key: Key
    signature: Signature
    minor: Small
    server_name: Name = ""


class Proof(Message, frozen=True, kw_only=True, tag="proof"):
    """node → gateway: the node's signature over the server's nonce."""

    signature: Signature


class Join(Message, frozen=True, kw_only=True, tag="join"):
    """node → gateway, after the server's key was compared with the fingerprint of the join command."""

    token: Token
    public_key: Key
    signature: Signature
    name: Name
    machine_id: Name
    hardware: Name
    os: OsFacts
    labels: Labels = {}


class Joined(Message, frozen=True, kw_only=True, tag="joined"):
    """gateway → node: the join is committed. Sent again, unchanged, to the same key with the same token."""

    node_id: Id
    admission: Code
    replaces: Id | None = None


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """gateway → node, before the close frame: why the join or the connection is refused."""

    code: Code
    text: Text


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    """gateway → node: authenticated. The node answers with a whole `status`."""

    node_id: Id
    name: Name
    admission: Code
    gateway: Name
    heartbeat_s: Seconds
    minor: Small
    epoch: Count
    conflict: bool = False
    next_server_key: NextServerKey | None = None
    """Pin this one from the next connection on."""


# --- the node speaks ----------------------------------------------------------------------------------------


class Status(Message, frozen=True, kw_only=True, tag="status"):
    """node → gateway: each section that is present replaces the stored one; `whole` has all of them."""

    whole: bool = False
    facts: Facts | UnsetType = UNSET
    slots: Annotated[list[Slot], Meta(max_length=SLOTS)] | UnsetType = UNSET
    health: Health | UnsetType = UNSET
    placement: Placement | UnsetType = UNSET
    activity: Activity | UnsetType = UNSET


class NodeEvent(Message, frozen=True, kw_only=True, tag="event"):
    """node → gateway: something happened that the history keeps. Acknowledged after commit."""

    seq: Count
    """Counts up for the life of the node's state folder: the server stores each once."""
    at: Time
    kind: Code
    """boot, boot-unknown, staged, armed, disarmed, confirmed, soaked, fell-back, check-failed, …"""
    text: Text
    operation_id: Id | None = None
    boot_id: Id | None = None
    cause: BootCause | None = None
    checks: Checks = []


class OperationReport(Message, frozen=True, kw_only=True, tag="report"):
    """node → gateway: an operation ended on the node, exactly once. Acknowledged after commit."""

    seq: Count
    operation_id: Id
    order: Order
    result: Result
    at: Time
    reason: Text = ""
    evidence: Evidence = Evidence()
    failed_checks: Checks = []


class LeaseRequest(Message, frozen=True, kw_only=True, tag="lease-request"):
    """node → gateway: ready to arm; asks again with a new nonce when no answer came."""

    operation_id: Id
    nonce: Id


class LeaseReturn(Message, frozen=True, kw_only=True, tag="lease-return"):
    """node → gateway: the lease is not needed (any more); nothing was started under it."""

    lease_id: Id
    operation_id: Id
    reason: Text = ""


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """node → gateway, every `Welcome.heartbeat_s`, when nothing else was said meanwhile."""


# --- the gateway speaks -------------------------------------------------------------------------------------


class Desired(Message, frozen=True, kw_only=True, tag="desired"):
    """gateway → node: the newest desired state; `operation` None means nothing is to be done (cancel)."""

    order: Order
    operation: Operation | None = None
    cleared_digests: Annotated[list[Digest], Meta(max_length=FAILED_VERSIONS)] = []
    """Failed versions that an operator cleared for this node."""


class LeaseGrant(Message, frozen=True, kw_only=True, tag="lease-grant"):
    """gateway → node: may arm and reboot for `duration_s` from when the request with this nonce was sent."""

    lease_id: Id
    operation_id: Id
    nonce: Id
    duration_s: Seconds


class LeaseWait(Message, frozen=True, kw_only=True, tag="lease-wait"):
    """gateway → node: not now, and why."""

    operation_id: Id
    nonce: Id
    hold: Hold
    retry_s: Seconds


class Ack(Message, frozen=True, kw_only=True, tag="ack"):
    """gateway → node: everything up to `seq` is committed."""

    seq: Count


class Ask(Message, frozen=True, kw_only=True, tag="ask"):
    """gateway → node: send a whole status again."""


class Part(Message, frozen=True, kw_only=True, tag="part"):
    """either way: a piece of the JSON text of one larger message, in order, nothing else in between."""

    index: Annotated[int, Meta(ge=0, lt=MAX_PARTS)]
    count: Annotated[int, Meta(ge=1, le=MAX_PARTS)]
    text: Annotated[str, Meta(min_length=1)]


FromNode = (
    Hello
    | JoinHello
    | Proof
    | Join
    | Status
    | NodeEvent
    | OperationReport
    | LeaseRequest
    | LeaseReturn
    | Heartbeat
    | Part
)
FromServer = Challenge | Joined | Refused | Welcome | Desired | LeaseGrant | LeaseWait | Ack | Ask | Part
