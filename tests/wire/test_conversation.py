"""Both ends prove themselves, and nobody gets in, or gets a token, who does not."""

from __future__ import annotations

import msgspec
import pytest
from wire_samples import (
    NODE_ID,
    NODE_KEY,
    NODE_PRIVATE,
    OTHER_PRIVATE,
    SERVER_KEY,
    SERVER_PRIVATE,
    JoinPair,
    Pair,
    snapshot,
    welcome,
)

from wire import identity
from wire.close import CloseCode, WireError
from wire.conversation import JoinEnd, NodeEnd, ServerEnd
from wire.messages import (
    MINOR,
    Ask,
    Challenge,
    Heartbeat,
    Hello,
    Join,
    JoinHello,
    NextServerKey,
    Proof,
    Refused,
    Welcome,
)
from wire.states import NodeState, ServerState

# --- a node that has joined ---------------------------------------------------------------------------------


def test_the_whole_opening() -> None:
    pair = Pair()
    hello = pair.server.receive(pair.hello())
    assert isinstance(hello, Hello)
    assert pair.server.hello is hello
    assert pair.server.node_id == NODE_ID
    [challenge] = pair.server.challenge(NODE_KEY)
    seen, [proof] = pair.node.receive(challenge)
    assert isinstance(seen, Challenge)
    assert seen.server_name == "console.example"
    assert isinstance(pair.server.receive(proof), Proof)
    [frame] = pair.server.welcome(welcome())
    assert pair.node.receive(frame) == (welcome(), [])
    assert (pair.server.state, pair.node.state) == (ServerState.OPEN, NodeState.OPEN)
    [frame] = pair.node.send(Heartbeat())
    assert pair.server.receive(frame) == Heartbeat()
    [frame] = pair.server.send(Ask())
    assert pair.node.receive(frame) == (Ask(), [])


def test_a_node_with_another_key_is_refused_and_gets_no_second_try() -> None:
    pair = Pair(node=NodeEnd(NODE_ID, OTHER_PRIVATE, SERVER_KEY))
    proof = pair.proof()
    with pytest.raises(WireError) as caught:
        pair.server.receive(proof)
    assert caught.value.code is CloseCode.BAD_PROOF
    assert pair.server.state is ServerState.CLOSED
    with pytest.raises(WireError, match="out of order"):
        pair.server.receive(proof)


def test_a_recorded_proof_opens_no_other_connection() -> None:
    recorded = Pair()
    proof = recorded.proof()
    recorded.server.receive(proof)
    later = Pair()
    later.challenge()
    with pytest.raises(WireError) as caught:
        later.server.receive(proof)
    assert caught.value.code is CloseCode.BAD_PROOF


def test_a_recorded_challenge_convinces_no_later_connection() -> None:
    challenge = Pair().challenge()
    node = Pair().node
    node.hello(agent_version="1", machine_id="m", hardware="h", boot_id="b")
    with pytest.raises(WireError) as caught:
        node.receive(challenge)
    assert caught.value.code is CloseCode.BAD_PROOF
    assert node.state is NodeState.CLOSED


def test_a_replayed_hello_leads_nowhere() -> None:
    """Whoever repeats a recorded hello gets a new nonce, which the recorded proof does not sign."""
    recorded = Pair()
    hello = recorded.hello()
    recorded.server.receive(hello)
    [challenge] = recorded.server.challenge(NODE_KEY)
    _, [proof] = recorded.node.receive(challenge)
    server = ServerEnd(SERVER_PRIVATE, "console.example")
    server.receive(hello)
    server.challenge(NODE_KEY)
    with pytest.raises(WireError) as caught:
        server.receive(proof)
    assert caught.value.code is CloseCode.BAD_PROOF


def test_a_proof_for_one_node_is_none_for_another() -> None:
    pair = Pair(node=NodeEnd("nd_other", NODE_PRIVATE, SERVER_KEY))
    hello = pair.hello().replace("nd_other", NODE_ID)
    pair.server.receive(hello)
    [challenge] = pair.server.challenge(NODE_KEY)
    with pytest.raises(WireError, match="signature does not hold"):
        pair.node.receive(challenge)


def test_only_the_pinned_server_is_answered() -> None:
    pair = Pair(server=ServerEnd(OTHER_PRIVATE, "console.example"))
    challenge = pair.challenge()
    with pytest.raises(WireError, match="another key than the one pinned") as caught:
        pair.node.receive(challenge)
    assert caught.value.code is CloseCode.BAD_PROOF
    assert pair.node.state is NodeState.CLOSED


def test_a_server_that_only_names_the_pinned_key_is_not_answered() -> None:
    pair = Pair(server=ServerEnd(OTHER_PRIVATE, "console.example"))
    challenge = pair.challenge().replace(identity.public_key(OTHER_PRIVATE), SERVER_KEY)
    with pytest.raises(WireError, match="signature does not hold") as caught:
        pair.node.receive(challenge)
    assert caught.value.code is CloseCode.BAD_PROOF


def test_nonces_are_fresh() -> None:
    def nonce(frame: str) -> str:
        return frame.split('"nonce":"')[1].split('"')[0]

    nonces = [nonce(Pair().hello()) for _ in range(3)] + [nonce(Pair().challenge()) for _ in range(3)]
    nonces += [nonce(JoinPair().hello()), nonce(JoinPair().challenge())]
    assert len(set(nonces)) == len(nonces)


def test_an_unknown_node_is_refused_without_a_challenge() -> None:
    pair = Pair()
    pair.server.receive(pair.hello())
    [frame] = pair.server.refused(Refused(code="unknown-node", text="No such node."))
    message, answer = pair.node.receive(frame)
    assert message == Refused(code="unknown-node", text="No such node.")
    assert answer == []
    assert (pair.server.state, pair.node.state) == (ServerState.CLOSED, NodeState.CLOSED)


