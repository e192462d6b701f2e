"""The golden files: the contract as it was given out. A change that breaks one breaks agents in the field.

A new message or field gets its place in the golden file by hand; what is there is never changed or removed.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import inspect
from wire_samples import (
    ALL_KINDS,
    GOLDEN,
    NODE_ID,
    NODE_KINDS,
    SERVER_KINDS,
    golden,
    golden_set,
    golden_text,
    transcript,
)

from wire import identity
from wire.codec import decode_from_node, decode_from_server, encode
from wire.conversation import JoinEnd, NodeEnd, ServerEnd
from wire.messages import Challenge, Join, Joined, Proof, Status, Welcome
from wire.states import Kind, NodeState, ServerState, tag_of


def test_there_is_one_for_every_message() -> None:
    others = {"set-newer", "set-older", "transcript-hello", "transcript-join"}
    assert {path.stem for path in GOLDEN.glob("*.json")} == {tag_of(kind) for kind in ALL_KINDS} | others


@pytest.mark.parametrize("kind", ALL_KINDS, ids=tag_of)
def test_decoded_and_encoded_again_it_is_the_same(kind: Kind) -> None:
    message = golden(kind)
    assert type(message) is kind
    [frame] = encode(message)
    assert msgspec.json.format(frame, indent=2) + "\n" == golden_text(kind)


def unused(info: inspect.Type, value: Any, path: str) -> list[str]:
    """Paths of fields that the golden value leaves out, anywhere inside it."""
    match info:
        case inspect.StructType(fields=fields):
            missing = [f"{path}.{each.name}" for each in fields if each.encode_name not in value]
            there = [each for each in fields if each.encode_name in value]
            return missing + [
                p for each in there for p in unused(each.type, value[each.encode_name], f"{path}.{each.name}")
            ]
        case inspect.ListType(item_type=item):
            return unused(item, value[0], f"{path}[0]")
        case inspect.UnionType(types=types):
            inner = inspect.StructType if isinstance(value, dict) else inspect.ListType
            return [p for each in types if isinstance(each, inner) for p in unused(each, value, path)]
    return []


@pytest.mark.parametrize("kind", ALL_KINDS, ids=tag_of)
def test_it_shows_every_field(kind: Kind) -> None:
    assert unused(inspect.type_info(kind), json.loads(golden_text(kind)), tag_of(kind)) == []


@pytest.mark.parametrize("name", ["set-newer", "set-older"])
def test_a_set_has_every_message(name: str) -> None:
    tags = [json.loads(each["frame"])["type"] for each in golden_set(name)]
    assert tags == [tag_of(kind) for kind in ALL_KINDS]


def without_minor(message: Any) -> Any:
    return msgspec.structs.replace(message, minor=0) if hasattr(message, "minor") else message


@pytest.mark.parametrize("each", golden_set("set-newer"), ids=lambda each: json.loads(each["frame"])["type"])
def test_what_a_newer_end_adds_is_ignored(each: dict[str, str]) -> None:
    decode = decode_from_node if each["from"] == "node" else decode_from_server
    assert each["frame"].count("unheard_of") >= 1
    message = decode(each["frame"])
    assert without_minor(message) == without_minor(golden(type(message)))


@pytest.mark.parametrize("each", golden_set("set-older"), ids=lambda each: json.loads(each["frame"])["type"])
def test_an_older_end_is_understood(each: dict[str, str]) -> None:
    """The frames hold what the first minor demanded; a field that is added later must have a default."""
    decode = decode_from_node if each["from"] == "node" else decode_from_server
    message = decode(each["frame"])
    assert decode(encode(message)[0]) == message


# --- transcripts: fixed keys and nonces give the same bytes at any implementation ---------------------------


def server_end(script: dict[str, Any]) -> ServerEnd:
    """The transcripts were given out with the first minor that knew all of their fields: 1."""
    key, nonce = script["server_private_key"], script["server_nonce"]
    return ServerEnd(key, "console.example", minor=1, new_nonce=lambda: nonce)


def test_the_transcript_of_a_hello() -> None:
    script = transcript("hello")
    frames = [each["frame"] for each in script["frames"]]
    assert [each["from"] for each in script["frames"]] == [*["node", "server"] * 3, "server"]
    server = server_end(script)
    node = NodeEnd(
        NODE_ID, script["node_private_key"], script["server_key"], minor=1, new_nonce=lambda: script["node_nonce"]
    )
    hello = json.loads(frames[0])
    told = {name: hello[name] for name in ("agent_version", "machine_id", "hardware", "boot_id")}
    assert node.hello(**told) == frames[:1]
    server.receive(frames[0])
    assert server.challenge(script["node_key"]) == frames[1:2]
    assert node.receive(frames[1])[1] == frames[2:3]
    server.receive(frames[2])
    welcome = decode_from_server(frames[3])
    assert isinstance(welcome, Welcome)
    assert server.welcome(welcome) == frames[3:4]
    node.receive(frames[3])
    assert isinstance(server.receive(frames[4]), Status)
    node.receive(frames[5])
    again, _ = node.receive(frames[6])
    assert isinstance(again, Welcome)
    assert again.next_server_key is not None
    assert node.is_named(again.next_server_key)
    assert server.next_server_key(script["server_private_key"], script["next_server_key"]) == again.next_server_key
    assert server.welcome(again) == frames[6:]
    assert (server.state, node.state) == (ServerState.OPEN, NodeState.OPEN)


def test_the_transcript_of_a_join() -> None:
    script = transcript("join")
    frames = [each["frame"] for each in script["frames"]]
    server = server_end(script)
    node = JoinEnd(script["node_private_key"], script["fingerprint"], minor=1, new_nonce=lambda: script["node_nonce"])
    assert node.hello(agent_version="0.1.0") == frames[:1]
    server.receive(frames[0])
    assert server.challenge(None) == frames[1:2]
    node.receive(frames[1])
    join = server.receive(frames[2])
    assert isinstance(join, Join)
    assert node.join(join.token, join.name, join.machine_id, join.hardware, join.os, join.labels) == frames[2:3]
    joined, _ = node.receive(frames[3])
    assert isinstance(joined, Joined)
    assert server.joined(joined) == frames[3:4]


@pytest.mark.parametrize("name", ["hello", "join"])
def test_the_signed_bytes_are_those_in_the_transcript(name: str) -> None:
    script = transcript(name)
    challenge = decode_from_server(script["frames"][1]["frame"])
    proof = decode_from_node(script["frames"][2]["frame"])
    assert isinstance(challenge, Challenge)
    assert isinstance(proof, Proof | Join)
    assert identity.public_key(script["server_private_key"]) == script["server_key"] == challenge.server_key
    assert identity.public_key(script["node_private_key"]) == script["node_key"]
    by_server, by_node = script["signed_by_server"].encode(), script["signed_by_node"].encode()
    assert identity.verify(script["server_key"], challenge.signature, by_server)
    assert identity.verify(script["node_key"], proof.signature, by_node)
    assert not identity.verify(script["node_key"], proof.signature, by_node + b"\n")
    assert not identity.verify(script["server_key"], challenge.signature, by_node)


def test_the_next_key_is_signed_by_the_old_one_over_the_bytes_in_the_transcript() -> None:
    script = transcript("hello")
    welcome = decode_from_server(script["frames"][-1]["frame"])
    assert isinstance(welcome, Welcome)
    assert welcome.next_server_key is not None
    assert identity.public_key(script["next_server_private_key"]) == welcome.next_server_key.key
    signed = script["next_key_signed_by_server"].encode()
    assert identity.verify(script["server_key"], welcome.next_server_key.signature, signed)


def test_the_kinds_of_both_directions_share_only_parts() -> None:
    assert {tag_of(kind) for kind in set(NODE_KINDS) & set(SERVER_KINDS)} == {"part"}
