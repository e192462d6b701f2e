"""DockerRuntime against engines of every sort, most of them broken."""

from __future__ import annotations

import asyncio
import os
import socket as sockets
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.runtimes import docker
from agent.runtimes.docker import DockerRuntime
from tests.agent.runtimes.fake_engine import PING, FakeEngine, Reply, answer, chunked, container
from wire.messages import Placement

STARTED_AT = 1790000000.123456


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 20))


def placement_of(engine: FakeEngine, socket: Path, timeout_s: float = 5.0) -> Placement:
    async def scenario() -> Placement:
        async with engine.listening(socket):
            return await DockerRuntime(socket, timeout_s).placement()

    return asyncio.run(asyncio.wait_for(scenario(), 20))


def test_docker_shapes(socket_path: Path) -> None:
    engine = FakeEngine()
    engine.containers(
        container("a1", "shop-web-1", status="Up 3 minutes (healthy)", labels={"twinroot.replicas": "3"}),
        container("b2", "starting", status="Up 2 seconds (health: starting)"),
        container("c3", "sick", status="Up 2 hours (unhealthy)"),
        container("d4", "waiting", state="restarting", status="Restarting (1) 4 seconds ago"),
        container("e5", "frozen", state="paused", status="Up 2 hours (Paused)"),
        container("f6", "done", state="exited", status="Exited (0) 2 days ago"),
        container("a7", "crashed", state="exited", status="Exited (1)", policy="always", ExitCode=1),
        container("b8", "never-started", state="created", status="Created", policy="always", Error="no such file"),
    )
    placement = placement_of(engine, socket_path)
    assert (placement.known, placement.reason, placement.engine) == (True, "", "Docker 24.0.7")
    assert [(c.name, c.state, c.health) for c in placement.containers] == [
        ("crashed", "exited", "none"),
        ("frozen", "paused", "none"),
        ("never-started", "created", "none"),
        ("shop-web-1", "running", "healthy"),
        ("sick", "running", "unhealthy"),
        ("starting", "running", "starting"),
        ("waiting", "restarting", "none"),
    ]
    web = next(c for c in placement.containers if c.name == "shop-web-1")
    assert (web.image, web.replicas, web.started_at) == ("nginx:1.27", 3, pytest.approx(STARTED_AT, abs=1e-3))


def test_no_containers_is_known_and_empty(socket_path: Path) -> None:
    engine = FakeEngine()
    engine.containers()
    placement = placement_of(engine, socket_path)
    assert (placement.known, placement.containers) == (True, [])


def test_an_engine_that_dropped_old_api_versions_is_asked_in_its_own(socket_path: Path) -> None:
    engine = FakeEngine()
    engine.replies["/_ping"] = answer("OK", fields="Api-Version: 1.52\r\nServer: Docker/29.0.0 (linux)\r\n")
    engine.replies["/v1.41"] = answer({"message": "client version 1.41 is too old"}, 400)
    engine.containers(container("a1", "web"), version="1.52")
    assert placement_of(engine, socket_path).known


def test_an_engine_that_does_not_say_its_version_gets_the_oldest(socket_path: Path) -> None:
    engine = FakeEngine()
    engine.replies["/_ping"] = answer("OK", fields="Api-Version: ../../secret\r\n")
    engine.containers(container("a1", "web"), version="1.41")
    assert placement_of(engine, socket_path).known


def test_a_chunked_list(socket_path: Path) -> None:
    engine = FakeEngine()
    engine.containers(container("a1", "web"))
    plain = engine.replies["/v1.43/containers/json"]
    assert isinstance(plain, bytes)
    engine.replies["/v1.43/containers/json"] = chunked(plain.partition(b"\r\n\r\n")[2], 7)
    assert [c.name for c in placement_of(engine, socket_path).containers] == ["web"]


def test_a_container_that_vanished_between_list_and_look_is_left_out(socket_path: Path) -> None:
    engine = FakeEngine()
    engine.containers(container("a1", "web"), container("b2", "gone"))
    del engine.replies["/v1.43/containers/b2/json"]
    placement = placement_of(engine, socket_path)
    assert (placement.known, [c.name for c in placement.containers]) == (True, ["web"])


