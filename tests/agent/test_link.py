"""The link against a gateway on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from agent.link import Link, LinkState, pause
from agent.phases.inputs import LinkLost, Welcomed
from agent.picture import Picture, changed
from agent.pinning import ServerKeyNamed
from agent.state import Identity
from tests.agent.gateway import Gateway, running, until
from wire import identity
from wire.close import CloseCode
from wire.messages import (
    Ack,
    Activity,
    AgentFacts,
    Ask,
    Boot,
    Container,
    Desired,
    Facts,
    Health,
    HealthState,
    Heartbeat,
    LeaseRequest,
    NodeEvent,
    OperationReport,
    Order,
    OsFacts,
    Placement,
    Result,
    Slot,
    Status,
    Trial,
)


def picture(**changes: Any) -> Picture:
    fields: dict[str, Any] = {
        "facts": Facts(agent=AgentFacts(version="1"), os=OsFacts(id="demo"), boot=Boot(id="b", at=1.0)),
        "slots": [Slot(name="a", booted=True, next_boot=True)],
        "activity": Activity(),
        "health": Health(state=HealthState.HEALTHY),
        "placement": Placement(known=True),
        **changes,
    }
    return Picture(**fields)


class Node:
    """A link with a picture that tests repaint."""

    def __init__(self, known: Identity, chance: Callable[[], float] = lambda: 1.0) -> None:
        self.picture = picture()
        self.heard: list[Any] = []
        self.room = asyncio.Event()
        self.room.set()
        self.link = Link(
            known,
            agent_version="1",
            boot_id="boot-1",
            picture=lambda: self.picture,
            heard=self.heard.append,
            room=self._room,
            chance=chance,
            coalesce_s=0.02,
            backoff_first_s=0.01,
            come_back_s=0.05,
        )

    async def _room(self) -> None:
        await self.room.wait()

    def show(self, **changes: Any) -> None:
        self.picture = msgspec.structs.replace(self.picture, **changes)
        self.link.nudge()


@asynccontextmanager
async def linked(gateway: Gateway, known: Identity | None = None) -> AsyncIterator[Node]:
    node = Node(known or gateway.identity())
    task = asyncio.create_task(node.link.run())
    try:
        yield node
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def play(story: Callable[[Gateway], Coroutine[Any, Any, None]]) -> None:
    """Run a story with a gateway."""

    async def whole() -> None:
        async with running() as gateway:
            await story(gateway)

    asyncio.run(whole())


def event(seq: int) -> NodeEvent:
    return NodeEvent(seq=seq, at=1.0, kind="boot", text="…")


def test_after_the_welcome_the_whole_status_then_only_what_changed() -> None:
    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            await until(lambda: gateway.got(Status))
            first = gateway.got(Status)[0]
            assert first.whole and first.placement is not UNSET and first.health is not UNSET
            assert Welcomed() in node.heard and node.link.standing.state is LinkState.OPEN
            assert gateway.hellos[0].boot_id == "boot-1"
            node.show(placement=Placement(known=False, reason="hangs"))
            second = (await until(lambda: gateway.got(Status)[1:]))[0]
            assert not second.whole and second.facts is UNSET and second.slots is UNSET
            assert second.placement == Placement(known=False, reason="hangs")

    play(story)


def test_a_burst_of_changes_is_one_message() -> None:
    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            await until(lambda: gateway.got(Status))
            for number in range(50):
                node.show(placement=Placement(known=True, engine=str(number)))
            await until(lambda: gateway.got(Status)[-1].placement == Placement(known=True, engine="49"))
            assert len(gateway.got(Status)) <= 3

    play(story)


def test_ask_brings_a_whole_status() -> None:
    async def story(gateway: Gateway) -> None:
        async with linked(gateway):
            await until(lambda: gateway.got(Status))
            await gateway.say(Ask())
            await until(lambda: len([status for status in gateway.got(Status) if status.whole]) == 2)

    play(story)


def test_a_state_larger_than_a_frame_arrives() -> None:
    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            await until(lambda: gateway.got(Status))
            containers = [
                Container(id=f"{number:064d}", name=f"c{number}" * 5, image="i" * 60, service="s")
                for number in range(3000)
            ]
            node.show(placement=Placement(known=True, containers=containers))
            status = (await until(lambda: gateway.got(Status)[1:]))[0]
            assert len(status.placement.containers) == 3000

    play(story)


def test_the_outbox_is_repeated_until_acknowledged() -> None:
    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            node.show(outbox=[event(1), event(2)])
            await until(lambda: [item.seq for item in gateway.got(NodeEvent)] == [1, 2])
            node.show(outbox=[event(1), event(2), event(3)])
            await until(lambda: [item.seq for item in gateway.got(NodeEvent)] == [1, 2, 3])
            await gateway.say(Ack(seq=2))
            await until(lambda: Ack(seq=2) in node.heard)
            node.show(outbox=[event(3)])
            await gateway.drop()
            await until(lambda: gateway.connections == 2 and gateway.online)
            await until(lambda: [item.seq for item in gateway.got(NodeEvent)] == [1, 2, 3, 3])

    play(story)


def test_a_lost_connection_is_told_and_made_again() -> None:
    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            await until(lambda: gateway.got(Status))
            await gateway.drop(1011, "oops")
            await until(lambda: LinkLost() in node.heard)
            await until(lambda: node.heard.count(Welcomed()) == 2)
            await until(lambda: len([status for status in gateway.got(Status) if status.whole]) == 2)

    play(story)


def test_requests_are_said_and_lost_with_the_connection() -> None:
    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            node.link.say(LeaseRequest(operation_id="early", nonce="n"))
            await until(lambda: gateway.got(Status))
            node.link.say(LeaseRequest(operation_id="op", nonce="n"))
            await until(lambda: gateway.got(LeaseRequest))
            assert [request.operation_id for request in gateway.got(LeaseRequest)] == ["op"]

    play(story)


def test_flush_waits_until_it_was_said() -> None:
    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            await node.link.flush(0.01)  # without a connection there is nothing to wait for
            await until(lambda: gateway.got(Status))
            node.show(activity=Activity(target="2"))
            await node.link.flush(5.0)
            await until(lambda: gateway.got(Status)[-1].activity == Activity(target="2"))

    play(story)


def test_heartbeats_when_there_is_nothing_to_say() -> None:
    async def story(gateway: Gateway) -> None:
        gateway.heartbeat_s = 0.05
        async with linked(gateway):
            await until(lambda: len(gateway.got(Heartbeat)) >= 2)

    play(story)


def test_heartbeats_although_something_nudges_all_the_time() -> None:
    """The clock of the phase machine nudges once a second, and mostly nothing that is said has changed."""

    async def story(gateway: Gateway) -> None:
        gateway.heartbeat_s = 0.1
        async with linked(gateway) as node:
            await until(lambda: gateway.got(Status))

            def beaten() -> bool:
                node.link.nudge()
                return len(gateway.got(Heartbeat)) >= 2

            await until(beaten)

    play(story)


def report(seq: int) -> OperationReport:
    return OperationReport(seq=seq, operation_id="op", order=Order(1, 1), result=Result.SUCCEEDED, at=1.0)


def test_what_led_to_a_status_is_said_before_it_and_what_it_must_bear_out_after_it() -> None:
    """Also while an earlier report waits for its acknowledgement."""

    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            await until(lambda: gateway.got(Status))
            node.show(activity=Activity(target="2"), outbox=[event(1), report(2), event(3)])
            await until(lambda: len(gateway.got(NodeEvent)) == 2)
            kinds = [type(message) for message in gateway.heard[1:]]
            assert kinds == [NodeEvent, Status, OperationReport, NodeEvent]
            node.link.say(LeaseRequest(operation_id="op", nonce="n"))
            node.show(activity=Activity(target="3"), outbox=[report(2), event(3), event(4), report(5)])
            await until(lambda: len(gateway.got(OperationReport)) == 2)
            kinds = [type(message) for message in gateway.heard[5:]]
            assert kinds == [NodeEvent, Status, LeaseRequest, OperationReport]

    play(story)


def test_a_conflict_that_begins_and_ends_while_connected_is_told() -> None:
    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            await until(lambda: gateway.got(Status))
            for conflict in (True, False):
                await gateway.say(gateway.welcome(conflict=conflict))
                await until(lambda conflict=conflict: node.heard[-1] == Welcomed(conflict=conflict))
                assert node.link.standing.conflict is conflict
            await gateway.say(gateway.welcome(name="renamed"), Ack(seq=1))
            await until(lambda: node.heard[-1] == Ack(seq=1))
            assert node.heard.count(Welcomed()) == 2, "a new name is no new welcome: leases stay asked"

    play(story)


def test_a_flood_waits_in_the_network() -> None:
    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            await until(lambda: gateway.got(Status))
            node.room.clear()
            await gateway.say(*[Desired(order=Order(1, number)) for number in range(5)])
            await until(lambda: any(isinstance(message, Desired) for message in node.heard))
            assert len([message for message in node.heard if isinstance(message, Desired)]) == 1
            node.room.set()
            await until(lambda: Desired(order=Order(1, 4)) in node.heard)

    play(story)


def test_a_server_with_another_key_gets_no_proof() -> None:
    async def story(gateway: Gateway) -> None:
        known = gateway.identity()
        foreign = identity.public_key(identity.new_private_key())
        async with linked(gateway, msgspec.structs.replace(known, server_key=foreign)) as node:
            await until(lambda: "pinned at join" in node.link.standing.text)
            assert not gateway.online and node.heard == []

    play(story)


def test_a_refusal_is_shown_and_a_final_one_is_not_hurried() -> None:
    async def story(gateway: Gateway) -> None:
        gateway.refuse = ("retired", "this node was retired", CloseCode.RETIRED)
        async with linked(gateway) as node:
            await until(lambda: node.link.standing.state is LinkState.WAITING)
            assert node.link.standing.text == "refused (retired): this node was retired"
            assert gateway.connections == 1

    play(story)


def named_keys(node: Node) -> list[ServerKeyNamed]:
    return [heard for heard in node.heard if isinstance(heard, ServerKeyNamed)]


def test_a_key_named_by_the_pinned_one_holds_and_the_next_connection_is_under_it() -> None:
    async def story(gateway: Gateway) -> None:
        known = gateway.identity()
        async with linked(gateway, known) as node:
            await until(lambda: gateway.got(Status))
            newer = gateway.make_key()
            await gateway.name_key(newer)
            await until(lambda: named_keys(node) == [ServerKeyNamed(key=newer, holds=True)])
            assert gateway.connections == 1
            node.link.use(msgspec.structs.replace(known, server_key=newer))
            await until(lambda: len(gateway.hellos) == 2 and node.heard.count(Welcomed()) == 2)
            assert [hello.server_fingerprint for hello in gateway.hellos] == [
                identity.fingerprint(gateway.public_key),
                identity.fingerprint(newer),
            ]
            await gateway.say(gateway.welcome(), Ack(seq=1))
            await until(lambda: Ack(seq=1) in node.heard)
            assert gateway.connections == 2, "it comes back once"

    play(story)


def test_a_key_that_the_pinned_one_did_not_sign_is_told_once() -> None:
    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            await until(lambda: gateway.got(Status))
            foreign = identity.new_private_key()
            for number in range(3):
                await gateway.name_key(identity.public_key(foreign), foreign)
                await gateway.say(Ack(seq=number))
            await until(lambda: Ack(seq=2) in node.heard)
            assert named_keys(node) == [ServerKeyNamed(key=identity.public_key(foreign), holds=False)]
            assert gateway.connections == 1 and gateway.online

    play(story)


def test_a_conflict_is_told() -> None:
    async def story(gateway: Gateway) -> None:
        gateway.conflict = True
        async with linked(gateway) as node:
            await until(lambda: Welcomed(conflict=True) in node.heard)
            assert node.link.standing.conflict

    play(story)


def test_no_gateway_is_shown_in_words() -> None:
    async def story(gateway: Gateway) -> None:
        known = msgspec.structs.replace(gateway.identity(), url="ws://127.0.0.1:9/agent")
        async with linked(gateway, known) as node:
            await until(lambda: "Connection refused" in node.link.standing.text)

    play(story)


@pytest.mark.parametrize(
    ("code", "tries", "longest"),
    [(None, 0, 1.0), (None, 3, 8.0), (None, 50, 60.0), (1012, 7, 10.0), (4440, 1, 2.0)],
)
def test_pauses_are_full_jitter(code: int | None, tries: int, longest: float) -> None:
    assert pause(code, tries, 1.0) == longest
    assert pause(code, tries, 0.0) == 0.0


def test_final_codes_wait_about_an_hour() -> None:
    for code in (CloseCode.REVOKED, CloseCode.UNKNOWN_NODE, CloseCode.RETIRED):
        assert 1800 <= pause(code, 0, 0.0) <= pause(code, 0, 1.0) == 3600


def test_a_countdown_alone_is_no_change() -> None:
    said: dict[str, object] = {}
    before = picture(activity=Activity(trial=Trial(confirmed=True, left_s=10.0)))
    assert changed(before, said, whole=True) is not None
    assert changed(picture(activity=Activity(trial=Trial(confirmed=True, left_s=9.0))), said, whole=False) is None
    after = changed(picture(activity=Activity(trial=Trial(confirmed=False, left_s=9.0))), said, whole=False)
    assert after is not None and after.health is UNSET
