"""Why a node is not moving now: typed, one sentence, in the order of the chain (rule 10). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class HoldCode(StrEnum):
    """In the order of the chain: of several reasons the first speaks."""

    NOT_COMMANDABLE = "not-commandable"
    """Protocol only, an identity conflict."""
    ABSENT = "absent"
    OFFLINE = "offline"
    OTHER_ROLLOUT = "other-rollout"
    """Another rollout, or an operator's order, has the node."""
    OTHER_GROUP = "other-group"
    """It is not, or not any more, of the group that its rollout is about; or another group decides about it."""
    NO_IMAGE = "no-image"
    """The rollout has no image for its OS and architecture."""
    PINNED = "pinned"
    VERSION_EDGE = "version-edge"
    DOWNGRADE = "downgrade"
    WITHDRAWN = "withdrawn"
    BAD_VERSION = "bad-version"
    """Failed often enough fleet-wide."""
    FAILED_HERE = "failed-here"
    KEEPING_WAY_BACK = "keeping-way-back"
    """The rollout that brought it to what it runs is not over: its passive slot is still the way back (rule 2)."""
    NOT_RUNNING = "not-running"
    """Its rollout is a draft, paused or halted."""
    FREEZE = "freeze"
    WINDOW = "window"
    MINIMUM_AGE = "minimum-age"
    NOT_READY = "not-ready"
    """Stages, is downloading, keeps its way back, is inhibited on the node, has not asked yet."""
    CANARIES = "canaries"
    EXPOSURE = "exposure"
    """As many nodes as the rollout may expose at once have not proved its version yet."""
    GROUP_BUDGET = "group-budget"
    DOMAIN_BUDGET = "domain-budget"
    DOMAIN_ORDER = "domain-order"
    PLACEMENT_UNKNOWN = "placement-unknown"
    SINGLE_REPLICA = "single-replica"
    SERVICE_FLOOR = "service-floor"
    HEALTH_GATE = "health-gate"


@dataclass(frozen=True, slots=True)
class Hold:
    code: HoldCode
    text: str
    """One clause, as in “waits for …”; lists and chains show it."""
    subject: str = ""
    """What it is about: id of a group, node or rollout, or `scope/name` of a service."""
    until: float | None = None
    """When it ends by itself, where that is known (Unix seconds)."""
