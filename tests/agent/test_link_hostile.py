"""The link and gateways that are slow, wrong or hostile: it costs the connection, never the agent."""

from __future__ import annotations

import asyncio

import pytest

from agent.link import LinkState
from agent.phases.inputs import LinkLost, Welcomed
from tests.agent.gateway import Gateway, until, with_url
from tests.agent.test_link import Node, linked, play
from wire.messages import Activity, Ask, Heartbeat, LeaseRequest, Refused, Status


def test_the_status_goes_before_what_depends_on_it() -> None:
    """The gateway weighs a lease that comes back by the boot that it has seen."""

    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            await until(lambda: gateway.got(Status))
            await gateway.say(Ask())
            await asyncio.sleep(0)
            node.link.say(LeaseRequest(operation_id="x", nonce="n"))
            node.show(activity=Activity(target="2"))
            await until(lambda: gateway.got(LeaseRequest))
            place = next(i for i, message in enumerate(gateway.heard) if isinstance(message, LeaseRequest))
            said = [m for m in gateway.heard[:place] if isinstance(m, Status) and isinstance(m.activity, Activity)]
            assert said[-1].activity.target == "2"

    play(story)


def test_a_gateway_that_wants_no_pause_between_heartbeats_does_not_get_them() -> None:
    async def story(gateway: Gateway) -> None:
        gateway.heartbeat_s = 0.0
        async with linked(gateway) as node:
            await until(lambda: gateway.got(Heartbeat))
            began = asyncio.get_running_loop().time()
            count = len(gateway.got(Heartbeat))
            await until(lambda: len(gateway.got(Heartbeat)) >= count + 2)
            assert asyncio.get_running_loop().time() - began > 1.0
            assert node.link.standing.state is LinkState.OPEN

    play(story)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{}",
        "null",
        "[" * 100_000,
        '{"type":"ack","seq":1,"x":' + "[" * 100_000,
        '{"type":"ack","seq":-1}',
        '{"type":"desired"}',
        '{"type":"part","index":5,"count":6,"text":"x"}',
        "x" * (300 * 1024),
        "\u0000",
    ],
)
def test_nonsense_from_the_gateway_costs_the_connection_and_not_the_agent(frame: str) -> None:
    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            await until(lambda: gateway.got(Status))
            await gateway.say_raw(frame)
            await until(lambda: LinkLost() in node.heard)
            await until(lambda: gateway.connections >= 2)
            await until(lambda: node.heard.count(Welcomed()) >= 2)

    play(story)


def test_a_gateway_that_refuses_and_keeps_the_connection_is_left() -> None:
    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            await until(lambda: gateway.got(Status))
            await gateway.say(Refused(code="later", text="not now"))
            await until(lambda: "not now" in node.link.standing.text)  # until it is connected again
            assert LinkLost() in node.heard

    play(story)


def test_what_does_not_speak_websocket_is_tried_again() -> None:
    async def whole() -> None:
        answers = [
            b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: wss://\r\nContent-Length: 0\r\n\r\n",
            b"SSH-2.0-OpenSSH\r\n",
            b"",
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
            b"\xff" * 100_000,
        ]
        served = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal served
            await reader.read(1)
            writer.write(answers[served % len(answers)])
            served += 1
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            node = Node(with_url(Gateway().identity(), f"ws://127.0.0.1:{port}/agent"), chance=lambda: 0.0)
            task = asyncio.create_task(node.link.run())
            try:
                await until(lambda: served >= 2 * len(answers) or task.done())
                assert not task.done(), task.exception()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(whole())
