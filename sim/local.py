"""A control plane and nodes on this machine as real processes: for the demo, the end-to-end tests and the pictures.

Everything lives in one folder; every process started here is stopped here, by its own id.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.drivers.files_machine import FilesMachine

_START_S = 60.0
"""A cold start on a busy two-core machine takes some seconds."""
_STOP_S = 20.0


class LocalError(Exception):
    """A process did not do what it should; the text has the end of its log."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_problem(port: int) -> str:
    """Why nobody can listen on a port of 127.0.0.1 now; empty where that is possible."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return "the port is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
    return ""


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = _START_S, every_s: float = 0.1) -> None:
    """Return as soon as `condition()` is true; LocalError naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise LocalError(f"waited {timeout_s:.0f} s in vain: {what}")
        time.sleep(every_s)


class LocalProcess:
    """One child with its log in a file; `stop` is SIGTERM, then SIGKILL."""

    def __init__(self, name: str, command: list[str], log: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environ = dict(environ)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise LocalError(f"{self.name} does not run")
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            # A session of its own: Ctrl-C reaches only whoever started us, and we stop our children in order.
            self._child = subprocess.Popen(
                self._command, stdout=out, stderr=subprocess.STDOUT, env=self._environ, start_new_session=True
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int | None:
        child, self._child = self._child, None
        if child is None:
            return None
        if child.poll() is None:
            child.send_signal(how)
            try:
                child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        return child.returncode

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


class LocalControlPlane:
    """`twinroot up` in `folder`. Ports are free ones unless given."""

    def __init__(self, folder: Path, http_port: int = 0, gateway_port: int = 0, **settings: str) -> None:
        self.folder = folder
        self.http_port = http_port or free_port()
        self.gateway_port = gateway_port or free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TWINROOT_")},
            "TWINROOT_DATA_DIR": str(folder / "control-plane"),
            "TWINROOT_HTTP": f"127.0.0.1:{self.http_port}",
            "TWINROOT_GATEWAY": f"127.0.0.1:{self.gateway_port}",
            **settings,
        }
        self.process = LocalProcess("twinroot up", [*_twinroot(), "up"], folder / "twinroot.log", self.environ)

    def start(self) -> None:
        """LocalError with what `twinroot up` said last where it ends, or is not ready after a minute."""
        for setting, port in (("TWINROOT_HTTP", self.http_port), ("TWINROOT_GATEWAY", self.gateway_port)):
            if problem := port_problem(port):  # whoever has it may answer in our place
                raise LocalError(f"{setting}=127.0.0.1:{port}: {problem}")
        self.process.start()
        try:
            wait_until(lambda: not self.process.running or self._ready(), "twinroot up becomes ready")
        except LocalError as error:
            raise LocalError(f"{error}: {self.process.tail(1)}") from error
        if not self.process.running:
            raise LocalError(f"twinroot up ended: {self.process.tail(1)}")

    def stop(self) -> None:
        self.process.stop()

    def run(self, *arguments: str | Path) -> str:
        """Run `twinroot …` beside it; its output, or LocalError with what it said."""
        done = subprocess.run(
            [*_twinroot(), *map(str, arguments)], env=self.environ, capture_output=True, text=True, timeout=_START_S
        )
        if done.returncode:
            raise LocalError(f"twinroot {' '.join(map(str, arguments))}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def login_link(self) -> str:
        return _found(r"https?://\S+/sign-in/\S+", self.run("login-link"))

    def join_command(self, *options: str) -> list[str]:
        """A fresh join command as the console prints it, split into words."""
        return _found(r"twinroot-agent join .*", self.run("join-token", "create", *options)).split()

    def _ready(self) -> bool:
        return all(_answers(f"http://127.0.0.1:{port}/readyz") for port in (self.http_port, self.gateway_port))


class LocalNode:
    """A node with the `files` driver: firmware, slots and a real agent process."""

    def __init__(self, folder: Path, name: str, agent_config: str, **words: object) -> None:
        """`agent_config` is the agent's TOML; `{root}` and `words` in it are filled in."""
        self.name = name
        self.root = folder / name
        self.config = self.root / "agent.toml"
        self._config_text = agent_config.format(root=self.root, **words)
        self.environ = {**os.environ, "TWINROOT_NODE_ROOT": str(self.root)}
        machine = [sys.executable, "-m", "agent.drivers.files_machine", str(self.root), "--"]
        agent = [*_agent(), "run", "--config", str(self.config)]
        self.process = LocalProcess(name, machine + agent, self.root / "agent.log", self.environ)

    def create(self, image: Path) -> None:
        """Lay out the node with `image` confirmed in slot A, and boot it once: machines join while they run."""
        FilesMachine.create(self.root, image).power_on()
        self.config.write_text(self._config_text)
        identity = self.root / "etc" / "machine-id"
        identity.parent.mkdir()
        identity.write_text(hashlib.sha256(self.name.encode()).hexdigest()[:32] + "\n")

    def join(self, command: list[str], *options: str) -> subprocess.CompletedProcess[str]:
        """Run the console's join command on this node."""
        arguments = [*_agent(), *command[1:], "--config", str(self.config), "--name", self.name, *options]
        return subprocess.run(arguments, env=self.environ, capture_output=True, text=True, timeout=_START_S)

    def start(self) -> None:
        self.process.start()

    def stop(self) -> None:
        self.process.stop()

    def power_cut(self) -> None:
        """The agent dies without a word and the firmware starts over."""
        os.kill(self.process.pid, signal.SIGUSR1)

    def kill_agent(self) -> None:
        """kill -9 of the agent alone; the node's init starts it again in the same boot."""
        os.kill(int((self.root / "run" / "agent.pid").read_text()), signal.SIGKILL)

    def boot(self) -> dict[str, object]:
        """What the firmware wrote at the last boot: boot_id, slot, cause, at."""
        found: dict[str, object] = json.loads((self.root / "run" / "boot.json").read_text())
        return found


def _twinroot() -> list[str]:
    return [sys.executable, "-m", "app.cli"]


def _agent() -> list[str]:
    return [sys.executable, "-m", "agent.cli"]


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if not match:
        raise LocalError(f"expected {pattern} in: {text}")
    return match.group(0)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 (always our own http://127.0.0.1)
            return bool(answer.status == 200)
    except OSError:
        return False
