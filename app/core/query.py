"""The filter language of node lists: text → terms. Pure; app.store.node_query turns terms into SQL.

    version:<4012 slot:B health:degraded label:zone=a service:db seen:>1h not label:canary "free text"

Terms are joined by "and"; `not` negates the next one. `field:a,b` means either. `*` in a value stands for any
text. Quotes take spaces, commas and stars as they are. A word without a field is searched in name and version, or is a
whole id.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from enum import StrEnum

from app.core.errors import Invalid
from app.core.fleet import NodeState
from app.core.labels import is_label_key
from app.core.nodes import Admission, Connection
from app.core.rollout_progress import Progress
from wire.messages import HealthState, Phase

MOST_CHARS = 1_000
MOST_TERMS = 30
"""Terms, each alternative counted: beyond any filter that a person writes; keeps the SQL small."""


class BadQuery(Invalid):
    """Fields: term (as typed)."""

    def __init__(self, term: str, text: str) -> None:
        super().__init__("q", text)
        self.term = term


class Field(StrEnum):
    NAME = "name"
    VERSION = "version"
    SLOT = "slot"
    HEALTH = "health"
    STATE = "state"
    LABEL = "label"
    SERVICE = "service"
    GROUP = "group"
    ROLLOUT = "rollout"
    CONNECTION = "connection"
    ADMISSION = "admission"
    PHASE = "phase"
    CHANNEL = "channel"
    PINNED = "pinned"
    TRIAL = "trial"
    CONFLICT = "conflict"
    FAILED = "failed"
    OS = "os"
    ARCH = "arch"
    DRIVER = "driver"
    SEEN = "seen"


class Compare(StrEnum):
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="


@dataclass(frozen=True, slots=True)
class Pattern:
    """A value to compare with: its pieces between the stars; one piece: exactly this text. Case is ignored."""

    pieces: tuple[str, ...]

    def matches(self, text: str) -> bool:
        """Each piece where it comes first: no pattern, however many stars it has, tries more than once."""
        text = ascii_lower(text)
        first, *others = (ascii_lower(piece) for piece in self.pieces)
        if not others:
            return text == first
        *inner, last = others
        place = len(first)
        if not text.startswith(first):
            return False
        for piece in inner:
            place = text.find(piece, place)
            if place < 0:
                return False
            place += len(piece)
        return len(text) - place >= len(last) and text.endswith(last)

    @property
    def anywhere(self) -> Pattern:
        """The same anywhere in a text."""
        return Pattern(("", *self.pieces, ""))


@dataclass(frozen=True, slots=True)
class Text:
    """Contained in name or version, or the whole id."""

    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Is:
    field: Field
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Flag:
    field: Field
    wanted: bool


@dataclass(frozen=True, slots=True)
class Label:
    key: str
    pattern: Pattern | None
    """None: has the label at all."""


@dataclass(frozen=True, slots=True)
class Version:
    compare: Compare
    version: str


@dataclass(frozen=True, slots=True)
class Seen:
    """How long ago the node was last seen, in seconds."""

    compare: Compare
    seconds: float


@dataclass(frozen=True, slots=True)
class InRollout:
    """In the rollout of this number, anywhere or where it has come to."""

    number: int
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class AnyOf:
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Not:
    term: Term


Term = Text | Is | Flag | Label | Version | Seen | InRollout | AnyOf | Not


@dataclass(frozen=True, slots=True)
class Query:
    terms: tuple[Term, ...] = ()
    words: tuple[str, ...] = ()
    """Each term as it was typed, with its `not`."""

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def leaves(self) -> list[Term]:
        """Terms without `not` and alternatives around them."""
        return [leaf for term in self.terms for leaf in _leaves(term)]

    @property
    def by_time(self) -> bool:
        """Its matches change with the clock."""
        return any(isinstance(leaf, Seen) for leaf in self.leaves)

    @property
    def asks_retired(self) -> bool:
        """Retired nodes are listed only where the query speaks of them."""
        return any(
            isinstance(leaf, Is)
            and leaf.field in (Field.ADMISSION, Field.STATE)
            and leaf.pattern.matches(Admission.RETIRED)
            for leaf in self.leaves
        )

    def toggled(self, word: str) -> Query:
        """With `word` added, or without it where it stands already."""
        if word in self.words:
            return parse(" ".join(other for other in self.words if other != word))
        return parse(" ".join([*self.words, word]))


def _leaves(term: Term) -> list[Term]:
    if isinstance(term, Not):
        return _leaves(term.term)
    if isinstance(term, AnyOf):
        return [leaf for each in term.terms for leaf in _leaves(each)]
    return [term]


def parse(text: str) -> Query:
    """BadQuery names the first term that cannot be understood, and what would be."""
    if len(text) > MOST_CHARS:
        raise BadQuery(text, f"The filter has {len(text)} characters; at most {MOST_CHARS} are read.")
    terms: list[Term] = []
    words: list[str] = []
    negated = False
    for word in _split(text):
        if word.lower() == "not":
            negated = not negated
            continue
        term = _term(word)
        terms.append(Not(term) if negated else term)
        words.append(f"not {word}" if negated else word)
        negated = False
    if negated:
        raise BadQuery("not", "“not” stands at the end; a term must follow it.")
    query = Query(tuple(terms), tuple(words))
    if len(query.leaves) > MOST_TERMS:
        raise BadQuery(text, f"The filter has {len(query.leaves)} terms and values; at most {MOST_TERMS} are read.")
    return query


def ascii_lower(text: str) -> str:
    """Case is ignored for ASCII letters only: both databases agree on those."""
    return text.translate(_ASCII_LOWER)


_ASCII_LOWER = {ord(letter): letter.lower() for letter in string.ascii_uppercase}


def quoted(value: str) -> str:
    """`value` as a term takes it literally."""
    if re.fullmatch(r"[^\s\"*,\\:<>=]+", value) and value.lower() != "not":
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _split(text: str) -> list[str]:
    """Words at white space outside quotes, quotes kept."""
    words: list[str] = []
    position = 0
    word = re.compile(r'(?:"(?:\\.|[^"\\])*"|[^\s"])+', re.S)
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        found = word.match(text, position)
        if not found or text[found.end() : found.end() + 1] == '"':
            raise BadQuery(text[position:], "A quote is opened and not closed.")
        words.append(found.group())
        position = found.end()
    return words


def _term(word: str) -> Term:
    name, colon, value = word.partition(":")
    if not colon or '"' in name:
        return Text(_pattern(word))
    try:
        field = Field(name.lower())
    except ValueError:
        known = ", ".join(each.value for each in Field)
        raise BadQuery(
            word, f"There is no field “{name}”. Fields: {known}. To search it as text, put it in quotes."
        ) from None
    if not value:
        raise BadQuery(word, f"“{word}” has no value. {_HINTS.get(field, f'For example {field}:something.')}")
    parts = tuple(_value(field, part, word) for part in _alternatives(value))
    return parts[0] if len(parts) == 1 else AnyOf(parts)


def _value(field: Field, value: str, word: str) -> Term:
    if field is Field.LABEL:
        return _label(value, word)
    if field is Field.SEEN:
        return _seen(value, word)
    if field is Field.ROLLOUT:
        return _rollout(value, word)
    if field in _FLAGS:
        return _flag(field, value, word)
    if field is Field.VERSION and (found := re.match(r"[<>]=?|=", value)):
        return _version(found.group(), value[found.end() :], word)
    pattern = _pattern(value)
    allowed = _VALUES.get(field)
    if allowed and not any(pattern.matches(each) for each in allowed):
        raise BadQuery(word, f"“{value}” is no {field}. {_HINTS[field]}")
    return Is(field, pattern)


def _version(operator: str, value: str, word: str) -> Term:
    version = _unquoted(value)
    if not version:
        raise BadQuery(word, f"“{word}” has no version to compare with, as in version:<4012.")
    return Is(Field.VERSION, Pattern((version,))) if operator == "=" else Version(Compare(operator), version)


def _label(value: str, word: str) -> Label:
    key, equals, rest = value.partition("=")
    key = _unquoted(key)
    if not is_label_key(key):
        raise BadQuery(word, f"“{key}” is no label key. {_HINTS[Field.LABEL]}")
    return Label(key, _pattern(rest) if equals else None)


_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"([<>]=?)?([0-9]{1,6}(?:\.[0-9]{1,3})?)(s|m|min|h|d|w)", re.I | re.A)


def _seen(value: str, word: str) -> Seen:
    found = _DURATION.fullmatch(value)
    if not found:
        raise BadQuery(word, f"“{value}” is no time. {_HINTS[Field.SEEN]}")
    compare, number, unit = found.groups()
    return Seen(Compare(compare or Compare.LESS), float(number) * _UNITS_S[unit.lower()])


def _rollout(value: str, word: str) -> InRollout:
    number, slash, progress = _unquoted(value).partition("/")
    if not re.fullmatch(r"[0-9]{1,9}", number, re.A) or (slash and progress.lower() not in tuple(Progress)):
        raise BadQuery(word, f"“{value}” is no rollout. {_HINTS[Field.ROLLOUT]}")
    return InRollout(int(number), Progress(progress.lower()) if slash else None)


def _flag(field: Field, value: str, word: str) -> Flag:
    if value.lower() not in ("yes", "no"):
        raise BadQuery(word, f"“{field}” is yes or no, not “{value}”.")
    return Flag(field, value.lower() == "yes")


def _alternatives(value: str) -> list[str]:
    """At commas outside quotes; empty ones do not count, unless there is nothing else."""
    parts = re.findall(r'(?:"(?:\\.|[^"\\])*"|[^,"])+', value, re.S)
    return parts or [value]


def _pattern(value: str) -> Pattern:
    """Stars outside quotes stand for any text."""
    pieces = [""]
    for part in re.findall(r'"(?:\\.|[^"\\])*"|\*|[^"*]+', value, re.S):
        if part == "*":
            pieces.append("")
        else:
            pieces[-1] += _unquoted(part)
    return Pattern(tuple(pieces))


def _unquoted(value: str) -> str:
    def inner(found: re.Match[str]) -> str:
        return re.sub(r"\\(.)", r"\1", found.group()[1:-1], flags=re.S)

    return re.sub(r'"(?:\\.|[^"\\])*"', inner, value, flags=re.S)


_FLAGS = (Field.PINNED, Field.TRIAL, Field.CONFLICT, Field.FAILED)
_VALUES: dict[Field, tuple[str, ...]] = {
    Field.HEALTH: tuple(HealthState),
    Field.STATE: tuple(NodeState),
    Field.CONNECTION: tuple(Connection),
    Field.ADMISSION: tuple(Admission),
    Field.PHASE: tuple(Phase),
}
_HINTS = (
    {field: f"It is one of {', '.join(values)}." for field, values in _VALUES.items()}
    | {
        Field.LABEL: "For example label:zone=eu-west-1a, or label:canary.",
        Field.ROLLOUT: f"For example rollout:12, or rollout:12/done: {', '.join(Progress)}.",
        Field.SEEN: "For example seen:>1h, seen:<30s, seen:>2d.",
        Field.VERSION: "For example version:4152.2.0, version:<4012, version:4152.*.",
    }
    | dict.fromkeys(_FLAGS, "It is yes or no.")
)
