"""What the history keeps. Nodes tell events of their own kinds too (wire NodeEvent.kind); these are the server's."""

from __future__ import annotations

from enum import StrEnum


class EventKind(StrEnum):
    # an operator or the conductor changed desired state
    OPERATION_BEGUN = "operation-begun"
    OPERATION_SUPERSEDED = "operation-superseded"
    CANCEL_ASKED = "cancel-asked"
    PINNED = "pinned"
    UNPINNED = "unpinned"
    PIN_EXPIRED = "pin-expired"
    FOLLOWED = "followed"
    APPROVED = "approved"
    RETIRED = "retired"
    RENAMED = "renamed"
    RELABELLED = "relabelled"
    CONFLICT_SETTLED = "conflict-settled"
    FAILED_VERSION_CLEARED = "failed-version-cleared"
    FLOOR_OVERRIDDEN = "floor-overridden"
    DECLARED = "declared"
    LOST = "lost"
    FOUND = "found"
    # observed
    OPERATION_ENDED = "operation-ended"
    LATE_REPORT = "late-report"
    CLAIM_EARLY = "claim-early"
    UNEXPECTED_PHASE = "unexpected-phase"
    VERSION_FAILED = "version-failed"
    LEASE_GRANTED = "lease-granted"
    LEASE_RETURNED = "lease-returned"
    JOINED = "joined"
    ONLINE = "online"
    OFFLINE = "offline"
    EPOCH_STARTED = "epoch-started"
    IDENTITY_CONFLICT = "identity-conflict"