async def hang(_writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def half_and_hang(writer: asyncio.StreamWriter) -> None:
    writer.write(answer([{"Id": "a1"}])[:-5])
    await hang(writer)


LIST = "/v1.43/containers/json"
BROKEN: dict[str, tuple[str, bytes | Reply, str]] = {
    "never answers": ("/_ping", hang, "did not answer within 0.2 s"),
    "half a list, then nothing": (LIST, half_and_hang, "did not answer within 0.2 s"),
    "closes at once": ("/_ping", b"", "closed without an answer"),
    "half a list, then closed": (LIST, answer([{"Id": "a1"}])[:-5], "the answer broke off"),
    "not HTTP": ("/_ping", b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP"),
    "no JSON": (LIST, answer("<html>proxy</html>"), "sent garbage: its list of containers"),
    "another shape": (LIST, answer([{"Id": 7, "State": []}]), "sent garbage: its list of containers"),
    "an object instead of a list": (LIST, answer({}), "sent garbage: its list of containers"),
    "deeply nested": (LIST, answer("[" * 100_000), "sent garbage: its list of containers"),
    "no text": (LIST, answer(b'[{"Id":"\xff","State":"running"}]'), "sent garbage"),
    "an error": (LIST, answer({"message": "database is locked"}, 500), "answered 500: database is locked"),
    "an error without words": (LIST, answer("oh", 503), "answered 503"),
    "two lengths": (
        LIST,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n[]",
        "states its length in two ways",
    ),
    "a length that is none": (LIST, b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n[]", "not a number"),
    "a bad chunk": (
        LIST,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]\r\n",
        "a chunk's size is not a number",
    ),
    "an endless header": (LIST, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "header is too long"),
    "too many": (
        LIST,
        answer([{"Id": str(number), "State": "exited"} for number in range(20_001)]),
        "it lists 20001 containers, more than 20000",
    ),
    "a path as id": (
        LIST,
        answer([{"Id": "../../images/prune?x=", "State": "running"}]),
        "a container's id is not one",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_engine_is_unknown_with_its_reason(case: str, socket_path: Path) -> None:
    path, reply, reason = BROKEN[case]
    engine = FakeEngine()
    engine.containers(container("a1", "web"))
    engine.replies[path] = reply
    placement = placement_of(engine, socket_path, timeout_s=0.2 if callable(reply) else 5.0)
    assert (placement.known, placement.containers) == (False, [])
    assert reason in placement.reason


def test_one_container_that_cannot_be_looked_at_makes_the_placement_unknown(socket_path: Path) -> None:
    engine = FakeEngine()
    engine.containers(container("a1", "web"), container("b2", "stuck"))
    engine.replies["/v1.43/containers/b2/json"] = hang
    placement = placement_of(engine, socket_path, timeout_s=0.2)
    assert (placement.known, placement.containers) == (False, [])


def test_a_list_beyond_the_limit_is_refused(socket_path: Path) -> None:
    engine = FakeEngine()
    engine.replies[LIST] = answer(b"[" + b" " * docker.MAX_LIST_BYTES + b"]")
    placement = placement_of(engine, socket_path)
    assert (placement.known, placement.reason) == (False, "the engine's answer is larger than 16384 KiB")


def test_no_socket(tmp_path: Path) -> None:
    placement = asyncio.run(DockerRuntime(tmp_path / "docker.sock").placement())
    assert (placement.known, placement.reason) == (
        False,
        f"there is no engine socket at {tmp_path / 'docker.sock'}",
    )


def test_a_socket_nobody_listens_at(socket_path: Path) -> None:
    with sockets.socket(sockets.AF_UNIX) as left_behind:
        left_behind.bind(str(socket_path))
    placement = asyncio.run(DockerRuntime(socket_path).placement())
    assert (placement.known, placement.reason) == (False, f"no engine listens at {socket_path}")


def test_a_socket_that_may_not_be_opened(socket_path: Path) -> None:
    nobody = 65534

    async def scenario() -> None:
        async with FakeEngine().listening(socket_path):
            socket_path.chmod(0)
            user = os.geteuid()
            if user == 0:
                os.seteuid(nobody)
            try:
                placement = await DockerRuntime(socket_path).placement()
            finally:
                os.seteuid(user)
            assert (placement.known, placement.reason) == (
                False,
                f"no permission to open the engine socket {socket_path}",
            )

    run(scenario())


def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    placement = asyncio.run(DockerRuntime(tmp_path / ("x" * 200)).placement())
    assert not placement.known
    assert "cannot be opened" in placement.reason


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.sampled_from(["/_ping", LIST, "/v1.43/containers/a1/json"]), data=st.data())
def test_whatever_the_engine_sends_is_a_placement(where: str, data: st.DataObject, socket_path: Path) -> None:
    """Arbitrary bytes, and answers that begin well."""
    engine = FakeEngine()
    engine.containers(container("a1", "web"))
    good = PING if where == "/_ping" else engine.replies[where]
    assert isinstance(good, bytes)
    cut = data.draw(st.integers(0, len(good)))
    reply = good[:cut] + data.draw(st.binary(max_size=64)) + data.draw(st.sampled_from([b"", good[cut:]]))
    engine.replies[where] = reply
    socket_path.unlink(missing_ok=True)
    placement = placement_of(engine, socket_path, timeout_s=2.0)
    assert placement.known or placement.reason


async def ready(changes: Any, limit_s: float = 5.0) -> None:
    async with asyncio.timeout(limit_s):
        await anext(changes)


def start_event(container_id: str, action: str = "start") -> dict[str, Any]:
    return {"Type": "container", "Action": action, "Actor": {"ID": container_id, "Attributes": {}}}


def test_a_burst_of_events_is_one_change(socket_path: Path) -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        engine.stream_events()
        async with engine.listening(socket_path):
            changes = DockerRuntime(socket_path).changes()
            await ready(changes)
            engine.send_event(start_event("a1", "exec_start: sh"))  # no change
            for number in range(50):
                engine.send_event(start_event(f"c{number}"))
            await ready(changes)
            more = asyncio.ensure_future(anext(changes))
            done, _ = await asyncio.wait({more}, timeout=3 * docker.BURST_S)
            assert not done
            engine.send_event(start_event("a1", "health_status: healthy"))
            async with asyncio.timeout(5):
                await more
            await changes.aclose()

    run(scenario())


def test_a_lost_stream_is_announced_and_found_again(socket_path: Path) -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        engine.stream_events()
        async with engine.listening(socket_path):
            changes = DockerRuntime(socket_path).changes()
            await ready(changes)
            engine.drop_streams()
            await ready(changes)  # lost
            await ready(changes)  # found
            engine.send_raw_event(b"\xff not an event\n")
            await ready(changes)  # garbage: lost again
            await ready(changes)
            assert sum(path.startswith("/v1.43/events") for path in engine.asked) == 3
            await changes.aclose()

    run(scenario())


def test_an_engine_that_comes_later_is_announced(socket_path: Path) -> None:
    async def scenario() -> None:
        changes = DockerRuntime(socket_path).changes()
        first = asyncio.ensure_future(anext(changes))
        done, _ = await asyncio.wait({first}, timeout=0.1)
        assert not done
        engine = FakeEngine()
        engine.stream_events()
        async with engine.listening(socket_path):
            async with asyncio.timeout(10):
                await first
            await changes.aclose()

    run(scenario())


def test_descriptions_are_kept_until_an_event_outdates_them(socket_path: Path) -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        engine.stream_events()
        engine.containers(container("a1", "web"), container("b2", "db"))

        def looks(container_id: str) -> int:
            return sum(path == f"/v1.43/containers/{container_id}/json" for path in engine.asked)

        async with engine.listening(socket_path):
            runtime = DockerRuntime(socket_path)
            await runtime.placement()
            await runtime.placement()
            assert (looks("a1"), looks("b2")) == (2, 2)  # no live stream: nothing is kept
            changes = runtime.changes()
            await ready(changes)
            await runtime.placement()
            await runtime.placement()
            assert (looks("a1"), looks("b2")) == (3, 3)
            engine.send_event(start_event("a1", "restart"))
            await ready(changes)
            await runtime.placement()
            assert (looks("a1"), looks("b2")) == (4, 3)
            await changes.aclose()

    run(scenario())
