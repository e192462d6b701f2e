"""The control plane, an operator at its pages and nodes of the `files` driver, all of them real processes."""

from __future__ import annotations

import hashlib
import itertools
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import msgspec
from click.testing import CliRunner

from agent.cli import cli as agent_cli
from agent.drivers.files_node import NodeFiles
from agent.drivers.files_record import EntryState
from agent.phases.model import State, Step
from agent.state import StateFile
from app.commands import channels, groups, images, join_tokens, login, policy
from app.config import load_settings
from sim.fleet import ARCH, OS, DemoImage, write_image
from sim.local import LocalControlPlane, LocalError, LocalNode, wait_until
from tests.e2e.ledger import Ledger, Row
from tests.e2e.operator_client import Operator
from wire.messages import Result

IMAGES = (
    DemoImage("1.0.0", "start"),
    DemoImage("1.1.0", "good"),
    DemoImage("1.2.0", "check fails", web="down"),
    DemoImage("1.3.0", "does not boot", boot="panic"),
)

AGENT = """\
driver = "files"
root = "{root}"
state_folder = "{root}/agent"
image_keys = "{keys}"
{placement}

[files]
root = "{root}"

[checks]
folders = ["{root}/check.d"]
builtins = ["disk", "state", "engine", "containers"]
interval_s = 0.5
trial_interval_s = 0.3

[witnesses]
default_route = false
urls = {witnesses}
timeout_s = 2.0

[limits]
unasked_confirm_s = 0.5
"""

WEB_CHECK = """\
#!/bin/sh
. "$(dirname "$0")/../../run/os-release"
[ "$DEMO_WEB" = ok ] || { echo "GET /healthz: timed out"; echo "web.service: connection refused"; exit 1; }
"""

POLICY = ("soak_s=1", "confirm_s=6", "offline_grace_s=3", "reconnect_allowance_s=3", "lease_s=30")
"""Seconds for what takes minutes elsewhere; a busy machine of two cores starts an agent within confirm_s."""

TIGHT_S = 0.005
"""Between two looks at a step that may last for milliseconds."""


def names_of(version: str, os: str = OS, arch: str = ARCH) -> tuple[str, ...]:
    """Options that name an image."""
    return "--os", os, "--arch", arch, "--version", version


COMMANDS: dict[str, click.Command] = {
    "image": images.image,
    "channel": channels.channel,
    "policy": policy.policy,
    "group": groups.group,
    "join-token": join_tokens.join_token,
    "login-link": login.login_link,
}


class ControlPlane(LocalControlPlane):
    """`twinroot up` as a process; the commands beside it run here, for each new process costs a second."""

    def run(self, *arguments: str | Path) -> str:
        name, *rest = map(str, arguments)
        done = CliRunner().invoke(COMMANDS[name], rest, obj=load_settings(self.environ))
        if done.exit_code:
            raise LocalError(f"twinroot {name} {' '.join(rest)}: {done.output}{done.exception or ''}")
        return done.stdout


class _Peek(msgspec.Struct):
    step: Step = Step.IDLE


class _PeekFile(msgspec.Struct):
    state: _Peek


