"""Why nodes of a rollout wait, in words: what each kind of hold is called, and what would end it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.core.holds import HoldCode
from app.store.rollout_cells import HeldGroup
from app.web.rollout_waves import list_address


@dataclass(frozen=True, slots=True)
class HoldWords:
    title: str
    shape: str
    helps: str
    """What a person could do; empty: it passes by itself."""


_H = HoldCode
WORDS: dict[HoldCode, HoldWords] = {
    _H.NOT_COMMANDABLE: HoldWords("Cannot be commanded", "unknown", "settling its identity, or an agent on it"),
    _H.ABSENT: HoldWords("Absent", "off", "bringing it back, or retiring it"),
    _H.OFFLINE: HoldWords("Offline", "off", "bringing it back"),
    _H.OTHER_ROLLOUT: HoldWords("Another order has it", "off", ""),
    _H.OTHER_GROUP: HoldWords("Not of its group", "off", "bringing it into the group, by its labels or the selector"),
    _H.NO_IMAGE: HoldWords("No image for its platform", "unknown", "adding an image for its OS and architecture"),
    _H.PINNED: HoldWords("Pinned", "off", "taking the pin away"),
    _H.VERSION_EDGE: HoldWords("Version edge", "warn", "passing through the version that it names first"),
    _H.DOWNGRADE: HoldWords("Would be a downgrade", "warn", "allowing downgrades in the rollout"),
    _H.WITHDRAWN: HoldWords("Image withdrawn", "bad", "choosing another image"),
    _H.BAD_VERSION: HoldWords("Bad version", "bad", "clearing the version, with a reason"),
    _H.FAILED_HERE: HoldWords("Failed here before", "bad", "letting it be tried again on the node"),
    _H.KEEPING_WAY_BACK: HoldWords("Keeps its way back", "off", "finishing or aborting the rollout that it names"),
    _H.NOT_RUNNING: HoldWords("Rollout does not run", "off", "starting or resuming it"),
    _H.FREEZE: HoldWords("Freeze", "warn", "ending the freeze, or break-glass"),
    _H.WINDOW: HoldWords("Outside its window", "off", ""),
    _H.MINIMUM_AGE: HoldWords("Image is too young", "off", ""),
    _H.NOT_READY: HoldWords("Not ready", "busy", ""),
    _H.CANARIES: HoldWords("Canaries first", "trial", ""),
    _H.EXPOSURE: HoldWords("Others prove the version first", "trial", ""),
    _H.GROUP_BUDGET: HoldWords("Group budget", "off", ""),
    _H.DOMAIN_BUDGET: HoldWords("Failure domain's turn", "off", ""),
    _H.DOMAIN_ORDER: HoldWords("Another domain first", "off", ""),
    _H.PLACEMENT_UNKNOWN: HoldWords("Placement unknown", "unknown", "declaring what runs there"),
    _H.SINGLE_REPLICA: HoldWords("Single replica", "bad", "another replica, or allowing the single one to move"),
    _H.SERVICE_FLOOR: HoldWords("Service floor", "warn", "another replica"),
    _H.HEALTH_GATE: HoldWords("Health gate", "warn", "repairing what the gate looks at"),
}


@dataclass(frozen=True, slots=True)
class HoldRow:
    """Nodes that wait for one kind of reason; their list is at `href`."""

    code: HoldCode
    title: str
    shape: str
    nodes: int
    href: str
    texts: tuple[tuple[str, int, str], ...]
    """(reason, nodes, address of just these), the most frequent first, at most `_MOST_TEXTS`."""
    more: int
    """Nodes whose reason is not among `texts`."""
    helps: str
    services: tuple[tuple[str, str], ...] = ()
    """(scope, name) of single replicas that could be allowed to move."""


_MOST_TEXTS = 3


def hold_rows(groups: Sequence[HeldGroup], base: str) -> list[HoldRow]:
    """One row a kind, the most frequent first; the counts are those of `groups`."""
    kinds: dict[HoldCode, list[HeldGroup]] = {}
    for group in groups:
        kinds.setdefault(group.code, []).append(group)
    return sorted((_row(code, alike, base) for code, alike in kinds.items()), key=lambda row: -row.nodes)


def _row(code: HoldCode, groups: list[HeldGroup], base: str) -> HoldRow:
    words = WORDS[code]
    nodes = sum(group.nodes for group in groups)
    first = sorted(groups, key=lambda group: -group.nodes)[:_MOST_TEXTS]
    texts = tuple(
        (group.text, group.nodes, list_address(base, hold=code.value, subject=group.subject)) for group in first
    )
    return HoldRow(
        code=code,
        title=words.title,
        shape=words.shape,
        nodes=nodes,
        href=list_address(base, hold=code.value),
        texts=texts,
        more=nodes - sum(group.nodes for group in first),
        helps=words.helps,
        services=tuple(_service(group.subject) for group in first) if code is HoldCode.SINGLE_REPLICA else (),
    )


def _service(subject: str) -> tuple[str, str]:
    """A scope may contain slashes, as paths of projects do; a name does not."""
    scope, _, name = subject.rpartition("/")
    return scope, name


def frees_most(groups: Iterable[HeldGroup]) -> tuple[str, int] | None:
    """(what a person could do, nodes that it would free); None: everything passes by itself."""
    helped = [group for group in groups if WORDS[group.code].helps]
    if not helped:
        return None
    most = max(helped, key=lambda group: group.nodes)
    about = f" ({most.subject})" if "/" in most.subject else ""
    return f"{WORDS[most.code].helps}{about}", most.nodes
