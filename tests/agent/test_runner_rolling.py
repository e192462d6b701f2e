"""The runner under a rollout: draining, containers that move, mirrors; with a real link on a machine in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
from msgspec import UNSET

from agent.download import Supply
from agent.drain import Verb
from agent.drivers.base import Progress
from agent.fetch import DownloadCode, DownloadError
from agent.phases.inputs import Limits
from agent.state import Identity
from tests.agent.gateway import Gateway, until
from tests.agent.machine import Machine, agent_on
from tests.agent.test_runner import activities, desired, grant, play, quick, report
from wire.messages import (
    Container,
    Image,
    LeaseRequest,
    LeaseReturn,
    NodeEvent,
    Phase,
    Placement,
    Result,
    Status,
)

DRAINS = {"drain": "move", "drain_s": 30.0}
PATIENT = Limits(drain_backoff_s=0.05, work_retry_s=0.01, stage_backoff_s=0.01)


def running(*services: str) -> Placement:
    containers = [Container(id=name, name=name, image="i", service=name, scope="shop") for name in services]
    return Placement(known=True, engine="memory", containers=containers)


def event(gateway: Gateway, kind: str) -> NodeEvent | None:
    return next((event for event in gateway.got(NodeEvent) if event.kind == kind), None)


def test_a_drained_update_from_order_to_report(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.gates["drain"] = asyncio.Event()
        async with agent_on(machine, identity):
            await gateway.say(desired(1, quick(**DRAINS)))
            await grant(gateway)
            await until(lambda: activities(gateway)[-1].phase is Phase.DRAINING)
            machine.gates["drain"].set()
            await asyncio.wait_for(machine.rebooted.wait(), 10)
        machine.power_on()
        async with agent_on(machine, identity):
            assert (await report(gateway)).result is Result.SUCCEEDED
            told = await until(lambda: event(gateway, "undrained"))
            assert told.checks[0].output == "said" and told.operation_id == "op"
        assert machine.calls == ["download", "stage", "drain", "arm", "reboot", "mark_good", "undrain"]

    play(tmp_path, story)


def test_a_drain_that_fails_returns_the_lease_undrains_and_is_tried_again(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.drain_fails = {Verb.DRAIN}
        async with agent_on(machine, identity, limits=PATIENT):
            await gateway.say(desired(1, quick(**DRAINS)))
            await grant(gateway)
            await until(lambda: gateway.got(LeaseReturn))
            failed = await until(lambda: event(gateway, "drain-failed"))
            assert failed.checks[0].output == "said"
            await until(lambda: "undrain" in machine.calls)
            await until(
                lambda: any(hold.code == "drain-failed" for shown in activities(gateway) for hold in shown.holds)
            )
            machine.drain_fails = set()
            await grant(gateway, number=2)
            await asyncio.wait_for(machine.rebooted.wait(), 10)
        assert machine.calls == ["download", "stage", "drain", "undrain", "drain", "arm", "reboot"]

    play(tmp_path, story)


def test_a_killed_agent_undrains_when_it_is_back(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.gates["drain"] = asyncio.Event()
        async with agent_on(machine, identity):
            await gateway.say(desired(1, quick(**DRAINS)))
            await grant(gateway)
            await until(lambda: "drain" in machine.calls)
        async with agent_on(machine, identity):
            await until(lambda: "undrain" in machine.calls)
            await until(lambda: gateway.got(LeaseReturn))
        assert "arm" not in machine.calls

    play(tmp_path, story)


def test_a_container_that_moved_here_returns_the_lease_and_the_server_hears_of_it_first(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.placement = running("db")
        async with agent_on(machine, identity):
            await gateway.say(desired(1, quick()))
            await until(lambda: gateway.got(LeaseRequest))
            machine.placement = running("db", "web")  # the engine has not said so yet
            await grant(gateway)
            returned = (await until(lambda: gateway.got(LeaseReturn)))[0]
            assert returned.reason == "containers moved here since it asked: shop/web"
            await until(lambda: len(gateway.got(LeaseRequest)) == 2)
            assert last_placement_before_request(gateway, 2) == machine.placement
            assert "arm" not in machine.calls
            await grant(gateway, number=2)
            await asyncio.wait_for(machine.rebooted.wait(), 10)

    play(tmp_path, story)


def last_placement_before_request(gateway: Gateway, number: int) -> object:
    """What the gateway had heard of the containers when that request came."""
    placement: object = None
    for message in gateway.heard:
        match message:
            case Status(placement=told) if told is not UNSET:
                placement = told
            case LeaseRequest():
                number -= 1
                if not number:
                    return placement
    raise AssertionError("there was no such request")


def test_an_engine_that_hangs_at_the_grant_holds_the_node(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        async with agent_on(machine, identity):
            await gateway.say(desired(1, quick()))
            await until(lambda: gateway.got(LeaseRequest))
            machine.placement = Placement(known=False, reason="the engine hangs")
            machine.placement_changed.set()
            await until(lambda: gateway.got(Status)[-1].placement == machine.placement)
            await grant(gateway)
            await until(lambda: gateway.got(LeaseReturn))
            await until(
                lambda: any(hold.code == "placement-unknown" for shown in activities(gateway) for hold in shown.holds)
            )
            await grant(gateway, number=2)  # an operator has declared what runs here
            await asyncio.wait_for(machine.rebooted.wait(), 10)

    play(tmp_path, story)


class Mirrored(Machine):
    """The first try finds that a mirror is wrong, and fails for another reason."""

    async def _download(self, image: Image, into: Path, progress: Progress, supply: Supply) -> None:
        await super()._download(image, into, progress, supply)
        if len(self.supplies) == 1:
            supply.wrong(supply.mirrors[0])
            raise DownloadError(DownloadCode.TRUNCATED, "cut")


def test_a_wrong_mirror_is_told_once_and_not_asked_again(tmp_path: Path) -> None:
    mirrors = ["https://a.example/i", "https://b.example/i"]

    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine = Mirrored(machine.root)
        async with agent_on(machine, identity):
            wanted = msgspec.structs.replace(quick(), mirrors=mirrors, bandwidth_bytes_s=7)
            await gateway.say(desired(1, wanted))
            await until(lambda: gateway.got(LeaseRequest))
            told = await until(lambda: event(gateway, "mirror-wrong"))
            assert mirrors[0] in told.text
        assert [list(supply.mirrors) for supply in machine.supplies] == [mirrors, mirrors[1:]]
        assert {supply.bandwidth_bytes_s for supply in machine.supplies} == {7}

    play(tmp_path, story)