def test_the_key_must_fit_the_greeting() -> None:
    pair, joining = Pair(), JoinPair()
    pair.server.receive(pair.hello())
    joining.server.receive(joining.hello())
    with pytest.raises(ValueError, match="stored key"):
        pair.server.challenge(None)
    with pytest.raises(ValueError, match="stored key"):
        joining.server.challenge(NODE_KEY)
    assert pair.server.state is ServerState.GREETED


def test_a_stored_key_that_is_no_key_lets_nobody_in() -> None:
    for stored in ("", "not a key", NODE_KEY[:-2]):
        pair = Pair()
        pair.server.receive(pair.hello())
        [challenge] = pair.server.challenge(stored)
        _, [proof] = pair.node.receive(challenge)
        with pytest.raises(WireError) as caught:
            pair.server.receive(proof)
        assert caught.value.code is CloseCode.BAD_PROOF


def test_a_welcome_for_another_node_is_not_taken() -> None:
    pair = Pair()
    pair.server.receive(pair.proof())
    [frame] = pair.server.welcome(welcome())
    with pytest.raises(WireError, match="another node"):
        pair.node.receive(frame.replace(NODE_ID, "nd_other"))
    assert pair.node.state is NodeState.PROVED


def test_the_keys_are_forgotten_once_the_node_proved_itself() -> None:
    server = Pair().open().server
    held = snapshot(server)
    assert SERVER_PRIVATE not in held
    assert NODE_KEY not in held
    assert not hasattr(server, "__dict__")


@pytest.mark.parametrize(
    ("server_minor", "node_minor"), [(MINOR, MINOR), (MINOR + 2, MINOR), (MINOR, MINOR + 2), (MINOR, 0)]
)
def test_the_lower_minor_counts(server_minor: int, node_minor: int) -> None:
    lower = min(server_minor, node_minor)
    pair = Pair(
        server=ServerEnd(SERVER_PRIVATE, "s", minor=server_minor),
        node=NodeEnd(NODE_ID, NODE_PRIVATE, SERVER_KEY, minor=node_minor),
    )
    pair.server.receive(pair.proof())
    [frame] = pair.server.welcome(welcome())
    message, _ = pair.node.receive(frame)
    assert isinstance(message, Welcome)
    assert message.minor == pair.server.minor == pair.node.minor == lower
    joining = JoinPair(
        server=ServerEnd(SERVER_PRIVATE, "s", minor=server_minor),
        node=JoinEnd(NODE_PRIVATE, identity.fingerprint(SERVER_KEY), minor=node_minor),
    )
    assert isinstance(joining.server.receive(joining.join()), Join)
    assert joining.server.minor == joining.node.minor == lower


# --- the key that takes the place of the pinned one ---------------------------------------------------------

NEXT_KEY = identity.public_key(identity.encode(bytes([5]) * 32))


def test_greetings_name_the_pinned_key() -> None:
    pair, joining = Pair(), JoinPair()
    for greeting in (pair.server.receive(pair.hello()), joining.server.receive(joining.hello())):
        assert isinstance(greeting, Hello | JoinHello)
        assert greeting.server_fingerprint == identity.fingerprint(SERVER_KEY)


def test_the_server_proves_itself_with_the_key_that_is_pinned() -> None:
    pair = Pair(server=ServerEnd(OTHER_PRIVATE, "console.example"))
    pair.server.receive(pair.hello())
    [challenge] = pair.server.challenge(NODE_KEY, SERVER_PRIVATE)
    _, [proof] = pair.node.receive(challenge)
    assert isinstance(pair.server.receive(proof), Proof)


def test_the_pinned_key_names_the_next_one() -> None:
    pair = Pair().open()
    following = pair.server.next_server_key(SERVER_PRIVATE, NEXT_KEY)
    assert pair.node.is_named(following)
    message, _ = pair.node.receive(
        pair.server.welcome(msgspec.structs.replace(welcome(), next_server_key=following))[0]
    )
    assert isinstance(message, Welcome)
    assert message.next_server_key == following


def test_nobody_else_names_the_next_key() -> None:
    pair = Pair().open()
    following = pair.server.next_server_key(SERVER_PRIVATE, NEXT_KEY)
    other_key = identity.public_key(OTHER_PRIVATE)
    wrong = [
        msgspec.structs.replace(following, key=other_key),
        pair.server.next_server_key(OTHER_PRIVATE, NEXT_KEY),
        pair.server.next_server_key(OTHER_PRIVATE, other_key),
        Pair().open().server.next_server_key(SERVER_PRIVATE, NEXT_KEY),  # of another conversation
        NextServerKey(key=NEXT_KEY, signature=pair.server.next_server_key(SERVER_PRIVATE, other_key).signature),
        NextServerKey(key=NEXT_KEY, signature="A" * 86),
    ]
    assert [pair.node.is_named(each) for each in wrong] == [False] * len(wrong)
    with pytest.raises(WireError, match="no key is named while new"):
        Pair().server.next_server_key(SERVER_PRIVATE, NEXT_KEY)
    assert not Pair().node.is_named(following), "nothing is named before the server has proved itself"


def test_no_other_signature_of_the_server_names_a_key() -> None:
    """The purpose is signed too: what the server signs in a challenge is no next key, whatever its nonces are."""
    pair = Pair()
    challenge, _ = pair.node.receive(pair.challenge())
    assert isinstance(challenge, Challenge)
    assert not pair.node.is_named(NextServerKey(key=NEXT_KEY, signature=challenge.signature))
