"""What runs on the fleet: who moves and stages one by one, who waits counted by reason. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.core.holds import HoldCode
from app.core.nodes import Operation
from app.web.rollout_holds import WORDS
from wire.messages import Phase

_ROWS = 8
_REASONS = 5
_MOVING = (Phase.DRAINING, Phase.REBOOTING, Phase.CONFIRMING, Phase.SOAKING, Phase.ROLLING_BACK)


@dataclass(frozen=True, slots=True)
class Waits:
    """Operations that wait for one kind of reason."""

    title: str
    shape: str
    text: str
    """The most frequent reason of the kind."""
    alike: bool
    """It is the reason of all of them."""
    operations: int


@dataclass(frozen=True, slots=True)
class Running:
    """All open operations: those that move, those that stage, and those that wait add up to them."""

    moving: int
    staging: int
    waiting: int
    rows: tuple[Operation, ...]
    """The first of those that move or stage."""
    reasons: tuple[Waits, ...]
    """The most frequent first."""
    other: int
    """Operations that wait for something that is not among `reasons`."""

    @property
    def more(self) -> int:
        return self.moving + self.staging - len(self.rows)


def running(operations: Sequence[Operation]) -> Running:
    """`operations`: all that are open, in the order in which they are shown."""
    moving = [each for each in operations if each.holds_lease or each.phase in _MOVING]
    others = [each for each in operations if not (each.holds_lease or each.phase in _MOVING)]
    staging = [each for each in others if each.phase is Phase.STAGING]
    reasons = _reasons(each for each in others if each.phase is not Phase.STAGING)
    return Running(
        moving=len(moving),
        staging=len(staging),
        waiting=len(others) - len(staging),
        rows=tuple((moving + staging)[:_ROWS]),
        reasons=tuple(reasons[:_REASONS]),
        other=sum(each.operations for each in reasons[_REASONS:]),
    )


def _reasons(waiting: Iterable[Operation]) -> list[Waits]:
    kinds: dict[tuple[str, str], Counter[str]] = {}
    for each in waiting:
        kind, text = _kind(each)
        kinds.setdefault(kind, Counter())[text] += 1
    found = [
        Waits(title, shape, texts.most_common(1)[0][0], len(texts) == 1, texts.total())
        for (title, shape), texts in kinds.items()
    ]
    return sorted(found, key=lambda each: -each.operations)


def _kind(operation: Operation) -> tuple[tuple[str, str], str]:
    """((title, shape), reason)."""
    if operation.hold is None:
        told = "has staged it, and has not asked yet" if operation.phase is Phase.STAGED else "has not begun yet"
        return ("Just ordered", "off"), told
    code, text = operation.hold.get("code", ""), str(operation.hold.get("text", ""))
    if code in tuple(HoldCode):
        words = WORDS[HoldCode(code)]
        return (words.title, words.shape), text
    return ("Waits", "off"), text
