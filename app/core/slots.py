"""What the two slots mean: the one table of an operation's phases, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.nodes import Node
from wire.messages import OperationKind, Phase, Slot

_IDLE, _STAGING, _STAGED = Phase.IDLE, Phase.STAGING, Phase.STAGED
_DRAINING, _REBOOTING, _CONFIRMING = Phase.DRAINING, Phase.REBOOTING, Phase.CONFIRMING
_SOAKING, _BACK = Phase.SOAKING, Phase.ROLLING_BACK

MOVES: dict[Phase, frozenset[Phase]] = {
    # A status tells the newest phase only: phases may be jumped over. Going back is legal where the node may.
    _IDLE: frozenset(Phase) - {_IDLE},
    _STAGING: frozenset(Phase) - {_STAGING},  # to idle: held before it began anew
    _STAGED: frozenset(Phase) - {_STAGED},  # to staging: the passive slot was not what it should be
    _DRAINING: frozenset(Phase) - {_DRAINING},
    _REBOOTING: frozenset(Phase) - {_REBOOTING},  # back to staged or before: the lease ran out, nothing was started
    _CONFIRMING: frozenset({_SOAKING, _BACK}),
    _SOAKING: frozenset({_CONFIRMING, _BACK}),  # to confirming: a reboot during the soak
    _BACK: frozenset({_CONFIRMING, _SOAKING}),  # to confirming: the machine booted the new slot again
}
"""Phase of an open operation → phases that a node's report may move it to. It ends in any of them."""

ARMED = frozenset({_DRAINING, _REBOOTING, _CONFIRMING, _BACK})
"""Phases in which a node finishes what it does before it takes anything else."""

SWITCHING = frozenset({_DRAINING, _REBOOTING, _BACK})
"""Phases in which nobody can know which slot the node is in."""


class IllegalMove(Exception):
    """A node reported a phase that cannot follow. Fields: before, after."""

    def __init__(self, before: Phase, after: Phase) -> None:
        super().__init__(f"an operation cannot go from {before} to {after}")
        self.before = before
        self.after = after


def move(before: Phase, after: Phase) -> Phase:
    """The new phase; the same phase is no move. IllegalMove changes nothing."""
    if after != before and after not in MOVES[before]:
        raise IllegalMove(before, after)
    return after


@dataclass(frozen=True, slots=True)
class WayBackChoice:
    """Where Roll back leads."""

    version: str
    digest: str | None
    local: bool
    """It is in the passive slot: nothing needs to be downloaded."""
    image_id: str | None
    """The image to download where it is not local."""
    confirmed: bool = False
    """It is in the passive slot, which was confirmed good."""


def way_back_of(node: Node) -> WayBackChoice | None:
    """The version that ran before the booted one, from the passive slot if it still holds it.

    What the agent says of its way back comes first, then what our own operations know, then a passive slot that
    was once confirmed good (a node that joined with a filled slot). A slot marked bad is no way back, and neither
    is a staged image.
    """
    passive = node.passive
    if passive is not None and passive.good is False:
        passive = None
    said = node.activity.way_back
    if said is not None and passive is not None and passive.name == said.slot and _holds(passive, said.digest):
        return _local(passive, said.version or "")
    previous = node.previous
    if previous is not None:
        if passive is not None and _holds(passive, previous.digest):
            return _local(passive, previous.version)
        if previous.image_id is not None:
            return WayBackChoice(previous.version, previous.digest, False, previous.image_id)
        return None
    if passive is not None and passive.good and (passive.digest or passive.version):
        return _local(passive, "")
    return None


def _holds(passive: Slot, digest: str | None) -> bool:
    """Of contents whose digest nobody knows (filled at the factory) only what was confirmed once is a way back."""
    return passive.digest == digest if digest else passive.digest is None and passive.good is True


def _local(passive: Slot, version: str) -> WayBackChoice:
    return WayBackChoice(version or passive.version or "", passive.digest, True, None, passive.good is True)


def switches(kind: OperationKind) -> bool:
    """Whether this kind of operation ends in another slot."""
    return kind in (OperationKind.ACTIVATE, OperationKind.ROLLBACK)
