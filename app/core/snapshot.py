"""The fleet as the planner sees it at one moment: everything a plan depends on, and nothing else. Pure.

Times are Unix seconds. A snapshot can be saved and explained later (`twinroot plan --snapshot`), see
app.core.snapshot_file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.core.group_policy import GroupPolicy
from app.core.holds import Hold
from app.core.rollouts import RolloutKind, RolloutState

ServiceKey = tuple[str, str]
"""(scope, name)"""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One admitted node."""

    id: str
    name: str
    labels: Mapping[str, str]
    groups: tuple[str, ...]
    """Ids of the groups that it is in, those of Snapshot.groups only; the first is its policy group. A node that no
    selector matches is in the group that whoever makes the snapshot invents for such nodes: it is never empty."""
    os_id: str
    arch: str
    version: str
    digest: str
    """Of the booted slot."""
    online: bool
    healthy: bool
    """Its checks do not say unhealthy."""
    on_trial: bool
    """Booted into a new slot and not confirmed, or on its way there."""
    soaking: bool
    reserved: bool
    """A lease of it has not been returned: it may go down at any moment, or is down."""
    absent: bool
    """Declared lost, or offline longer than its policy's `absent_after_s`: outside size and budget."""
    commandable: bool
    """Its evidence class lets us command it, and no identity conflict holds it."""
    placement_known: bool
    """Or declared by an operator. Where it is not, `placements` is empty but for what its lease reserved: such a node
    adds to no service. Of one that has just come back it is not, until it has said over this connection what runs."""
    placements: tuple[tuple[int, int], ...]
    """(index into Snapshot.services, replicas of it that are healthy here now); each service once. Of a node that is
    not up: as last seen, which is what it serves again when it is back; where its lease reserved more, that."""
    has_local_way_back: bool
    """Its passive slot holds a version that it could go back to without a download."""
    staged_digest: str
    """Digest in the passive slot; empty: nothing, or not known."""
    pinned_to: str
    """Words of its pin, such as “version 4.1”; empty: not pinned."""
    pin_digest: str
    """Digest that its pin leads to now; empty: nothing."""
    failed: frozenset[str]
    """Digests that failed here and were not cleared."""
    exposed_to: str = ""
    """Id of the rollout whose version it has not proved yet: reserved, on trial or soaking under it; empty: none."""
    returning: tuple[tuple[int, int], ...] = ()
    """Of one that is up: (index into Snapshot.services, replicas of it that it served before and has not started yet,
    moments after it booted or came back). What is admitted does not count on them; what is forecast does."""

    @property
    def up(self) -> bool:
        """It serves: seen online, on a confirmed slot, not about to go down by our doing."""
        return self.online and not self.reserved and not self.on_trial and not self.absent

    @property
    def placements_back(self) -> tuple[tuple[int, int], ...]:
        """What it serves when it has started all that it served before; each service once."""
        if not self.returning:
            return self.placements
        found = dict(self.placements)
        for service, replicas in self.returning:
            found[service] = found.get(service, 0) + replicas
        return tuple(found.items())

    @property
    def missing(self) -> bool:
        """Counts against the budget of its groups. An absent node counts nowhere."""
        return not self.absent and (not self.up or not self.healthy)


@dataclass(frozen=True, slots=True)
class ServiceView:
    key: ServiceKey
    expected: int
    """Replicas, frozen where a rollout froze them."""
    floor: int | None
    """Fewest healthy replicas that our own actions may leave; None: a per-node service, which has no floor."""
    allowed: bool = False
    """An operator allows its single replica to move; its floor is 0 then."""
    allowed_for: tuple[str, ...] = ()
    """Ids of rollouts of which a node may take its single replica, whatever the floor; others may not."""


@dataclass(frozen=True, slots=True)
class GroupView:
    id: str
    name: str
    """Empty: of the nodes that no selector takes."""
    policy: GroupPolicy
    frozen: Hold | None = None
    """A freeze of the group or of the fleet that holds now."""

    @property
    def words(self) -> str:
        """As sentences name it."""
        return f"group {self.name}" if self.name else "the nodes without a group"


@dataclass(frozen=True, slots=True)
class TargetView:
    """An image as a target of one rollout, for nodes of its OS and architecture."""

    os_id: str
    arch: str
    version: str
    digest: str
    created_at: float
    withdrawn: bool
    bad: str = ""
    """Why it is bad fleet-wide; empty: it is not."""
    must_pass: tuple[str, ...] = ()
    """Versions one of which must be booted, or have been passed, before this one; empty: from anywhere."""
    not_from: tuple[str, ...] = ()
    """Versions from which it must not be reached."""


@dataclass(frozen=True, slots=True)
class MoveTimes:
    """How long nodes of a rollout took from the lease to confirmed."""

    nodes: int
    fastest_s: float
    slowest_s: float


@dataclass(frozen=True, slots=True)
class RolloutView:
    """What wants nodes to move: a rollout, or an operator's order to one node (`direct`)."""

    id: str
    name: str
    kind: RolloutKind
    state: RolloutState
    policy: GroupPolicy
    """Frozen when it was started; canaries and failure limit come from here, the other budgets from the groups."""
    targets: tuple[TargetView, ...]
    created_at: float
    direct: bool = False
    reverse: bool = False
    """It leads back: windows, gates, age, edges, canaries do not bind it (rule 7); floors and budgets do."""
    allow_downgrade: bool = False
    break_glass: bool = False
    """An operator lets it pass freezes and windows, audited."""
    attempted: int = 0
    failed: int = 0
    canaries_left: int = 0
    """Canaries that have not soaked yet."""
    canaries_soaked_at: float | None = None
    """When the last canary had soaked."""
    canaries_wait: str = ""
    """Which canary that has soaked cannot be seen to be well now, so that the others go on waiting; empty: none."""
    size: int = 0
    """Nodes of it without those that left it, whatever they did already: what shares of its policy are shares of."""
    gates: tuple[Hold, ...] = ()
    """Health gates that are shut now, as their owner found them (Prometheus queries, loss of a domain)."""
    moved: MoveTimes | None = None
    """Of its nodes so far; None: none has got there, or nobody asked."""
    awaits: str = ""
    """Newer rollouts that have stopped and that have nodes of it, so that it does not end; empty: none."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that a rollout wants to move and that has not moved yet."""

    node: int
    """Index into Snapshot.nodes."""
    rollout: int
    """Index into Snapshot.rollouts."""
    operation_id: str
    """Empty: not ordered yet."""
    ready: bool
    """It is staged (where it stages) and asks for its lease with a request that can be answered now."""
    canary: bool
    since: float
    override_floor: bool = False
    """An operator lets this node go below floors, audited."""
    override_failed: bool = False
    """An operator lets it try a version that failed on it before, audited."""
    said: Hold | None = None
    """Why it is not ready, in the node's own words (keeping its way back, an inhibitor, a download that fails)."""
    kept: Hold | None = None
    """Why it is not ordered: the rollout that brought its node to what it runs is not over (rule 2)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    now: float
    nodes: tuple[NodeView, ...]
    services: tuple[ServiceView, ...]
    groups: tuple[GroupView, ...]
    rollouts: tuple[RolloutView, ...]
    candidates: tuple[Candidate, ...]
    fleet_hold: Hold | None = None
    """Holds all activation: a fleet-wide freeze, no gateway that could hear, a new epoch nobody has looked at."""
