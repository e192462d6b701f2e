"""The conversation of a node that joins."""

from __future__ import annotations

import pytest
from wire_samples import (
    NODE_ID,
    NODE_KEY,
    OTHER_PRIVATE,
    SERVER_KEY,
    JoinPair,
    Pair,
)

from wire import identity
from wire.close import CloseCode, WireError
from wire.codec import encode
from wire.conversation import ServerEnd
from wire.messages import (
    MINOR,
    Join,
    Joined,
    JoinHello,
    OsFacts,
    Refused,
)
from wire.states import JoinState, ServerState

# --- a node that joins --------------------------------------------------------------------------------------


def test_the_whole_join() -> None:
    pair = JoinPair()
    assert isinstance(pair.server.receive(pair.hello()), JoinHello)
    assert pair.server.hello is None
    assert pair.server.node_id is None
    [challenge] = pair.server.challenge(None)
    assert pair.node.server_key == ""
    pair.node.receive(challenge)
    assert pair.node.server_key == SERVER_KEY
    join = pair.server.receive(pair.join_frame())
    assert isinstance(join, Join)
    assert (join.token, join.public_key, join.labels) == ("tj_5f2c9", NODE_KEY, {"site": "north"})
    joined = Joined(node_id=NODE_ID, admission="pending")
    [frame] = pair.server.joined(joined)
    assert pair.node.receive(frame) == (joined, [])
    assert (pair.server.state, pair.node.state) == (ServerState.CLOSED, JoinState.CLOSED)


def test_the_token_is_not_spent_before_the_server_is_proved() -> None:
    pair = JoinPair()
    for step in (lambda: None, pair.hello):
        step()
        with pytest.raises(WireError) as caught:
            pair.join_frame()
        assert caught.value.code is CloseCode.OUT_OF_ORDER


@pytest.mark.parametrize(
    ("claimed", "words"),
    [(identity.public_key(OTHER_PRIVATE), "the join command names"), (SERVER_KEY, "signature does not hold")],
)
def test_the_token_is_not_spent_at_another_server(claimed: str, words: str) -> None:
    pair = JoinPair(server=ServerEnd(OTHER_PRIVATE, "console.example"))
    challenge = pair.challenge().replace(identity.public_key(OTHER_PRIVATE), claimed)
    with pytest.raises(WireError, match=words) as caught:
        pair.node.receive(challenge)
    assert caught.value.code is CloseCode.BAD_PROOF
    assert pair.node.server_key == ""
    with pytest.raises(WireError) as caught:
        pair.join_frame()
    assert caught.value.code is CloseCode.OUT_OF_ORDER


def test_a_join_must_be_signed_by_the_key_in_it() -> None:
    pair = JoinPair()
    frame = pair.join().replace(NODE_KEY, identity.public_key(OTHER_PRIVATE))
    with pytest.raises(WireError) as caught:
        pair.server.receive(frame)
    assert caught.value.code is CloseCode.BAD_PROOF
    assert pair.server.state is ServerState.CLOSED


def test_a_recorded_join_spends_no_token_again() -> None:
    recorded = JoinPair()
    frame = recorded.join()
    recorded.server.receive(frame)
    later = JoinPair()
    later.challenge()
    with pytest.raises(WireError) as caught:
        later.server.receive(frame)
    assert caught.value.code is CloseCode.BAD_PROOF


def test_a_challenge_for_a_join_is_none_for_a_node() -> None:
    """The subject is signed too: who relays one conversation into another convinces nobody."""
    joining, pair = JoinPair(), Pair()
    hello = pair.hello()
    nonce = hello.split('"nonce":"')[1].split('"')[0]
    joining.server.receive(encode(JoinHello(nonce=nonce, minor=MINOR, agent_version="1"))[0])
    [challenge] = joining.server.challenge(None)
    with pytest.raises(WireError, match="signature does not hold"):
        pair.node.receive(challenge)


def test_a_refused_join() -> None:
    pair = JoinPair()
    pair.server.receive(pair.join())
    refused = Refused(code="token-expired", text="Expired.")
    [frame] = pair.server.refused(refused)
    assert pair.node.receive(frame) == (refused, [])
    assert pair.node.state is JoinState.CLOSED


def test_joining_needs_no_labels() -> None:
    pair = JoinPair()
    pair.node.receive(pair.challenge())
    [frame] = pair.node.join("t", "n", "", "", OsFacts(id="debian"), {})
    join = pair.server.receive(frame)
    assert isinstance(join, Join)
    assert join.labels == {}


def test_a_join_that_cannot_be_sent_can_be_tried_again() -> None:
    pair = JoinPair()
    pair.node.receive(pair.challenge())
    with pytest.raises(ValueError, match="surrogates"):
        pair.node.join("t", "\ud800", "", "", OsFacts(id="debian"), {})
    assert isinstance(pair.server.receive(pair.join_frame()), Join)
