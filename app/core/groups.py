"""Groups: which nodes a selector takes, and in which order a node's groups decide. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.core.errors import Invalid
from app.core.group_policy import GroupPolicy
from app.core.labels import VALUE_CHARS, is_label_key

EVERY = "*"
MOST_REQUIREMENTS = 20
"""Beyond any selector that a person writes; keeps its SQL small."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}\Z")
MOST_PRECEDENCE = 1_000_000


class Sign(StrEnum):
    IS = "="
    IS_NOT = "!="
    """Has another value, or has not this label at all."""
    HAS = "has"
    HAS_NOT = "has-not"


@dataclass(frozen=True, slots=True)
class Requirement:
    key: str
    sign: Sign
    value: str = ""

    def holds(self, labels: Mapping[str, str]) -> bool:
        match self.sign:
            case Sign.IS:
                return labels.get(self.key) == self.value
            case Sign.IS_NOT:
                return labels.get(self.key) != self.value
            case Sign.HAS:
                return self.key in labels
            case Sign.HAS_NOT:
                return self.key not in labels

    @property
    def text(self) -> str:
        if self.sign in (Sign.IS, Sign.IS_NOT):
            return f"{self.key}{self.sign}{self.value}"
        return self.key if self.sign is Sign.HAS else f"!{self.key}"


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold; none: every node."""

    requirements: tuple[Requirement, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(each.holds(labels) for each in self.requirements)

    @property
    def text(self) -> str:
        return ", ".join(each.text for each in self.requirements) or EVERY


def parse_selector(text: str) -> Selector:
    """`zone=a, role!=db, canary, !lab`: joined by "and"; `*`: every node. Invalid names what is none."""
    if text.strip() == EVERY:
        return Selector(())
    parts = [part.strip() for part in text.split(",")]
    if not any(parts):
        raise Invalid("selector", "An empty selector selects nothing. Say which labels, as in zone=a, or * for all.")
    if len(parts) > MOST_REQUIREMENTS:
        raise Invalid("selector", f"A selector has at most {MOST_REQUIREMENTS} parts; this one has {len(parts)}.")
    return Selector(tuple(_requirement(part) for part in parts))


def _requirement(part: str) -> Requirement:
    if part == EVERY:
        raise Invalid("selector", "* selects every node and stands alone.")
    key, equals, value = part.partition("=")
    sign = Sign.IS
    if equals and key.endswith("!"):
        key, sign = key[:-1], Sign.IS_NOT
    elif not equals:
        key, sign = part.removeprefix("!"), Sign.HAS_NOT if part.startswith("!") else Sign.HAS
    key, value = key.strip(), value.strip()
    if not is_label_key(key):
        hint = "Parts are key=value, key!=value, key or !key, with commas between them."
        raise Invalid("selector", f"“{part}” names no label. {hint}")
    if len(value) > VALUE_CHARS or not value.isprintable():
        raise Invalid("selector", f"The value of “{key}” must be printable, at most {VALUE_CHARS} characters.")
    return Requirement(key, sign, value)


@dataclass(frozen=True, slots=True)
class Group:
    id: str
    name: str
    selector: Selector
    precedence: int
    """Of a node's groups the highest is its policy group; of equal ones the first by name."""
    channel_id: str | None
    policy: GroupPolicy
    created_by: str
    created_at: float


def in_order(groups: Iterable[Group]) -> list[Group]:
    """As they decide: highest precedence first, then by name."""
    return sorted(groups, key=lambda group: (-group.precedence, group.name))


def groups_of(labels: Mapping[str, str], groups: Iterable[Group]) -> tuple[Group, ...]:
    """Those that a node with these labels is in; the first is its policy group."""
    return tuple(group for group in in_order(groups) if group.selector.matches(labels))


class Grouping:
    """`groups_of` for many nodes: nodes that agree in the labels that selectors name are looked at once."""

    def __init__(self, groups: Iterable[Group]) -> None:
        self._groups = in_order(groups)
        self._keys = sorted({each.key for group in self._groups for each in group.selector.requirements})
        self._known: dict[tuple[str | None, ...], tuple[Group, ...]] = {}

    def of(self, labels: Mapping[str, str]) -> tuple[Group, ...]:
        seen = tuple(map(labels.get, self._keys))
        found = self._known.get(seen)
        if found is None:
            found = tuple(group for group in self._groups if group.selector.matches(labels))
            self._known[seen] = found
        return found


@dataclass(frozen=True, slots=True)
class Effective:
    """Which of a node's groups decides what (DESIGN §2)."""

    policy_group: Group | None
    """Decides channel, windows, soak, deadlines and how images are fetched; None: the fleet's policy does."""
    budgets: tuple[Group, ...]
    """The budget of each of these binds."""

    @property
    def notes(self) -> list[str]:
        """Sentences for the node's page."""
        if self.policy_group is None:
            return ["No group selects this node: the fleet's policy decides, and no group's budget binds it."]
        first, *others = [f"“{group.name}”" for group in self.budgets]
        notes = [f"{first} decides channel, windows and soak: it has the highest precedence."]
        if others:
            notes.append(f"The budgets of {', '.join([first, *others])} all bind.")
        return notes


def effective(groups: Sequence[Group]) -> Effective:
    """Of a node's groups, as `groups_of` orders them."""
    return Effective(groups[0] if groups else None, tuple(groups))


def check_name(name: str) -> str:
    """The name of a group, trimmed; Invalid when pages and filters could not carry it."""
    name = name.strip()
    if not _NAME.match(name):
        raise Invalid("name", f"“{name}” is no group name: lower-case letters, digits and . _ - , at most 40.")
    return name


def check_precedence(precedence: int) -> int:
    if not -MOST_PRECEDENCE <= precedence <= MOST_PRECEDENCE:
        raise Invalid("precedence", f"The precedence is from {-MOST_PRECEDENCE} to {MOST_PRECEDENCE}.")
    return precedence
