"""Every state of each end against every kind of message, at the ends themselves and not at their tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from wire_samples import ALL_KINDS, NODE_KEY, NODE_KINDS, SERVER_KINDS, JoinPair, Pair, golden, snapshot, welcome

from wire.close import CloseCode, WireError
from wire.codec import encode
from wire.conversation import JoinEnd, NodeEnd, ServerEnd
from wire.messages import Challenge, Joined, Message, OsFacts, Part, Refused, Status, Welcome
from wire.states import JOIN, NODE, SERVER, JoinState, Kind, NodeState, ServerState, tag_of

SPOKEN_BY_NODE = {"status", "event", "report", "lease-request", "lease-return", "heartbeat"}
SPOKEN_BY_SERVER = {"welcome", "desired", "lease-grant", "lease-wait", "ack", "ask"}

# Written once more by hand, so that a slip in the tables shows.
SERVER_LEGAL = {
    "new": {"hello": "greeted", "join-hello": "join-greeted", "refused": "closed"},
    "greeted": {"challenge": "challenged", "refused": "closed"},
    "challenged": {"proof": "proved", "refused": "closed"},
    "proved": {"welcome": "open", "refused": "closed"},
    "join-greeted": {"challenge": "join-challenged", "refused": "closed"},
    "join-challenged": {"join": "join-proved", "refused": "closed"},
    "join-proved": {"joined": "closed", "refused": "closed"},
    "open": {**dict.fromkeys(SPOKEN_BY_NODE | SPOKEN_BY_SERVER | {"part"}, "open"), "refused": "closed"},
    "closed": {},
}
NODE_LEGAL = {
    "new": {"hello": "greeted", "refused": "closed"},
    "greeted": {"challenge": "proved", "refused": "closed"},
    "proved": {"welcome": "open", "refused": "closed"},
    "open": {**dict.fromkeys(SPOKEN_BY_NODE | SPOKEN_BY_SERVER | {"part"}, "open"), "refused": "closed"},
    "closed": {},
}
JOIN_LEGAL = {
    "new": {"join-hello": "greeted", "refused": "closed"},
    "greeted": {"challenge": "trusting", "refused": "closed"},
    "trusting": {"join": "joining", "refused": "closed"},
    "joining": {"joined": "closed", "refused": "closed"},
    "closed": {},
}


@pytest.mark.parametrize(
    ("table", "legal"), [(SERVER, SERVER_LEGAL), (NODE, NODE_LEGAL), (JOIN, JOIN_LEGAL)], ids=["s", "n", "j"]
)
def test_tables_say_what_is_meant(table: dict, legal: dict) -> None:  # type: ignore[type-arg]
    said = {str(state): {tag_of(kind): str(to) for kind, to in moves.items()} for state, moves in table.items()}
    assert said == legal


def server_at(state: ServerState) -> tuple[ServerEnd, str]:
    """A gateway's end in `state`, and the frame with which its real counterpart would go on."""
    pair, joining = Pair(), JoinPair()
    match state:
        case ServerState.NEW:
            return pair.server, pair.hello()
        case ServerState.GREETED:
            pair.server.receive(pair.hello())
        case ServerState.CHALLENGED:
            return pair.server, pair.proof()
        case ServerState.PROVED:
            pair.server.receive(pair.proof())
        case ServerState.JOIN_GREETED:
            joining.server.receive(joining.hello())
            return joining.server, ""
        case ServerState.JOIN_CHALLENGED:
            return joining.server, joining.join()
        case ServerState.JOIN_PROVED:
            joining.server.receive(joining.join())
            return joining.server, ""
        case ServerState.OPEN:
            pair.open()
        case ServerState.CLOSED:
            pair.open().server.refused(Refused(code="retired", text="Retired."))
    return pair.server, ""


def server_says(end: ServerEnd, message: Message) -> None:
    match message:
        case Challenge():
            end.challenge(NODE_KEY if end.state is not ServerState.JOIN_GREETED else None)
        case Welcome():
            end.welcome(message)
        case Joined():
            end.joined(message)
        case Refused():
            end.refused(message)
        case _:
            end.send(message)  # type: ignore[arg-type]


def legal_or_unchanged(end: ServerEnd | NodeEnd | JoinEnd, expected: str | None, move: Callable[[], object]) -> None:
    """`move` leads to `expected`, or raises OUT_OF_ORDER and changes nothing."""
    before = snapshot(end)
    if expected is not None:
        move()
        assert end.state == expected
        return
    with pytest.raises(WireError) as caught:
        move()
    assert caught.value.code is CloseCode.OUT_OF_ORDER
    assert snapshot(end) == before


