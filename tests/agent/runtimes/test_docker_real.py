"""DockerRuntime against a real Podman with real containers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.runtimes.docker import DockerRuntime
from tests.podman_machine import PodmanMachine
from wire.messages import Container, Placement

pytestmark = pytest.mark.root

WITHIN_S = 15.0


def by_name(placement: Placement) -> dict[str, Container]:
    assert placement.known, placement.reason
    return {container.name: container for container in placement.containers}


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await look():
            await asyncio.sleep(0.02)


class Watch:
    """Collects changes() in the background; `seen` is set at each."""

    def __init__(self) -> None:
        self.seen = asyncio.Event()

    async def run(self, changes: AsyncIterator[None]) -> None:
        async for _ in changes:
            self.seen.set()

    async def next(self, limit_s: float = WITHIN_S) -> None:
        async with asyncio.timeout(limit_s):
            await self.seen.wait()
        self.seen.clear()


@asynccontextmanager
async def watching(runtime: DockerRuntime) -> AsyncIterator[Watch]:
    watch = Watch()
    task = asyncio.create_task(watch.run(runtime.changes()))
    try:
        await watch.next()  # connected
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(work, *arguments)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def test_three_containers_of_two_services_and_one_stops(podman: PodmanMachine) -> None:
    podman.run("web-1", {"twinroot.service": "web", "twinroot.scope": "shop", "twinroot.replicas": "2"})
    podman.run("web-2", {"twinroot.service": "web", "twinroot.scope": "shop", "twinroot.replicas": "2"})
    podman.run("cache", {"com.docker.compose.project": "shop", "com.docker.compose.service": "cache"})

    async def scenario() -> None:
        runtime = DockerRuntime(podman.socket)
        placement = await runtime.placement()
        assert placement.engine.startswith("Podman ")
        assert [(c.scope, c.service, c.name, c.state, c.replicas) for c in placement.containers] == [
            ("shop", "cache", "cache", "running", None),
            ("shop", "web", "web-1", "running", 2),
            ("shop", "web", "web-2", "running", 2),
        ]
        assert all(0 <= time.time() - (c.started_at or 0) < 60 for c in placement.containers)
        async with watching(runtime) as watch:
            delays = []
            for act, expected in (
                (podman.stop, {"web-2", "cache"}),
                (podman.start, {"web-1", "web-2", "cache"}),
                (podman.stop, {"web-2", "cache"}),
            ):
                watch.seen.clear()
                await in_thread(act, "web-1")
                acted = time.monotonic()
                while True:  # the placement is read only when a change was announced
                    await watch.next()
                    if set(by_name(await runtime.placement())) == expected:
                        break
                delays.append(time.monotonic() - acted)
            assert min(delays) < 1.0, delays

    run(scenario())


def test_a_frozen_engine_is_unknown_in_time_and_comes_back(podman: PodmanMachine) -> None:
    podman.run("web-1")

    async def scenario() -> None:
        runtime = DockerRuntime(podman.socket, timeout_s=0.5)
        assert set(by_name(await runtime.placement())) == {"web-1"}
        podman.freeze_engine()
        began = time.monotonic()
        placement = await runtime.placement()
        assert time.monotonic() - began < 2.0
        assert not placement.known
        assert placement.containers == []
        assert "did not answer within 0.5 s" in placement.reason
        podman.thaw_engine()

        async def back() -> bool:
            return (await runtime.placement()).known

        await until(back)

    run(scenario())


def test_a_restarted_engine_is_followed_again(podman: PodmanMachine) -> None:
    podman.run("web-1")

    async def scenario() -> None:
        runtime = DockerRuntime(podman.socket)
        async with watching(runtime) as watch:
            await in_thread(podman.stop_engine)
            await watch.next()
            gone = await runtime.placement()
            assert (gone.known, gone.reason) == (False, f"there is no engine socket at {podman.socket}")
            await in_thread(podman.start_engine)
            await watch.next()
            await in_thread(podman.rm, "web-1")
            await watch.next()
            assert by_name(await runtime.placement()) == {}

    run(scenario())


def test_restart_policies_decide_what_should_run(podman: PodmanMachine) -> None:
    fails = ("/bin/sh", "-c", "exit 3")
    podman.run("job", command=("/bin/true",))
    podman.run("failed-job", command=fails)
    podman.run("gave-up", command=fails, options=["--restart=on-failure:1"])
    podman.run("always-stopped", options=["--restart=always"])
    podman.run("stopped-by-hand", options=["--restart=unless-stopped"])
    podman.stop("always-stopped")
    podman.stop("stopped-by-hand")

    async def scenario() -> None:
        runtime = DockerRuntime(podman.socket)

        async def settled() -> bool:
            return {n: c.state for n, c in by_name(await runtime.placement()).items()} == {
                "gave-up": "exited",
                "always-stopped": "exited",
            }

        await until(settled)

    run(scenario())


def test_a_container_that_restarts_in_a_loop_is_restarting(podman: PodmanMachine) -> None:
    podman.run("loop", command=("/bin/sh", "-c", "sleep 0.2; exit 1"), options=["--restart=always"])

    async def scenario() -> None:
        runtime = DockerRuntime(podman.socket)

        async def looping() -> bool:
            container = by_name(await runtime.placement()).get("loop")
            return container is not None and container.state == "restarting"

        await until(looping)

    run(scenario())


def test_health_check_results_are_read_although_the_list_lacks_them(podman: PodmanMachine) -> None:
    check = ["--health-cmd=test -e /tmp/good", "--health-interval=disable", "--health-retries=1"]
    podman.run("web-1", options=check)

    async def scenario() -> None:
        runtime = DockerRuntime(podman.socket)
        assert by_name(await runtime.placement())["web-1"].health == "starting"
        async with watching(runtime) as watch:
            await in_thread(podman.podman, "exec", "web-1", "/bin/touch", "/tmp/good")
            await in_thread(podman.podman, "healthcheck", "run", "web-1")
            await watch.next()

            async def healthy() -> bool:
                return by_name(await runtime.placement())["web-1"].health == "healthy"

            await until(healthy)

    run(scenario())


KINDS: dict[str, tuple[dict[str, str], tuple[str, str, bool]]] = {
    "own": (
        {"twinroot.service": "web", "twinroot.scope": "shop", "twinroot.per-node": "true"},
        ("shop", "web", True),
    ),
    "compose": (
        {"com.docker.compose.project": "blog", "com.docker.compose.service": "db"},
        ("blog", "db", False),
    ),
    "podman-compose": (
        {"io.podman.compose.project": "wiki", "com.docker.compose.service": "app"},
        ("wiki", "app", False),
    ),
    "swarm": (
        {"com.docker.stack.namespace": "mail", "com.docker.swarm.service.name": "mail_smtp"},
        ("mail", "smtp", False),
    ),
    "kubernetes": (
        {
            "io.kubernetes.pod.namespace": "prod",
            "io.kubernetes.pod.name": "api-7d4b9c6f5d-x2k4z",
            "io.kubernetes.container.name": "api",
        },
        ("prod", "api", False),
    ),
    "nomad": (
        {
            "com.hashicorp.nomad.alloc_id": "0b1c",
            "com.hashicorp.nomad.namespace": "edge",
            "com.hashicorp.nomad.job_name": "proxy",
            "com.hashicorp.nomad.task_name": "proxy",
        },
        ("edge", "proxy", False),
    ),
    "plain": ({}, ("", "plain", False)),
}


def test_a_container_of_each_kind(podman: PodmanMachine) -> None:
    for name, (labels, _) in KINDS.items():
        podman.run(name, labels)
    podman.run("pause", {"io.kubernetes.container.name": "POD"})

    async def scenario() -> None:
        found = by_name(await DockerRuntime(podman.socket).placement())
        assert {name: (c.scope, c.service, c.per_node) for name, c in found.items()} == {
            name: expected for name, (_, expected) in KINDS.items()
        }

    run(scenario())
