"""An open conversation: parts, order, and what a node sends is made to fit."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import UNSET
from wire_samples import (
    SERVER_PRIVATE,
    Pair,
    golden,
    snapshot,
    welcome,
)

from wire.close import CloseCode, WireError
from wire.codec import encode
from wire.conversation import ServerEnd
from wire.messages import (
    Activity,
    AgentFacts,
    Ask,
    Boot,
    Check,
    CheckState,
    Container,
    Facts,
    Health,
    HealthState,
    Heartbeat,
    LeaseRequest,
    NodeEvent,
    OperationReport,
    OsFacts,
    Outcome,
    Part,
    Placement,
    Result,
    Status,
    Welcome,
)
from wire.states import NodeState, ServerState

BIG = Status(
    whole=True,
    placement=Placement(
        known=True,
        containers=[Container(id=str(n), name="n" * 200, image="i", service="s") for n in range(5000)],
    ),
)


# --- an open connection -------------------------------------------------------------------------------------


def test_parts_reach_the_other_end_as_one_message() -> None:
    pair = Pair().open()
    frames = pair.node.send(BIG)
    assert len(frames) > 2
    assert [pair.server.receive(frame) for frame in frames] == [None] * (len(frames) - 1) + [BIG]
    assert pair.server._assembler is None
    text = encode(welcome())[0]
    for index, char in enumerate(text):
        part = Part(index=index, count=len(text), text=char)
        answer = pair.node.receive(encode(part)[0])
    assert answer == (welcome(), [])


def test_no_parts_before_the_welcome() -> None:
    """Nobody may make us hold megabytes who has not proved who he is."""
    server = ServerEnd(SERVER_PRIVATE, "s")
    with pytest.raises(WireError) as caught:
        server.receive(encode(Part(index=0, count=2, text="x"))[0])
    assert caught.value.code is CloseCode.OUT_OF_ORDER


def test_parts_hide_no_message_that_is_out_of_order() -> None:
    pair = Pair().open()
    hello = Pair().hello()
    middle = len(hello) // 2
    assert pair.server.receive(encode(Part(index=0, count=2, text=hello[:middle]))[0]) is None
    with pytest.raises(WireError, match="hello while open") as caught:
        pair.server.receive(encode(Part(index=1, count=2, text=hello[middle:]))[0])
    assert caught.value.code is CloseCode.OUT_OF_ORDER


def test_nothing_else_between_parts() -> None:
    pair = Pair().open()
    for end in (pair.server, pair.node):
        end.receive(encode(Part(index=0, count=2, text="x"))[0])
        with pytest.raises(WireError) as caught:
            end.receive(encode(Heartbeat() if end is pair.server else Ask())[0])
        assert caught.value.code is CloseCode.OUT_OF_ORDER


def test_a_malformed_frame_changes_nothing() -> None:
    pair = Pair().open()
    for end in (pair.server, pair.node):
        before = snapshot(end)
        with pytest.raises(WireError) as caught:
            end.receive("{}")
        assert caught.value.code is CloseCode.MALFORMED
        assert snapshot(end) == before


def test_a_message_that_cannot_be_sent_does_not_open_the_conversation() -> None:
    pair = Pair()
    pair.server.receive(pair.proof())
    with pytest.raises(ValueError, match="surrogates"):
        pair.server.welcome(msgspec.structs.replace(welcome(), name="\ud800"))
    assert pair.server.state is ServerState.PROVED


def test_a_second_welcome_tells_what_changed() -> None:
    pair = Pair().open()
    [frame] = pair.server.welcome(welcome())
    message, _ = pair.node.receive(frame)
    assert isinstance(message, Welcome)
    assert pair.node.state is NodeState.OPEN


# --- what a node sends is made to fit -----------------------------------------------------------------------


def test_foreign_texts_do_not_keep_a_node_away() -> None:
    pair = Pair().open()
    check = Check(name="c\0", state=CheckState.FAILED, output="x" * 20_000, text="\ud800 broken")
    message = Status(
        facts=Facts(agent=AgentFacts(version="1"), os=OsFacts(id="o", name="n" * 300), boot=Boot(id="b", at=1.0)),
        health=Health(state=HealthState.UNHEALTHY, reasons=["r" * 5000], checks=[check]),
        placement=Placement(
            known=True, containers=[Container(id="c", name="n", image="i", service="s" * 1000, scope="as it is")]
        ),
        activity=Activity(outcome=Outcome(result=Result.REFUSED, operation_id="o", at=1.0, reason="z" * 5000)),
    )
    [frame] = pair.node.send(message)
    seen = pair.server.receive(frame)
    assert isinstance(seen, Status)
    assert seen.slots is UNSET
    assert isinstance(seen.facts, Facts)
    assert seen.facts.os.name == "n" * 255 + "…"
    assert isinstance(seen.health, Health)
    assert seen.health.reasons == ["r" * 4095 + "…"]
    assert (seen.health.checks[0].name, seen.health.checks[0].text) == ("c", "? broken")
    assert len(seen.health.checks[0].output) == 8192
    assert isinstance(seen.placement, Placement)
    assert (seen.placement.containers[0].service, seen.placement.containers[0].scope) == (
        "s" * 255 + "…",
        "as it is",
    )


def test_what_fits_is_sent_as_it_is() -> None:
    for kind in (NodeEvent, OperationReport, Status):
        message = golden(kind)
        assert Pair().open().node.send(message) == encode(message)  # type: ignore[arg-type]


def test_ids_are_never_cut() -> None:
    pair = Pair().open()
    [frame] = pair.node.send(LeaseRequest(operation_id="o" * 200, nonce="n"))
    with pytest.raises(WireError, match="operation_id"):
        pair.server.receive(frame)
