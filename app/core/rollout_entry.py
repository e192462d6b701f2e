"""Which nodes a rollout takes in, and which of them may stage now: the conditions that no other node changes. Pure.

Windows, freezes, ages, budgets and floors do not bind staging: they ration activation (see app.core.planning).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.core.holds import Hold, HoldCode
from app.core.image_match import canonical_arch
from app.core.rollouts import RolloutKind
from app.core.snapshot import TargetView
from app.core.version_edges import edge
from app.core.versions import version_key


class Runs(Protocol):
    """What a node runs, as far as the choice of its image goes."""

    @property
    def os_id(self) -> str: ...
    @property
    def arch(self) -> str: ...
    @property
    def version(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Keeper:
    """A rollout that is not over and that brought a node to what it runs: the passive slot is the way back of both."""

    rollout_id: str
    name: str


class NodeFacts(Runs, Protocol):
    """A node as far as entering and staging go; app.store.rollout_facts.Facts is one."""

    @property
    def id(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def online(self) -> bool: ...
    @property
    def absent(self) -> bool: ...
    @property
    def commandable(self) -> bool: ...
    @property
    def pinned_to(self) -> str: ...
    @property
    def pin_digest(self) -> str: ...
    @property
    def failed(self) -> frozenset[str]: ...
    @property
    def kept_for(self) -> Keeper | None: ...


@dataclass(frozen=True, slots=True)
class Out:
    """The node is not moved by this rollout. With a hold: until that is over."""

    text: str
    hold: Hold | None = None


class Targets:
    """The images of one rollout, found by OS name and architecture."""

    def __init__(
        self,
        kind: RolloutKind,
        targets: Sequence[TargetView],
        *,
        allow_downgrade: bool = False,
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        """`elsewhere`: node id → why the rollout is not about it, though its selector takes it."""
        self.kind = kind
        self.allow_downgrade = allow_downgrade
        self._elsewhere = elsewhere or {}
        self._targets: Mapping[tuple[str, str], TargetView] = {
            (target.os_id, canonical_arch(target.arch)): target for target in targets
        }

    @staticmethod
    def fits(os_id: str, arch: str, node_os_id: str, node_arch: str) -> bool:
        """Whether an image of this OS and architecture is for such a node."""
        return (os_id, canonical_arch(arch)) == (node_os_id, canonical_arch(node_arch))

    def of(self, node: Runs) -> TargetView | None:
        return self._targets.get((node.os_id, canonical_arch(node.arch)))

    def stays_out(self, node: NodeFacts) -> Out | None:
        """Why the node is not in the rollout (now); None: it is."""
        if node.id in self._elsewhere:
            return elsewhere_out(self._elsewhere[node.id], node.id)
        if not node.commandable:
            return _held(HoldCode.NOT_COMMANDABLE, "it cannot be commanded", node)
        if node.absent:
            return _held(HoldCode.ABSENT, "it counts as absent", node)
        if self.kind is not RolloutKind.UPDATE:
            return None
        target = self.of(node)
        if target is None:
            text = f"there is no image for {node.os_id or 'its unknown OS'} {node.arch}".rstrip()
            return _held(HoldCode.NO_IMAGE, text, node)
        if node.digest == target.digest:
            return Out(f"it runs {target.version} already")
        if node.pinned_to and node.pin_digest != target.digest:
            return _held(HoldCode.PINNED, f"it is pinned to {node.pinned_to}", node)
        return None

    def staging_hold(self, node: NodeFacts) -> Hold | None:
        """Why the node is not ordered to stage now; None: it may be. Of a node that is in the rollout."""
        if not node.commandable:
            return Hold(HoldCode.NOT_COMMANDABLE, "cannot be commanded", node.id)
        if not node.online:
            return offline_hold(node.id)
        held = self.standing_hold(node)
        moves = self.kind is RolloutKind.UPDATE and self.of(node) is not None
        return keeping_hold(node.kept_for) if held is None and moves and node.kept_for is not None else held

    def standing_hold(self, node: NodeFacts) -> Hold | None:
        """Of these the reason that only a person ends; such a node proves nothing to others."""
        target = self.of(node)
        if self.kind is not RolloutKind.UPDATE or target is None:
            return None
        if node.pinned_to and node.pin_digest != target.digest:
            return Hold(HoldCode.PINNED, f"is pinned to {node.pinned_to}", node.id)
        held = self.version_hold(node, node.id)
        if held is not None:
            return held
        if target.digest in node.failed:
            return Hold(HoldCode.FAILED_HERE, f"{target.version} failed on it before; clear it there", node.id)
        return None

    def version_hold(self, node: Runs, subject: str) -> Hold | None:
        """The part of `staging_hold` that is the same for all nodes that run this version."""
        target = self.of(node)
        if self.kind is not RolloutKind.UPDATE or target is None:
            return None
        refused = edge(target, node.version)
        if refused is not None:
            return Hold(HoldCode.VERSION_EDGE, refused, subject)
        if not self.allow_downgrade and is_downgrade(target.version, node.version):
            text = f"{target.version} is older than {node.version}, and nobody chose to go down"
            return Hold(HoldCode.DOWNGRADE, text, subject)
        if target.withdrawn:
            return Hold(HoldCode.WITHDRAWN, f"{target.version} is withdrawn", target.digest)
        if target.bad:
            return Hold(HoldCode.BAD_VERSION, f"{target.version} is bad: {target.bad}", target.digest)
        return None


def offline_hold(node_id: str) -> Hold:
    return Hold(HoldCode.OFFLINE, "is not connected; it goes on when it is back", node_id)


def keeping_hold(keeper: Keeper) -> Hold:
    """Of an update, which would write the slot (rule 2); ways back ignore it (rule 7)."""
    text = f"keeps its way back for {keeper.name}, which is not over"
    return Hold(HoldCode.KEEPING_WAY_BACK, text, keeper.rollout_id)


def is_downgrade(target: str, booted: str) -> bool:
    """Whether the target is older than what runs; never where one of the two is not known."""
    return bool(target and booted) and version_key(target) < version_key(booted)


RETURNS = frozenset(
    {
        HoldCode.NOT_COMMANDABLE,
        HoldCode.ABSENT,
        HoldCode.OTHER_ROLLOUT,
        HoldCode.OTHER_GROUP,
        HoldCode.NO_IMAGE,
        HoldCode.PINNED,
    }
)
"""A node that left for one of these comes in again when it is over."""


def elsewhere_out(text: str, node_id: str) -> Out:
    """Another group decides about the node."""
    return Out(text, Hold(HoldCode.OTHER_GROUP, text.removeprefix("it "), node_id))


def _held(code: HoldCode, text: str, node: NodeFacts) -> Out:
    return Out(text, Hold(code, text.removeprefix("it "), node.id))
