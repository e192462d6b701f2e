"""Frames: everything valid survives the way there and back, everything else is a WireError."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_samples import ALL_KINDS, NODE_KINDS, SERVER_KINDS, golden, golden_text, messages_of

from wire.close import CloseCode, WireError
from wire.codec import Assembler, decode_from_node, decode_from_server, encode
from wire.limits import CONTAINERS, NAME_CHARS, OUTPUT_CHARS, SLOTS, cut
from wire.messages import (
    MAX_FRAME_BYTES,
    MAX_PARTS,
    MAX_WHOLE_BYTES,
    Ack,
    Container,
    Heartbeat,
    NodeEvent,
    Part,
    Placement,
    Slot,
    Status,
)
from wire.states import Kind, tag_of

few = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


def refused(frame: str | bytes, decode: Any = decode_from_node) -> WireError:
    with pytest.raises(WireError) as caught:
        decode(frame)
    assert len(caught.value.detail.encode()) <= 123
    assert caught.value.detail.isascii() and caught.value.detail.isprintable()
    return caught.value


# --- round trip ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL_KINDS, ids=tag_of)
@few
@given(data=st.data())
def test_every_message_survives_the_wire(kind: Kind, data: st.DataObject) -> None:
    message = data.draw(messages_of(kind))
    [frame] = encode(message)
    for decode, kinds in ((decode_from_node, NODE_KINDS), (decode_from_server, SERVER_KINDS)):
        if kind in kinds:
            assert decode(frame) == message
            assert decode(frame.encode()) == message


def status_of(names: list[str]) -> Status:
    containers = [Container(id=str(number), name=name, image="i", service="s") for number, name in enumerate(names)]
    return Status(whole=True, placement=Placement(known=True, containers=containers))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    alphabet=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=4),
    count=st.integers(1, 8000),
)
def test_large_messages_travel_in_parts(alphabet: str, count: int) -> None:
    message = status_of([(alphabet * NAME_CHARS)[:200]] * count)
    frames = encode(message)
    assert all(len(frame.encode()) <= MAX_FRAME_BYTES for frame in frames)
    assembler = Assembler(decode_from_node)
    fed = [assembler.feed(decode_from_node(frame)) for frame in frames]
    assert fed == [None] * (len(frames) - 1) + [message]
    assert not assembler.waiting


@pytest.mark.parametrize("character", ["a", "é", "語", "😀", '"', "\\", "\n", "\x1f", "\x7f", "\u2028"])
def test_no_frame_is_too_long_whatever_the_characters(character: str) -> None:
    message = status_of([character * NAME_CHARS] * 1100)
    frames = encode(message)
    assert len(frames) > 1
    assert max(len(frame.encode()) for frame in frames) <= MAX_FRAME_BYTES
    assembler = Assembler(decode_from_node)
    assert [assembler.feed(decode_from_node(frame)) for frame in frames][-1] == message


def test_the_longest_single_frame_and_the_first_in_parts() -> None:
    room = MAX_FRAME_BYTES - len(encode(Part(index=0, count=1, text="x"))[0]) + 1
    assert len(encode(Part(index=0, count=1, text="x" * room))) == 1
    assert len(encode(Part(index=0, count=1, text="x" * (room + 1)))) == 2


def test_encode_refuses_what_no_other_end_accepts() -> None:
    with pytest.raises(WireError) as caught:
        encode(status_of(["\\" * NAME_CHARS] * CONTAINERS))
    assert caught.value.code is CloseCode.TOO_BIG
    with pytest.raises(ValueError, match="surrogates"):
        encode(status_of(["\ud800"]))


# --- what is refused ----------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(frame=st.one_of(st.binary(max_size=300), st.text(max_size=300)))
def test_arbitrary_frames_raise_nothing_but_wire_errors(frame: str | bytes) -> None:
    for decode in (decode_from_node, decode_from_server):
        refused(frame, decode)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    target = value
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = new
    return value


@pytest.mark.parametrize("kind", ALL_KINDS, ids=tag_of)
@few
@given(data=st.data())
def test_what_passes_with_a_foreign_value_in_it_can_be_sent_on(kind: Kind, data: st.DataObject) -> None:
    value = json.loads(golden_text(kind))
    path = data.draw(st.sampled_from(places(value)))
    frame = json.dumps(put(value, path, data.draw(_json)))
    decode = decode_from_node if kind in NODE_KINDS else decode_from_server
    try:
        message = decode(frame)
    except WireError as error:
        assert error.code is CloseCode.MALFORMED
    else:
        assert "\0" not in "".join(frames := encode(message))
        assert decode(frames[0]) == message


@pytest.mark.parametrize(
    ("frame", "detail"),
    [
        ("", "truncated"),
        ("null", "Expected `object`"),
        ("{}", "required field `type`"),
        ('{"type":"heartbeat"', "truncated"),
        ('{"type":"heartbeat"}x', "trailing characters"),
        ('{"type":"never\\nheard"}', "Invalid value 'never?heard' - at `$.type`"),
        (b"\xff\xfe{}", "malformed"),
        (b'{"type":"event","text":"\xff"}', "utf-8"),
        ("\ud800", "surrogates"),
        ('{"type":"heartbeat","new":' + "[" * 90_000 + "]" * 90_000 + "}", "recursion"),
        ('{"type":"lease-request","operation_id":"o","nonce":5}', "Expected `str`, got `int` - at `$.nonce`"),
        ('{"type":"event","seq":1,"at":1e999,"kind":"k","text":""}', "at `$.at`"),
        ('{"type":"event","seq":1,"at":NaN,"kind":"k","text":""}', "malformed"),
        ('{"type":"event","seq":1,"at":1,"kind":"k","text":"a\\u0000b"}', "NUL"),
        ('{"type":"event","seq":1,"at":1,"kind":"k","text":"a\\\\\\u0000b"}', "NUL"),
        ('{"type":"part","index":2,"count":2,"text":"x"}', "part 2 of 2 - at `$.index`"),
    ],
)
def test_malformed(frame: str | bytes, detail: str) -> None:
    error = refused(frame)
    assert error.code is CloseCode.MALFORMED
    assert detail in error.detail


def test_a_written_out_escape_is_not_a_nul() -> None:
    message = NodeEvent(seq=1, at=1.0, kind="k", text="printed \\u0000 and \\\\u0000")
    assert decode_from_node(encode(message)[0]) == message


@pytest.mark.parametrize("kind", ALL_KINDS, ids=tag_of)
def test_each_end_takes_only_what_the_other_may_say(kind: Kind) -> None:
    if kind not in NODE_KINDS:
        assert refused(golden_text(kind), decode_from_node).code is CloseCode.MALFORMED
    if kind not in SERVER_KINDS:
        assert refused(golden_text(kind), decode_from_server).code is CloseCode.MALFORMED


@pytest.mark.parametrize("filler", ["x", "é"])
def test_frames_over_the_limit_are_not_even_read(filler: str) -> None:
    head, tail = '{"type":"heartbeat","new":"', '"}'
    fill = filler * ((MAX_FRAME_BYTES - len(head) - len(tail)) // len(filler.encode()))
    frame = head + fill + tail
    frame += " " * (MAX_FRAME_BYTES - len(frame.encode()))
    assert decode_from_node(frame) == Heartbeat()
    assert decode_from_node(frame.encode()) == Heartbeat()
    assert refused(frame + " ").code is CloseCode.TOO_BIG
    assert refused(frame.encode() + b"\xff").code is CloseCode.TOO_BIG


_slot = {"name": "a", "booted": True, "next_boot": True}
_container = {"id": "c", "name": "n", "image": "i", "service": "s"}


@pytest.mark.parametrize(
    ("kind", "path", "value", "named"),
    [
        ("hello", ["node_id"], "", "node_id"),
        ("hello", ["node_id"], "n" * 129, "node_id"),
        ("hello", ["node_id"], "two words", "node_id"),
        ("hello", ["node_id"], "line\nbreak", "node_id"),
        ("hello", ["node_id"], "break\n", "node_id"),
        ("hello", ["nonce"], "AAAA", "nonce"),
        ("hello", ["nonce"], "A" * 42 + "\n", "nonce"),
        ("hello", ["nonce"], "A" * 42 + "B", "nonce"),
        ("hello", ["minor"], -1, "minor"),
        ("hello", ["machine_id"], "x" * 257, "machine_id"),
        ("proof", ["signature"], "A" * 85 + "B", "signature"),
        ("join", ["public_key"], "A" * 44, "public_key"),
        ("join", ["token"], "", "token"),
        ("join", ["labels"], {"a b": ""}, "labels"),
        ("join", ["labels"], {"a": "x" * 257}, "labels"),
        ("join", ["labels"], {f"k{n}": "" for n in range(65)}, "labels"),
        ("join", ["os", "arch"], "x" * 257, "os.arch"),
        ("status", ["slots"], [{**_slot, "name": str(n)} for n in range(SLOTS + 1)], "slots"),
        ("status", ["slots"], [_slot, _slot], "slots"),
        ("status", ["slots", 0, "digest"], "sha256:" + "A" * 64, "slots[0].digest"),
        ("status", ["slots", 0, "digest"], "sha256:" + "a" * 63, "slots[0].digest"),
        ("status", ["slots", 0, "digest"], "a" * 64, "slots[0].digest"),
        ("status", ["slots", 0, "tries_left"], -1, "slots[0].tries_left"),
        ("status", ["health", "state"], "splendid", "health.state"),
        ("status", ["health", "checks", 0, "output"], "x" * (OUTPUT_CHARS + 1), "checks[0].output"),
        ("status", ["health", "reasons"], [""] * 65, "health.reasons"),
        ("status", ["placement", "containers"], [_container, _container], "placement.containers"),
        ("status", ["activity", "progress"], 1.5, "activity.progress"),
        ("status", ["activity", "order", "generation"], 2**53, "generation"),
        ("status", ["facts", "boot", "at"], 253_402_300_800, "facts.boot.at"),
        ("event", ["seq"], -1, "seq"),
        ("event", ["kind"], "", "kind"),
        ("event", ["text"], "x" * 4097, "text"),
        ("report", ["result"], "fine", "result"),
        ("report", ["at"], -1e12, "at"),
        ("lease-return", ["lease_id"], "", "lease_id"),
        ("part", ["count"], MAX_PARTS + 1, "count"),
        ("part", ["count"], 0, "count"),
        ("part", ["index"], -1, "index"),
        ("part", ["text"], "", "text"),
    ],
)
def test_a_value_beyond_its_limit_is_named(kind: str, path: list[Any], value: object, named: str) -> None:
    [cls] = [each for each in NODE_KINDS if tag_of(each) == kind]
    error = refused(json.dumps(put(json.loads(golden_text(cls)), tuple(path), value)))
    assert error.code is CloseCode.MALFORMED
    assert named in error.detail


def test_a_node_may_have_no_slot_and_as_many_as_the_limit() -> None:
    for count in (0, SLOTS):
        slots = [Slot(name=f"s{n}", booted=n == 0, next_boot=n == 0) for n in range(count)]
        assert decode_from_node(encode(Status(slots=slots))[0]) == Status(slots=slots)


def test_too_many_containers() -> None:
    [*frames] = encode(status_of(["n"] * (CONTAINERS + 1)))
    assembler = Assembler(decode_from_node)
    for frame in frames[:-1]:
        assembler.feed(decode_from_node(frame))
    with pytest.raises(WireError, match=r"placement\.containers"):
        assembler.feed(decode_from_node(frames[-1]))


@given(st.text(st.characters(), max_size=60), st.integers(2, 40))
def test_cut_text_always_passes(text: str, chars: int) -> None:
    made = cut(text, chars)
    assert len(made) <= chars
    message = NodeEvent(seq=1, at=1.0, kind="k", text=made)
    assert decode_from_node(encode(message)[0]) == message


def test_cut_leaves_short_text_alone() -> None:
    assert cut("as it is", 8) == "as it is"
    assert cut("too long.", 8) == "too lon…"


# --- parts --------------------------------------------------------------------------------------------------


def part(index: int, count: int, text: str = "x") -> Part:
    return Part(index=index, count=count, text=text)


@pytest.mark.parametrize(
    "messages",
    [
        [part(1, 2)],
        [part(0, 3), part(0, 3)],
        [part(0, 3), part(2, 3)],
        [part(0, 3), part(1, 4)],
        [part(0, 2), Heartbeat()],
        [part(0, 2), part(0, 2), part(1, 2)],
        [part(0, 1, '{"type":"part","index":0,"count":1,"text":"x"}')],
    ],
)
def test_parts_out_of_order(messages: list[Any]) -> None:
    assembler = Assembler(decode_from_node)
    with pytest.raises(WireError) as caught:
        for message in messages:
            assembler.feed(message)
    assert caught.value.code is CloseCode.OUT_OF_ORDER
    assert not assembler.waiting
    assert assembler.feed(part(0, 1, '{"type":"heartbeat"}')) == Heartbeat()


def test_parts_are_bounded() -> None:
    assembler = Assembler(decode_from_node)
    piece = "é" * 120_000
    with pytest.raises(WireError) as caught:
        for index in range(MAX_PARTS):
            assembler.feed(part(index, MAX_PARTS, piece))
    assert caught.value.code is CloseCode.TOO_BIG
    assert index == MAX_WHOLE_BYTES // len(piece.encode())
    assert not assembler.waiting


def test_a_malformed_whole() -> None:
    assembler = Assembler(decode_from_server)
    assembler.feed(part(0, 2, '{"type":"ack",'))
    with pytest.raises(WireError) as caught:
        assembler.feed(part(1, 2, '"seq":-1}'))
    assert caught.value.code is CloseCode.MALFORMED
    assert assembler.feed(Ack(seq=1)) == Ack(seq=1)


@pytest.mark.parametrize("kind", [kind for kind in NODE_KINDS if kind is not Part], ids=tag_of)
def test_parts_may_be_as_small_as_one_character(kind: Kind) -> None:
    [text] = encode(golden(kind))
    assembler = Assembler(decode_from_node)
    fed = [assembler.feed(part(at, len(text), char)) for at, char in enumerate(text)]
    assert fed == [None] * (len(text) - 1) + [golden(kind)]
