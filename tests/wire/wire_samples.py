"""Messages to test with: the golden ones, random ones from the types themselves, and a pair of ends."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from hypothesis import strategies as st
from msgspec import inspect

from wire import identity
from wire.codec import decode_from_node, decode_from_server
from wire.conversation import JoinEnd, NodeEnd, ServerEnd
from wire.messages import MINOR, Container, FromNode, FromServer, Message, OsFacts, Part, Slot, Welcome
from wire.states import Kind, tag_of

GOLDEN = Path(__file__).parent / "golden"

NODE_KINDS: tuple[Kind, ...] = get_args(FromNode)
SERVER_KINDS: tuple[Kind, ...] = get_args(FromServer)
ALL_KINDS: tuple[Kind, ...] = tuple(dict.fromkeys(NODE_KINDS + SERVER_KINDS))

SERVER_PRIVATE = identity.encode(bytes([1]) * 32)
SERVER_KEY = identity.public_key(SERVER_PRIVATE)
NODE_PRIVATE = identity.encode(bytes([2]) * 32)
NODE_KEY = identity.public_key(NODE_PRIVATE)
OTHER_PRIVATE = identity.encode(bytes([9]) * 32)
NODE_ID = "nd_7K3"


def golden_text(kind: Kind) -> str:
    return (GOLDEN / f"{tag_of(kind)}.json").read_text()


def golden(kind: Kind) -> Message:
    """The golden message of a kind."""
    decode = decode_from_node if kind in NODE_KINDS else decode_from_server
    return decode(golden_text(kind))


def golden_set(name: str) -> list[dict[str, str]]:
    frames: list[dict[str, str]] = json.loads((GOLDEN / f"{name}.json").read_text())
    return frames


def transcript(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / f"transcript-{name}.json").read_text())
    return content


def welcome() -> Welcome:
    return Welcome(
        node_id=NODE_ID, name="edge-7", admission="admitted", gateway="gw-1", heartbeat_s=20.0, minor=MINOR, epoch=1
    )


@dataclass
class Pair:
    """A gateway's end and a joined node's end of one connection, and the frames on their way."""

    server: ServerEnd = field(default_factory=lambda: ServerEnd(SERVER_PRIVATE, "console.example"))
    node: NodeEnd = field(default_factory=lambda: NodeEnd(NODE_ID, NODE_PRIVATE, SERVER_KEY))

    def hello(self) -> str:
        [frame] = self.node.hello(agent_version="0.1.0", machine_id="m", hardware="h", boot_id="b0")
        return frame

    def challenge(self) -> str:
        """Up to the challenge, not yet received."""
        self.server.receive(self.hello())
        [frame] = self.server.challenge(NODE_KEY)
        return frame

    def proof(self) -> str:
        """Up to the proof, not yet received."""
        _, [frame] = self.node.receive(self.challenge())
        return frame

    def open(self) -> Pair:
        self.server.receive(self.proof())
        [frame] = self.server.welcome(welcome())
        self.node.receive(frame)
        return self


@dataclass
class JoinPair:
    """A gateway's end and the end of a node that joins."""

    server: ServerEnd = field(default_factory=lambda: ServerEnd(SERVER_PRIVATE, "console.example"))
    node: JoinEnd = field(default_factory=lambda: JoinEnd(NODE_PRIVATE, identity.fingerprint(SERVER_KEY)))

    def hello(self) -> str:
        [frame] = self.node.hello(agent_version="0.1.0")
        return frame

    def challenge(self) -> str:
        self.server.receive(self.hello())
        [frame] = self.server.challenge(None)
        return frame

    def join_frame(self) -> str:
        [frame] = self.node.join("tj_5f2c9", "edge-7", "m", "h", OsFacts(id="debian"), {"site": "north"})
        return frame

    def join(self) -> str:
        """Up to the join, not yet received."""
        self.node.receive(self.challenge())
        return self.join_frame()


def snapshot(end: ServerEnd | NodeEnd | JoinEnd) -> list[object]:
    """Everything an end remembers, to show that nothing changed."""
    return [getattr(end, name) for name in type(end).__slots__]


_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_UNIQUE: dict[type, str] = {Slot: "name", Container: "id"}


def messages_of(kind: Kind) -> st.SearchStrategy[Any]:
    """Any valid message of a kind, as its type and the limits at its fields say."""
    made = _struct(kind)
    return made.filter(lambda part: part.index < part.count) if kind is Part else made


def _struct(cls: type) -> st.SearchStrategy[Any]:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    required = {each.name: _any(each.type) for each in info.fields if each.required}
    optional = {each.name: _any(each.type) for each in info.fields if not each.required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda values: cls(**values))


def _any(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.UnionType(types=types):
            return st.one_of([_any(each) for each in types])
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=low, le=high, lt=below):
            return st.integers(low, high if below is None else below - 1)
        case inspect.FloatType(ge=low, le=high):
            return st.floats(low, high)
        case inspect.StrType(pattern=None, min_length=low, max_length=high):
            return st.text(_CHARACTERS, min_size=low or 0, max_size=min(high or 80, 80))
        case inspect.StrType(pattern=pattern, min_length=low, max_length=high):
            return st.from_regex(pattern).filter(lambda text: (low or 0) <= len(text) <= (high or 10**6))
        case inspect.EnumType(cls=cls):
            return st.sampled_from(list(cls))
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(_any(key), _any(value), max_size=3)
        case inspect.ListType(item_type=inspect.StructType(cls=cls)) if cls in _UNIQUE:
            name = _UNIQUE[cls]
            return st.lists(_struct(cls), max_size=3, unique_by=lambda item: getattr(item, name))
        case inspect.ListType(item_type=item):
            return st.lists(_any(item), max_size=3)
        case inspect.StructType(cls=cls):
            return _struct(cls)
    raise AssertionError(f"no strategy for {info}: a bound is missing at the field, or the type is new here")
