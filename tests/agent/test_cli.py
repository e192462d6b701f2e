"""The commands as real processes, with the files driver on real files and a gateway on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.cli import parse_span
from agent.drivers.files_machine import FilesMachine
from agent.errors import ConfigError
from tests.agent.gateway import Gateway, running, until
from wire.messages import Status

ROOT = Path(__file__).parents[2]
IMAGE = "ID=demo\nNAME=Demo\nVERSION_ID=1.0\nARCHITECTURE=amd64\n--\npayload"


@dataclass
class Answer:
    code: int
    out: str
    error: str


class Box:
    """A files node in a folder, powered on, and the command line on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = folder / "node"
        image = folder / "image"
        image.write_text(IMAGE)
        FilesMachine.create(self.node, image).power_on()
        (self.node / "etc").mkdir()
        (self.node / "etc" / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        self.config = folder / "config.toml"
        self.config.write_text(
            f'driver = "files"\nstate_folder = "{folder}/state"\nroot = "{self.node}"\n'
            f'image_keys = "{folder}/keys"\n[witnesses]\ndefault_route = false\n[files]\nroot = "{self.node}"\n'
            '[checks]\nbuiltins = ["state"]\nfolders = []\ninterval_s = 0.2\n'
        )

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agent.cli",
            *arguments,
            cwd=ROOT,
            env={**os.environ, "TWINROOT_AGENT_CONFIG": str(self.config)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def call(self, *arguments: str) -> Answer:
        process = await self.start(*arguments)
        out, error = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode is not None
        return Answer(process.returncode, out.decode(), error.decode())


def play(folder: Path, story: Callable[[Gateway, Box], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        async with running() as gateway:
            gateway.tokens["token"] = ""
            await story(gateway, Box(folder))

    asyncio.run(whole())


def assert_one_line(answer: Answer, words: str) -> None:
    assert answer.code == 1, answer
    assert answer.error.startswith("twinroot-agent: ") and answer.error.count("\n") == 1, answer.error
    assert words in answer.error, answer.error


async def finished(process: asyncio.subprocess.Process) -> int:
    await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode is not None
    return process.returncode


def test_from_join_to_status_to_the_end(tmp_path: Path) -> None:
    async def story(gateway: Gateway, box: Box) -> None:
        answer = await box.call(
            "join", gateway.url, "token", "--fingerprint", gateway.fingerprint, "--name", "attic", "--label", "a=b"
        )
        assert answer.code == 0 and answer.out.startswith("joined as node-") and "(attic)" in answer.out, answer
        agent = await box.start("run")
        try:
            status = (await until(lambda: gateway.got(Status), 20))[0]
            assert status.facts.os.id == "demo" and status.slots[0].version == "1.0"
            assert_one_line(await box.call("run"), "in use by another agent")
            file = box.folder / "state" / "run" / "status.json"
            await until(lambda: file.exists() and json.loads(file.read_text())["link"] == "open")
            shown = await box.call("status")
            assert shown.code == 0 and "attic" in shown.out and "slot A    1.0  [booted, next boot, good]" in shown.out
            assert json.loads((await box.call("status", "--json")).out)["name"] == "attic"
            held = await box.call("inhibit", "--why", "backup", "--for", "2h")
            await until(lambda: any("backup" in str(status.activity) for status in gateway.got(Status)))
            listed = await box.call("inhibit", "--list")
            assert held.out.strip() in listed.out and "backup" in listed.out and "2 h" in listed.out
            assert (await box.call("inhibit", "--release", held.out.strip())).code == 0
            agent.send_signal(signal.SIGKILL)
            assert await finished(agent) == -signal.SIGKILL
            agent = await box.start("run")
            await until(lambda: gateway.connections >= 3 and gateway.online, 20)
            agent.send_signal(signal.SIGTERM)
            assert await finished(agent) == 0
        finally:
            if agent.returncode is None:
                agent.kill()
                await agent.communicate()
        assert not gateway.online

    play(tmp_path, story)


def test_a_copied_disk_refuses_to_run(tmp_path: Path) -> None:
    async def story(gateway: Gateway, box: Box) -> None:
        await box.call("join", gateway.url, "token", "--fingerprint", gateway.fingerprint)
        (box.node / "etc" / "machine-id").write_text("f" * 32)
        assert_one_line(await box.call("run"), "belongs to another machine")

    play(tmp_path, story)


def test_failures_are_one_line(tmp_path: Path) -> None:
    async def story(gateway: Gateway, box: Box) -> None:
        zeros = "sha256:" + "0" * 64
        for words in (("x",), ("join",), ("status", "x")):
            refused = await box.call(*words)
            assert (refused.code, refused.out) == (2, "")
            assert len(refused.error.splitlines()) == 1 and "See twinroot-agent" in refused.error
        assert_one_line(await box.call("run"), "has not joined")
        assert_one_line(await box.call("status"), "does not run")
        assert_one_line(await box.call("join", gateway.url, "token", "--fingerprint", "sha256:12"), "--fingerprint")
        assert_one_line(await box.call("join", "ws://10.1.2.3/agent", "token", "--fingerprint", zeros), "not encrypted")
        assert_one_line(await box.call("join", gateway.url, "token", "--fingerprint", zeros), "not spent")
        assert_one_line(
            await box.call("join", gateway.url, "t", "--fingerprint", gateway.fingerprint, "--label", "x"), "KEY=VALUE"
        )
        assert_one_line(await box.call("inhibit"), "--why")
        assert_one_line(await box.call("inhibit", "--why", "x", "--for", "soon"), "no span")
        assert_one_line(await box.call("inhibit", "--release", "deadbeef"), "no inhibitor")
        box.config.write_text("driver = 3")
        assert_one_line(await box.call("run"), "driver")

    play(tmp_path, story)


def test_inhibit_while_a_command_runs(tmp_path: Path) -> None:
    async def story(gateway: Gateway, box: Box) -> None:
        listing = f"[{sys.executable!r}, '-m', 'agent.cli', 'inhibit', '--list']"
        inner = f"import subprocess, sys; subprocess.run({listing}); sys.exit(7)"
        answer = await box.call("inhibit", "--why", "backup", "--", sys.executable, "-c", inner)
        assert answer.code == 7 and "backup" in answer.out and "while process" in answer.out
        assert (await box.call("inhibit", "--list")).out == ""
        assert_one_line(await box.call("inhibit", "--why", "x", "--", "/no/such"), "/no/such cannot be run")

    play(tmp_path, story)


def test_help_of_everything(tmp_path: Path) -> None:
    async def story(gateway: Gateway, box: Box) -> None:
        for command in ("join", "run", "status", "inhibit"):
            answer = await box.call(command, "--help")
            assert answer.code == 0 and "Usage" in answer.out

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30min", 1800), ("1.5h", 5400), ("1d", 86400), ("5m", 300)]
)
def test_spans(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "0s", "1 week"])
def test_no_spans(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_span(text)