@dataclass
class Fleet:
    """The control plane with the test images in it, an operator at its pages, and nodes made on demand."""

    folder: Path
    plane: ControlPlane
    operator: Operator
    image_files: dict[str, Path]
    keys: Path
    ledger: Ledger
    witnesses: str = "[]"
    """Of nodes that name none: with one that stands, a control plane that is slow to come back sends no node back."""
    nodes: list[LocalNode] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # --- nodes ----------------------------------------------------------------------------------------------

    def node(self, *, runtimes: str = "[]", witnesses: str = "", check: str = WEB_CHECK) -> LocalNode:
        """A joined, running and confirmed node on 1.0.0."""
        node = self.powered_off_node(runtimes=runtimes, witnesses=witnesses, check=check)
        joined = node.join(self.plane.join_command("--admit"))
        assert joined.returncode == 0, joined.stderr
        node.start()
        self.wait(node, lambda row: row["connection"] == "online" and row["health"] == "healthy")
        return node

    def powered_off_node(self, *, runtimes: str = "[]", witnesses: str = "", check: str = WEB_CHECK) -> LocalNode:
        """A machine with 1.0.0 that has not joined."""
        placement = "no_containers = true" if runtimes == "[]" else f"runtimes = {runtimes}"
        more = {"keys": self.keys, "placement": placement, "witnesses": witnesses or self.witnesses}
        node = LocalNode(self.folder, self.new_name(), AGENT, **more)
        node.create(self.image_files["1.0.0"])
        script = node.root / "check.d" / "required.d" / "10-web"
        script.parent.mkdir(parents=True)
        script.write_text(check)
        script.chmod(0o755)
        self.nodes.append(node)
        return node

    def new_name(self) -> str:
        return f"node-{next(self._numbers):02}"

    def remove(self, node: LocalNode) -> None:
        """Retire a node that is not needed any more: a stopped one would be missing in the budget of all others."""
        if node.name in self.operator.nodes():
            self.operator.act(self.id_of(node), "retire", confirm=node.name)
            assert self.operator.status == 200, self.operator.visible_text()
        node.stop()
        self.nodes.remove(node)

    @contextmanager
    def inhibited(self, node: LocalNode) -> Iterator[None]:
        """Somebody on the node forbids reboots."""
        inhibit = ["inhibit", "--config", str(node.config)]
        made = CliRunner().invoke(agent_cli, [*inhibit, "--why", "a backup runs"])
        assert made.exit_code == 0, made.output
        yield
        released = CliRunner().invoke(agent_cli, [*inhibit, "--release", made.stdout.strip()])
        assert released.exit_code == 0, released.output

    def lies_at(self, version: str, url: str) -> bytes:
        """Make a signed image known that a server of the test has at `url`; its bytes."""
        file = write_image(DemoImage(version, "elsewhere"), self.folder)
        self.plane.run("image", "sign", "--key", self.folder / "image-key", *names_of(version), file)
        content = file.read_bytes()
        where = ("--url", url, "--size", str(len(content)), "--digest", hashlib.sha256(content).hexdigest())
        self.plane.run(
            "image", "register", *names_of(version), *where, "--signature", file.with_name(file.name + ".sig")
        )
        return content

    def upload(self, image: DemoImage, *, key: Path) -> None:
        """Sign an image with a key of the test's and upload it."""
        folder = self.folder / f"image-{image.version}"
        folder.mkdir()
        file = write_image(image, folder)
        self.plane.run("image", "sign", "--key", key, *names_of(image.version), file)
        self.plane.run("image", "upload", *names_of(image.version), file)

    # --- what pages and nodes say ---------------------------------------------------------------------------

    def row(self, node: LocalNode) -> dict[str, object]:
        """What the Nodes page says of a node now; empty before it has joined."""
        return self.operator.nodes().get(node.name, {})

    def id_of(self, node: LocalNode) -> str:
        return str(self.row(node)["id"])

    def page(self, node: LocalNode) -> str:
        """The text of the node's own page."""
        self.operator.get(f"/nodes/{self.id_of(node)}")
        assert self.operator.status == 200
        return self.operator.visible_text()

    def wait(self, node: LocalNode, condition: Callable[[dict[str, object]], bool], timeout_s: float = 40) -> None:
        """Until the Nodes page says so; what it said last, otherwise."""
        self.until(node, lambda: bool(row := self.row(node)) and condition(row), "the page says so", timeout_s)

    def until(
        self,
        node: LocalNode,
        condition: Callable[[], object],
        what: str,
        timeout_s: float = 40,
        every_s: float = 0.1,
    ) -> None:
        """Wait; when that was in vain, with what node and control plane said last."""
        try:
            wait_until(condition, f"{node.name}: {what}", timeout_s, every_s)
        except Exception as error:
            error.add_note(f"page: {self.row(node)}\n{node.process.tail()}\n{self.plane.process.tail(10)}")
            raise

    def state(self, node: LocalNode) -> State:
        """The agent's memory, as it lies on the node's disk."""
        return msgspec.json.decode((node.root / "agent" / "state.json").read_bytes(), type=StateFile).state

    def link_says(self, node: LocalNode) -> str:
        """Why the node's last connection ended, as it tells people on the node."""
        status = node.root / "agent" / "run" / "status.json"
        return str(json.loads(status.read_bytes()).get("link_text", "")) if status.exists() else ""

    def step(self, node: LocalNode) -> Step:
        return msgspec.json.decode((node.root / "agent" / "state.json").read_bytes(), type=_PeekFile).state.step

    def until_step(self, node: LocalNode, *steps: Step) -> Step:
        """As soon as the node's memory stands there."""
        found = [self.step(node)]

        def there() -> bool:
            found[0] = self.step(node)
            return found[0] in steps

        self.until(node, there, f"reaches {', '.join(steps)}", every_s=TIGHT_S)
        return found[0]

    def log(self, node: LocalNode) -> str:
        """All that firmware and agent have said."""
        return node.process.log.read_text()

    def kill_agent_in(self, node: LocalNode, *steps: Step) -> None:
        """kill -9 of the agent as soon as its memory stands in one of these steps, and it comes up again."""
        deaths = self._deaths(node)
        self.until_step(node, *steps)
        node.kill_agent()
        self.until(node, lambda: self._deaths(node) == deaths + 1, "its init sees the agent killed")

    def _deaths(self, node: LocalNode) -> int:
        return self.log(node).count(f"agent exited with -{signal.SIGKILL}: restarted in the same boot")

    def cut_power_in(self, node: LocalNode, *steps: Step) -> str:
        """A power cut as soon as the node's memory stands in one of these steps; the slot that was booted then."""
        self.until_step(node, *steps)
        boot = node.boot()
        node.power_cut()
        self.until(node, lambda: node.boot()["boot_id"] != boot["boot_id"], "boots again", every_s=TIGHT_S)
        assert node.boot()["cause"] == "power-cut"
        return str(node.boot()["slot"])

    def kill_plane(self) -> None:
        """kill -9 of the whole control plane, and start it again."""
        self.plane.process.stop(signal.SIGKILL)
        self.plane.start()

    # --- what the operator does -----------------------------------------------------------------------------

    def do(self, node: LocalNode, action: str, **values: str) -> str:
        """Ask for an action by its form; the id of the operation that it began."""
        node_id = self.id_of(node)
        before = len(self.ledger.operations(node_id))
        self.operator.act(node_id, action, **values)
        assert self.operator.status == 200, self.operator.visible_text()
        operations = self.ledger.operations(node_id)
        assert len(operations) == before + 1, self.operator.visible_text()
        return str(operations[-1]["id"])

    def update(self, node: LocalNode, version: str, **values: str) -> str:
        """Update the node to a version; the id of the operation."""
        return self.do(node, "update", image_id=self.ledger.image_id(version), **values)

    def update_from_ready(self, node: LocalNode, version: str) -> str:
        """The same, and return before it reboots: what follows may be too short to be seen from a page."""
        with self.inhibited(node):
            operation = self.update(node, version)
            self.until_step(node, Step.READY)
        return operation

    def asked(self, node: LocalNode, action: str) -> str:
        """The words of an action's page before anything is sent."""
        self.operator.get(f"/nodes/{self.id_of(node)}/{action}")
        return self.operator.visible_text()

    def refused(self, node: LocalNode, action: str, **values: str) -> str:
        """The words with which the page refuses an action; nothing was changed by asking."""
        node_id = self.id_of(node)
        before = self.ledger.node(node_id)["order_generation"], self.ledger.operations(node_id)
        self.operator.act(node_id, action, **values)
        assert self.operator.status in (409, 422), (self.operator.status, self.operator.visible_text())
        said = self.operator.visible_text()
        assert (self.ledger.node(node_id)["order_generation"], self.ledger.operations(node_id)) == before
        return said

    def ended(self, node: LocalNode, operation_id: str, result: Result, timeout_s: float = 60) -> Row:
        """Wait for the operation's end and hold against it all that must be true of every end: once, and settled."""
        node_id = self.id_of(node)
        self.until(
            node, lambda: self.ledger.operation(operation_id)["state"] == "ended", f"{operation_id} ends", timeout_s
        )
        operation = self.ledger.operation(operation_id)
        assert operation["result"] == result, (
            f"{operation['result']}: {operation['result_text']}\n{node.process.tail()}"
        )
        self.until(node, lambda: self._settled(node, operation_id), "node and control plane agree", timeout_s)
        self._once(node_id, operation_id)
        told = [ended for ended in self.state(node).ended if ended.operation_id == operation_id]
        assert [ended.result for ended in told] == [result]
        return self.ledger.operation(operation_id)

    def _once(self, node_id: str, operation_id: str) -> None:
        for kind in ("late-report", "unexpected-phase", "order-refused"):
            assert not self.ledger.events(node_id, kind, operation_id)
        assert len(self.ledger.events(node_id, "operation-ended", operation_id)) == 1
        for kind in ("staged", "confirmed", "soaked", "fell-back"):
            assert len(self.ledger.events(node_id, kind, operation_id)) <= 1, kind
        boots = [e["boot_id"] for e in self.ledger.events(node_id) if e["kind"] in ("boot", "boot-unknown")]
        assert len(boots) == len(set(boots)), "a boot was told twice"

    def _settled(self, node: LocalNode, operation_id: str) -> bool:
        """The node has told everything, its lease is back, and both sides have forgotten the operation."""
        row, state = self.row(node), self.state(node)
        return (
            not state.outbox
            and state.operation is None
            and all(lease["ended_at"] is not None for lease in self.ledger.leases(operation_id))
            and self.ledger.node(str(row["id"]))["desired_operation_id"] is None
            and row["connection"] == "online"
            and row["phase"] == "idle"
        )


def unconfirm(node: LocalNode) -> None:
    """While the node is off: its slot A is bootable and was never confirmed, as after an installation by hand."""
    files = NodeFiles(node.root)
    record = files.read_record()
    entry = msgspec.structs.replace(record.a, state=EntryState.TRIAL, tries_left=3)
    files.record.write_bytes(msgspec.json.encode(record.with_entry("A", entry)))


def publish(plane: ControlPlane, folder: Path) -> tuple[dict[str, Path], Path]:
    """Sign and upload IMAGES; their files by version, and the folder with the public key."""
    keys = folder / "keys"
    keys.mkdir()
    (keys / "test.pub").write_text(plane.run("image", "keygen", folder / "image-key"))
    files = {image.version: write_image(image, folder) for image in IMAGES}
    for version, file in files.items():
        plane.run("image", "sign", "--key", folder / "image-key", *names_of(version), file)
        plane.run("image", "upload", *names_of(version), file)
    plane.run("channel", "promote", "stable", *names_of("1.1.0"), "--reason", "test")
    return files, keys