@pytest.mark.parametrize("kind", ALL_KINDS, ids=tag_of)
@pytest.mark.parametrize("state", ServerState)
def test_server_end(state: ServerState, kind: Kind) -> None:
    expected = SERVER_LEGAL[state].get(tag_of(kind))
    if kind in NODE_KINDS:
        end, frame = server_at(state)
        assert end.state is state
        sent = frame if f'"type":"{tag_of(kind)}"' in frame else encode(golden(kind))[0]
        legal_or_unchanged(end, expected, lambda: end.receive(sent))
    if kind in SERVER_KINDS:
        end, _ = server_at(state)
        legal_or_unchanged(end, expected, lambda: server_says(end, golden(kind)))


def node_at(state: NodeState) -> tuple[NodeEnd, str]:
    """A node's end in `state`, and the frame with which its real counterpart would go on."""
    pair = Pair()
    match state:
        case NodeState.GREETED:
            return pair.node, pair.challenge()
        case NodeState.PROVED:
            pair.server.receive(pair.proof())
            return pair.node, pair.server.welcome(welcome())[0]
        case NodeState.OPEN:
            pair.open()
        case NodeState.CLOSED:
            pair.open().node.receive(encode(golden(Refused))[0])
    return pair.node, ""


@pytest.mark.parametrize("kind", ALL_KINDS, ids=tag_of)
@pytest.mark.parametrize("state", NodeState)
def test_node_end(state: NodeState, kind: Kind) -> None:
    tag = tag_of(kind)
    expected = NODE_LEGAL[state].get(tag)
    if kind in SERVER_KINDS:
        end, frame = node_at(state)
        assert end.state is state
        sent = frame if f'"type":"{tag}"' in frame else encode(golden(kind))[0]
        legal_or_unchanged(end, expected, lambda: end.receive(sent))
    if kind in NODE_KINDS and tag == "hello":
        end, _ = node_at(state)
        fields = {"agent_version": "1", "machine_id": "m", "hardware": "h", "boot_id": "b"}
        legal_or_unchanged(end, expected, lambda: end.hello(**fields))
    elif kind in NODE_KINDS:
        end, _ = node_at(state)
        legal_or_unchanged(end, expected, lambda: end.send(golden(kind)))  # type: ignore[arg-type]


def join_at(state: JoinState) -> tuple[JoinEnd, str]:
    """A joining node's end in `state`, and the frame with which its real counterpart would go on."""
    pair = JoinPair()
    match state:
        case JoinState.GREETED:
            return pair.node, pair.challenge()
        case JoinState.TRUSTING:
            pair.node.receive(pair.challenge())
        case JoinState.JOINING:
            pair.server.receive(pair.join())
            return pair.node, pair.server.joined(golden(Joined))[0]  # type: ignore[arg-type]
        case JoinState.CLOSED:
            pair.node.receive(encode(golden(Refused))[0])
    return pair.node, ""


@pytest.mark.parametrize("kind", ALL_KINDS, ids=tag_of)
@pytest.mark.parametrize("state", JoinState)
def test_join_end(state: JoinState, kind: Kind) -> None:
    tag = tag_of(kind)
    expected = JOIN_LEGAL[state].get(tag)
    if kind in SERVER_KINDS:
        end, frame = join_at(state)
        assert end.state is state
        sent = frame if f'"type":"{tag}"' in frame else encode(golden(kind))[0]
        legal_or_unchanged(end, expected, lambda: end.receive(sent))
    end, _ = join_at(state)
    if tag == "join-hello":
        legal_or_unchanged(end, expected, lambda: end.hello(agent_version="1"))
    if tag == "join":
        legal_or_unchanged(end, expected, lambda: end.join("t", "n", "m", "h", OsFacts(id="debian"), {}))


def test_a_message_between_parts_leaves_an_open_end_open() -> None:
    pair = Pair().open()
    pair.server.receive(encode(Part(index=0, count=2, text="{"))[0])
    with pytest.raises(WireError) as caught:
        pair.server.receive(encode(Status())[0])
    assert caught.value.code is CloseCode.OUT_OF_ORDER
    assert pair.server.state is ServerState.OPEN
