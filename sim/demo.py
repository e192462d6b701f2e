"""`twinroot demo`: a console and a small fleet of real agents on this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from sim.fleet import ARCH, IMAGES, OS, DemoNode, demo_nodes, write_image
from sim.local import LocalControlPlane, LocalError, LocalNode, LocalProcess, free_port, port_problem

AGENT_CONFIG = """\
driver = "files"
root = "{root}"
state_folder = "{root}/agent"
image_keys = "{keys}"
runtimes = ["{root}/engine.sock"]

[files]
root = "{root}"

[checks]
folders = ["{root}/check.d"]
builtins = ["disk", "memory", "state", "engine", "containers"]
interval_s = 5.0
trial_interval_s = 1.0

[limits]
unasked_confirm_s = 2.0
"""

_WEB_CHECK = """\
#!/bin/sh
# The node's own web server, as the booted image has it.
. "$(dirname "$0")/../../run/os-release"
if [ "$DEMO_WEB" = down ]; then
    echo "GET http://127.0.0.1/healthz: connection refused"
    echo "web.service: main process exited, code=exited, status=78/CONFIG"
    exit 1
fi
echo "GET http://127.0.0.1/healthz: 200"
"""

_POLICY = ("soak_s=20", "confirm_s=15", "offline_grace_s=10", "reconnect_allowance_s=10")
"""Minutes in production; seconds here, so that one can watch."""

_WHERE = ("TWINROOT_DATA_DIR", "TWINROOT_HTTP", "TWINROOT_GATEWAY")
"""What commands beside the demo must know of it."""

GROUP = "demo"
_GROUP_POLICY = (
    "canaries=1",
    "canary_soak_s=10s",
    "max_unavailable=3",
    "domain_label=zone",
    "max_per_domain=2",
    "stage_jitter_s=5s",
)


class DemoFleet:
    """Control plane, images and nodes in one folder; `start` and `stop` in order."""

    def __init__(self, folder: Path, nodes: int, http_port: int = 0, gateway_port: int = 0) -> None:
        self.folder = folder
        self.plane = LocalControlPlane(folder, http_port, gateway_port)
        self.nodes = [self._node(demo) for demo in demo_nodes(nodes)]
        self._demo_nodes = demo_nodes(nodes)
        self._engines = LocalProcess(
            "engines",
            [sys.executable, "-m", "sim.engine", str(folder / "engines.json")],
            folder / "engines.log",
            self.plane.environ,
        )

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.plane.start()
        self.plane.run("policy", "set", *_POLICY, "--reason", "a demo shows in seconds what takes minutes")
        first = self._images()
        words = ("--selector", "*", "--channel", "stable", "--reason", "every node of the demo")
        self.plane.run("group", "add", GROUP, *_GROUP_POLICY, *words)
        self._start_engines()
        command = self.plane.join_command("--uses", str(len(self.nodes)), "--channel", "stable", "--admit")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda node: self._start_node(node, first, command), self.nodes))

    def stop(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda node: node.stop(), self.nodes))
        self._engines.stop()
        self.plane.stop()

    def _node(self, demo: DemoNode) -> LocalNode:
        return LocalNode(self.folder / "nodes", demo.name, AGENT_CONFIG, keys=self.folder / "image-keys")

    def _images(self) -> Path:
        """Write, sign and upload the demo images; the file that the fleet starts from."""
        folder = self.folder / "images"
        keys = self.folder / "image-keys"
        folder.mkdir()
        keys.mkdir()
        private = self.folder / "image-key"
        (keys / "demo.pub").write_text(self.plane.run("image", "keygen", private))
        files = []
        for image in IMAGES:
            file = write_image(image, folder)
            files.append(file)
            names = ("--os", OS, "--arch", ARCH, "--version", image.version)
            self.plane.run("image", "sign", "--key", private, *names, file)
            self.plane.run("image", "upload", *names, "--notes", image.notes, "--reason", "demo", file)
            for channel in image.channels:
                self.plane.run("channel", "promote", channel, *names, "--reason", "demo")
        return files[0]

    def _start_engines(self) -> None:
        engines = [
            {
                "socket": str(node.root / "engine.sock"),
                "boot_file": str(node.root / "run" / "boot.json"),
                "containers": [
                    {
                        "name": f"{service}-1" if project else service,
                        "image": image,
                        "labels": _labels(project, service),
                    }
                    for project, service, image in demo.containers
                ],
            }
            for node, demo in zip(self.nodes, self._demo_nodes, strict=True)
        ]
        (self.folder / "engines.json").write_text(json.dumps(engines))
        self._engines.start()

    def _start_node(self, node: LocalNode, image: Path, command: list[str]) -> None:
        node.create(image)
        check = node.root / "check.d" / "required.d" / "10-web"
        check.parent.mkdir(parents=True)
        check.write_text(_WEB_CHECK)
        check.chmod(0o755)
        demo = next(demo for demo in self._demo_nodes if demo.name == node.name)
        labels = [word for key, value in demo.labels.items() for word in ("--label", f"{key}={value}")]
        joined = node.join(command, *labels)
        if joined.returncode:
            raise LocalError(f"{node.name} could not join: {joined.stderr.strip()}")
        node.start()


def run_demo(nodes: int) -> None:
    """Run until SIGINT or SIGTERM; LocalError when something could not start."""
    try:
        ports = demo_port("TWINROOT_HTTP", os.environ, 8080), demo_port("TWINROOT_GATEWAY", os.environ, 8090)
    except LocalError as error:
        fail(error)
    folder = Path(tempfile.mkdtemp(prefix="twinroot-demo-"))
    fleet = DemoFleet(folder, nodes, *ports)
    try:
        with _until_signal():
            say(f"starting a console and {nodes} nodes in {folder} …")
            fleet.start()
            say(f"{nodes} nodes have joined. Sign in once, within 15 minutes:\n\n    {fleet.plane.login_link()}\n")
            say("Update a node to 1.1.0 (good), 1.2.0 (its check fails: watch it fall back) or 1.3.0 (does not boot).")
            say(f"Or roll 1.1.0 out: Rollouts, Compose, group {GROUP}. With 1.2.0 the canary stops it.\n")
            where = " ".join(f"{name}={fleet.plane.environ[name]}" for name in _WHERE)
            say(f"Commands beside it, in another terminal, need:\n\n    export {where}\n")
            say("Signed out? .venv/bin/twinroot login-link prints another link.")
            say("Ctrl-C stops all of it.")
            signal.pause()
    except LocalError as error:
        fail(error)
    finally:
        say("stopping …")
        fleet.stop()
        shutil.rmtree(folder)


def fail(error: LocalError) -> NoReturn:
    """As every command says why it ends."""
    print(f"twinroot: {error}", file=sys.stderr, flush=True)
    sys.exit(1)


def say(text: str) -> None:
    print(text, flush=True)


class _Stop(BaseException):
    """A signal asked us to stop; not an error."""


@contextlib.contextmanager
def _until_signal() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _Stop

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _Stop:
        pass
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # stopping takes a moment; a second Ctrl-C must not leave children


def _labels(project: str, service: str) -> dict[str, str]:
    if not project:
        return {}
    return {"com.docker.compose.project": project, "com.docker.compose.service": service}


def demo_port(setting: str, environ: Mapping[str, str], preferred: int) -> int:
    """The port of an address like 127.0.0.1:8080 in the environment, else `preferred`, else one that is free.

    LocalError when the address is not one of this machine alone (its sign-in link is for whoever sees the terminal), or
    when somebody listens there already.
    """
    address = environ.get(setting, "")
    if not address:
        return _preferred_port(preferred)
    host, _, port = address.rpartition(":")
    if host != "127.0.0.1" or not port.isdecimal() or not 0 < int(port) < 65536:
        raise LocalError(f"{setting}={address}: the demo listens on 127.0.0.1:PORT only")
    if problem := port_problem(int(port)):
        raise LocalError(f"{setting}={address}: {problem}")
    return int(port)


def _preferred_port(port: int) -> int:
    return free_port() if port_problem(port) else port
