"""A whole node as real processes: firmware, agent, real image files, a gateway on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.state import StateFolder
from tests.agent.gateway import Gateway, running, until
from tests.agent.image_server import ImageServer
from tests.agent.test_cli import ROOT, Box
from wire import identity
from wire.messages import (
    Ack,
    Activity,
    Desired,
    Image,
    LeaseGrant,
    LeaseRequest,
    NodeEvent,
    Operation,
    OperationKind,
    OperationReport,
    Order,
    Result,
    Status,
)

LIMIT_S = 40.0


class Node:
    """The box with its firmware running; the gateway answers every request for a lease."""

    def __init__(self, box: Box, gateway: Gateway, firmware: asyncio.subprocess.Process) -> None:
        self.box, self.gateway, self.firmware = box, gateway, firmware
        self.private_key = identity.new_private_key()
        self.granted = 0
        self.grants = True

    async def wait(self, condition: Callable[[], Any]) -> Any:
        """The condition, while leases are granted."""
        end = asyncio.get_running_loop().time() + LIMIT_S
        while not (found := condition()):
            assert asyncio.get_running_loop().time() < end, self.gateway.heard[-5:]
            requests = self.gateway.got(LeaseRequest)
            if self.grants and len(requests) > self.granted and self.gateway.online:
                self.granted = len(requests)
                grant = LeaseGrant(
                    lease_id=f"lease-{self.granted}",
                    operation_id=requests[-1].operation_id,
                    nonce=requests[-1].nonce,
                    duration_s=30.0,
                )
                await self.gateway.say(grant)
            await asyncio.sleep(0.01)
        return found

    async def report(self, operation_id: str) -> OperationReport:
        """The end of an operation, acknowledged."""
        found = await self.wait(
            lambda: [r for r in self.gateway.got(OperationReport) if r.operation_id == operation_id]
        )
        await self.gateway.say(Ack(seq=found[0].seq))
        return found[0]

    def record(self) -> dict[str, Any]:
        return json.loads((self.box.node / "boot.json").read_text())

    def running(self) -> dict[str, Any]:
        return json.loads((self.box.node / "run" / "boot.json").read_text())

    def agent_pid(self) -> int:
        return int((self.box.node / "run" / "agent.pid").read_text())

    def phases(self) -> set[str]:
        """All that were shown so far."""
        shown = [status.activity for status in self.gateway.got(Status) if isinstance(status.activity, Activity)]
        return {activity.phase.value for activity in shown}


def content(version: str, boot: str = "ok") -> bytes:
    head = f"ID=demo\nNAME=Demo\nVERSION_ID={version}\nARCHITECTURE=amd64\nTWINROOT_BOOT={boot}\n--\n"
    return head.encode() + version.encode() * 100_000


def signed(private_key: str, server: ImageServer, version: str) -> Image:
    digest = "sha256:" + hashlib.sha256(server.content).hexdigest()
    size = len(server.content)
    statement = identity.image_statement("demo", "amd64", version, digest, size)
    return Image(
        os="demo",
        arch="amd64",
        version=version,
        digest=digest,
        size=size,
        url=server.url,
        signature=identity.sign(private_key, statement),
        key_id=identity.key_id(identity.public_key(private_key)),
    )


def activate(image: Image, name: str = "op", **more: Any) -> Operation:
    fields: dict[str, Any] = {"soak_s": 0.5, "confirm_s": 3.0, "keep_way_back_s": 0.0, **more}
    return Operation(id=name, kind=OperationKind.ACTIVATE, image=image, author="ada", **fields)


@asynccontextmanager
async def node_in(folder: Path, gateway: Gateway) -> AsyncIterator[Node]:
    """A joined node, powered on."""
    box = Box(folder)
    box.config.write_text(box.config.read_text() + "trial_interval_s = 0.2\n")
    gateway.tokens["token"] = ""
    joined = await box.call("join", gateway.url, "token", "--fingerprint", gateway.fingerprint)
    assert joined.code == 0, joined
    firmware = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agent.drivers.files_machine",
        str(box.node),
        "--",
        sys.executable,
        "-m",
        "agent.cli",
        "run",
        "--config",
        str(box.config),
        cwd=ROOT,
        env=dict(os.environ),
    )
    try:
        node = Node(box, gateway, firmware)
        keys = folder / "keys"
        keys.mkdir()
        (keys / "test.pub").write_text(f"ed25519:{identity.public_key(node.private_key)} test\n")
        await until(lambda: gateway.online, LIMIT_S)
        yield node
    finally:
        firmware.terminate()
        await asyncio.wait_for(firmware.wait(), 20)


def play(folder: Path, story: Callable[[Node], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        async with running() as gateway, node_in(folder, gateway) as node:
            await story(node)

    asyncio.run(whole())


def desired(generation: int, wanted: Operation | None) -> Desired:
    return Desired(order=Order(1, generation), operation=wanted)


def test_an_update_and_the_way_back(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        with ImageServer(content("2.0")) as server:
            image = signed(node.private_key, server, "2.0")
            await node.gateway.say(desired(1, activate(image)))
            report = await node.report("op")
        assert report.result is Result.SUCCEEDED, report
        assert report.evidence.booted_version == "2.0" and node.running()["slot"] == "B"
        old = next(slot for slot in node.gateway.got(Status)[0].slots if slot.booted)
        back = Operation(
            id="back",
            kind=OperationKind.ROLLBACK,
            image=Image(os="demo", arch="amd64", version="1.0", digest=old.digest, size=1),
            soak_s=0.2,
            confirm_s=3.0,
        )
        await node.gateway.say(desired(2, back))
        assert (await node.report("back")).result is Result.SUCCEEDED
        assert node.running()["slot"] == "A"

    play(tmp_path, story)


def test_an_image_that_panics_falls_back(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        with ImageServer(content("2.0", "panic")) as server:
            await node.gateway.say(desired(1, activate(signed(node.private_key, server, "2.0"))))
            report = await node.report("op")
        assert (report.result, report.reason) == (Result.FELL_BACK, "did not boot")
        assert node.running()["slot"] == "A"
        await node.wait(lambda: any(event.cause == "fallback" for event in node.gateway.got(NodeEvent)))

    play(tmp_path, story)


def test_an_image_whose_checks_fail_goes_back_by_itself(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        checks = tmp_path / "check.d" / "required.d"
        checks.mkdir(parents=True)
        script = checks / "web"
        script.write_text(
            f"#!/bin/sh\ngrep -q VERSION_ID=1.0 {node.box.node}/run/os-release || {{ echo no web; exit 1; }}\n"
        )
        script.chmod(0o755)
        config = node.box.config
        config.write_text(config.read_text().replace("folders = []", f'folders = ["{tmp_path}/check.d"]'))
        os.kill(node.agent_pid(), signal.SIGKILL)
        with ImageServer(content("2.0")) as server:
            await until(lambda: len(node.gateway.hellos) == 2 and node.gateway.online, LIMIT_S)
            await node.gateway.say(desired(1, activate(signed(node.private_key, server, "2.0"))))
            report = await node.report("op")
        assert report.result is Result.FELL_BACK and "no web" in report.failed_checks[0].output
        assert node.running()["slot"] == "A" and node.record()["A"]["state"] == "good"

    play(tmp_path, story)


def test_its_own_executable_drains_it_before_the_reboot_and_undrains_it_after(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        folder, said = tmp_path / "drain.d", tmp_path / "said"
        folder.mkdir(mode=0o755)
        script = folder / "move"
        script.write_text(
            f"#!/bin/sh\necho $1 in $(sed 's/.*slot.:.\\(.\\).*/\\1/' {node.box.node}/run/boot.json) >> {said}\n"
        )
        script.chmod(0o755)
        config = node.box.config
        config.write_text(config.read_text() + f'[drain]\nfolders = ["{folder}"]\n')
        os.kill(node.agent_pid(), signal.SIGKILL)
        with ImageServer(content("2.0")) as server:
            await until(lambda: len(node.gateway.hellos) == 2 and node.gateway.online, LIMIT_S)
            image = signed(node.private_key, server, "2.0")
            await node.gateway.say(desired(1, activate(image, drain="move", drain_s=20.0)))
            assert (await node.report("op")).result is Result.SUCCEEDED
            await node.wait(lambda: any(event.kind == "undrained" for event in node.gateway.got(NodeEvent)))
        assert said.read_text() == "drain in A\nundrain in B\n"

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("phase", "accident"),
    [
        ("staging", signal.SIGKILL),
        ("staged", signal.SIGKILL),
        ("rebooting", signal.SIGKILL),
        ("confirming", signal.SIGKILL),
        ("soaking", signal.SIGKILL),
        ("staged", signal.SIGUSR1),
        ("soaking", signal.SIGUSR1),
    ],
)
def test_an_accident_in_a_phase(tmp_path: Path, phase: str, accident: signal.Signals) -> None:
    """SIGKILL to the agent, or a power cut of the machine: the operation ends once, in the right state."""

    async def story(node: Node) -> None:
        with ImageServer(content("2.0")) as server:
            if phase == "staging":
                server.answers = [server.hang_after(1000)]
            node.grants = phase != "staged"
            wanted = activate(signed(node.private_key, server, "2.0"), soak_s=1.0, confirm_s=20.0)
            await node.gateway.say(desired(1, wanted))
            await node.wait(lambda: phase in node.phases())
            boot_id = node.running()["boot_id"]
            if accident is signal.SIGKILL:
                with contextlib.suppress(ProcessLookupError):  # an agent that reboots may be gone already
                    os.kill(node.agent_pid(), accident)
            else:
                node.firmware.send_signal(accident)
                await node.wait(lambda: node.running()["boot_id"] != boot_id)
            node.grants = True
            report = await node.report("op")
        booted = node.running()["slot"]
        assert report.result is (Result.SUCCEEDED if booted == "B" else Result.NEVER_SWITCHED)
        assert phase == "rebooting" or booted == "B"
        folder = StateFolder(tmp_path / "state")
        state = folder.read_state()
        assert state is not None and [ended.operation_id for ended in state.ended] == ["op"]

    play(tmp_path, story)
