"""Bad input at every door, with the whole stack running: a clear error that names what is wrong, nothing changed."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from agent.phases.model import Step
from sim.fleet import ARCH, OS, DemoImage, write_image
from sim.local import LocalNode, wait_until
from tests.agent.image_server import ImageServer
from tests.e2e.kit import Fleet, names_of
from wire.messages import Result

# --- images -----------------------------------------------------------------------------------------------------


def test_an_image_signed_by_a_foreign_key(fleet: Fleet, node: LocalNode, tmp_path: Path) -> None:
    """A captured control plane cannot make nodes run a foreign image (rule 11)."""
    fleet.plane.run("image", "keygen", tmp_path / "foreign")
    fleet.upload(DemoImage("6.0.0", "foreign"), key=tmp_path / "foreign")
    said = refused_by_node(fleet, node, "6.0.0")
    assert "untrusted-image" in said and "is signed with key" in said and "does not trust" in said


def test_an_image_with_the_signature_of_another(fleet: Fleet, node: LocalNode, tmp_path: Path) -> None:
    good = fleet.image_files["1.1.0"]
    forged = write_image(DemoImage("6.1.0", "forged"), tmp_path)
    signature = good.with_name(good.name + ".sig")
    fleet.plane.run("image", "upload", *names_of("6.1.0"), "--signature", signature, forged)
    assert "does not match key" in refused_by_node(fleet, node, "6.1.0")


def test_an_image_without_a_signature(fleet: Fleet, node: LocalNode, tmp_path: Path) -> None:
    fleet.plane.run("image", "upload", *names_of("6.2.0"), write_image(DemoImage("6.2.0", "unsigned"), tmp_path))
    assert "carries no signature" in refused_by_node(fleet, node, "6.2.0")


def refused_by_node(fleet: Fleet, node: LocalNode, version: str) -> str:
    """The node refuses it without a byte of it in the passive slot; the words for it, which the page shows."""
    before, boot = slot_bytes(node), node.boot()
    operation = fleet.update(node, version)
    said = str(fleet.ended(node, operation, Result.REFUSED)["result_text"])
    assert said in fleet.page(node)
    assert (slot_bytes(node), node.boot()) == (before, boot)
    assert not fleet.ledger.leases(operation)
    return said


def slot_bytes(node: LocalNode) -> tuple[bytes, bytes]:
    return (node.root / "slots" / "a.img").read_bytes(), (node.root / "slots" / "b.img").read_bytes()


def test_a_server_that_sends_something_else(fleet: Fleet, node: LocalNode) -> None:
    with ImageServer(b"") as server:
        server.content = fleet.lies_at("6.3.0", server.url)[::-1]
        before = slot_bytes(node)
        ended = fleet.ended(node, fleet.update(node, "6.3.0"), Result.STAGE_FAILED)
    assert "what the server sent is sha256:" in ended["result_text"]
    assert slot_bytes(node) == before
    assert not fleet.ledger.failed_versions(fleet.id_of(node)), "the download says nothing against the version"
    fleet.ended(node, fleet.update(node, "1.1.0"), Result.SUCCEEDED)


def test_a_download_that_ends_early_is_resumed(fleet: Fleet, node: LocalNode) -> None:
    with ImageServer(b"") as server:
        server.content = fleet.lies_at("6.4.0", server.url)
        half = len(server.content) // 2
        server.answers = [server.cut_after(half)]
        fleet.ended(node, fleet.update(node, "6.4.0"), Result.SUCCEEDED)
        assert server.requests[1][1] == f"bytes={half}-"
    assert fleet.row(node)["version"] == "6.4.0"


def test_a_download_that_always_ends_early_says_so_and_can_be_cancelled(fleet: Fleet, node: LocalNode) -> None:
    with ImageServer(b"") as server:
        server.content = fleet.lies_at("6.5.0", server.url)
        server.answers = [server.cut_after(0)] * 100
        operation = fleet.update(node, "6.5.0")
        fleet.wait(node, lambda row: "the server ended after 0 of" in str(row["why"]))
        assert "tried again in" in fleet.page(node)
        fleet.operator.act(fleet.id_of(node), "cancel")
        fleet.ended(node, operation, Result.CANCELLED)


def test_a_full_disk_on_the_node(fleet: Fleet, node: LocalNode) -> None:
    agent = int((node.root / "run" / "agent.pid").read_text())
    soft, hard = resource.prlimit(agent, resource.RLIMIT_FSIZE)
    before = slot_bytes(node)
    resource.prlimit(agent, resource.RLIMIT_FSIZE, (1024 * 1024, hard))
    ended = fleet.ended(node, fleet.update(node, "1.1.0"), Result.STAGE_FAILED)
    assert "File too large" in ended["result_text"] and ended["result_text"] in fleet.page(node)
    assert slot_bytes(node) == before
    resource.prlimit(agent, resource.RLIMIT_FSIZE, (soft, hard))
    fleet.ended(node, fleet.update(node, "1.1.0"), Result.SUCCEEDED)


def test_a_full_disk_below_the_agent_s_memory_starts_nothing(fleet: Fleet, node: LocalNode) -> None:
    """What must be on disk before anything is done is not: nothing is done, and the page says why."""
    agent = int((node.root / "run" / "agent.pid").read_text())
    soft, hard = resource.prlimit(agent, resource.RLIMIT_FSIZE)
    resource.prlimit(agent, resource.RLIMIT_FSIZE, (64, hard))
    operation = fleet.update(node, "1.1.0")
    fleet.wait(node, lambda row: "state.json cannot be written: File too large" in str(row["why"]))
    assert fleet.step(node) is Step.IDLE and not fleet.ledger.leases(operation)
    resource.prlimit(agent, resource.RLIMIT_FSIZE, (soft, hard))
    fleet.ended(node, operation, Result.SUCCEEDED)


@pytest.mark.parametrize(("os_name", "arch"), [("other-os", ARCH), (OS, "arm64")])
def test_an_image_for_another_machine_is_refused_by_name(
    fleet: Fleet, node: LocalNode, tmp_path: Path, os_name: str, arch: str
) -> None:
    version = "6.6.0" if arch == ARCH else "6.7.0"
    file = tmp_path / "plain.img"
    file.write_bytes(b"no header that would say otherwise")
    fleet.plane.run("image", "upload", *names_of(version, os_name, arch), file)
    said = fleet.refused(node, "update", image_id=fleet.ledger.image_id(version))
    assert version in said and node.name in said and (os_name if arch == ARCH else arch) in said
    fleet.operator.get(f"/nodes/{fleet.id_of(node)}/update")
    assert version not in fleet.operator.visible_text(), "it is not offered either"


def test_unknown_things(fleet: Fleet, node: LocalNode) -> None:
    node_id = fleet.id_of(node)
    fleet.operator.act(node_id, "update", image_id="image_none")
    assert fleet.operator.status == 404 and "image_none" in fleet.operator.visible_text()
    assert not fleet.ledger.operations(node_id)
    for path in ("/nodes/node_none", f"/nodes/{node_id}/explode", "/images/image_none"):
        fleet.operator.get(path)
        assert fleet.operator.status == 404


# --- joining ----------------------------------------------------------------------------------------------------


def test_a_wrong_fingerprint_does_not_spend_the_token(fleet: Fleet) -> None:
    machine, command = fleet.powered_off_node(), fleet.plane.join_command("--admit")
    token = fleet.ledger.join_tokens()[-1]
    other = [*command[:-1], "sha256:" + "0" * 64]
    refused = machine.join(other)
    assert refused.returncode == 1 and "The token was not spent" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1, "one clear line"
    assert fleet.ledger.join_tokens()[-1] == token
    fleet.operator.get("/joining")
    assert "The fingerprint in the join command is of no key" in fleet.operator.visible_text()
    assert machine.join(command).returncode == 0


def test_tokens_that_let_nobody_in_are_named_on_the_page(fleet: Fleet) -> None:
    spent = fleet.plane.join_command()
    assert fleet.powered_off_node().join(spent).returncode == 0
    expired = fleet.plane.join_command("--expires", "1s")
    over_at = fleet.ledger.join_tokens()[-1]["expires_at"]
    foreign = fleet.plane.join_command("--network", "192.0.2.0/24")
    revoked = fleet.plane.join_command()
    fleet.plane.run("join-token", "revoke", fleet.ledger.join_tokens()[-1]["id"])
    wait_until(lambda: time.time() > over_at, "the token expires")
    unknown = [*spent[:3], "twj_" + "x" * 43, *spent[4:]]

    expected = {
        "spent": (spent, "its only use is gone"),
        "expired": (expired, "has expired"),
        "foreign": (foreign, "may be used from 192.0.2.0/24, and this machine comes from 127.0.0.1"),
        "revoked": (revoked, "was revoked"),
        "unknown": (unknown, "is not known here"),
    }
    for command, words in expected.values():
        machine = fleet.powered_off_node()
        done = machine.join(command)
        assert done.returncode == 1 and words in done.stderr, done.stderr
        fleet.operator.get("/joining")
        assert words in fleet.operator.visible_text()
        attempt = fleet.ledger.join_attempts()[-1]
        assert attempt["name"] == machine.name and words in attempt["text"] and attempt["node_id"] is None


# --- browsers ---------------------------------------------------------------------------------------------------


def test_a_form_on_a_foreign_page_changes_nothing(fleet: Fleet, node: LocalNode) -> None:
    node_id = fleet.id_of(node)
    fleet.operator.submit(f"/nodes/{node_id}/reboot", "/reboot", origin="https://evil.example", reason="x")
    assert fleet.operator.status == 403 and "https://evil.example" in fleet.operator.visible_text()
    fleet.operator.submit(f"/nodes/{node_id}/reboot", "/reboot", csrf="guessed", reason="x")
    assert fleet.operator.status == 403
    assert not fleet.ledger.operations(node_id)


@pytest.mark.parametrize(("own_origin", "signed_in", "status"), [(False, True, 403), (True, False, 401)])
def test_live_pages_of_others(fleet: Fleet, own_origin: bool, signed_in: bool, status: int) -> None:
    origin = fleet.plane.url if own_origin else "https://evil.example"
    with pytest.raises(InvalidStatus) as refused:
        live(fleet, origin, fleet.operator.cookies if signed_in else "").close()
    assert refused.value.response.status_code == status


def test_live_pages_of_ours(fleet: Fleet) -> None:
    with live(fleet, fleet.plane.url, fleet.operator.cookies) as page:
        page.send('{"topics": ["fleet"]}')
        assert "fleet" in str(page.recv(10))


def live(fleet: Fleet, origin: str, cookies: str) -> connect:
    url = f"ws://127.0.0.1:{fleet.plane.gateway_port}/live"
    return connect(url, origin=origin, additional_headers={"Cookie": cookies} if cookies else {}, proxy=None)
