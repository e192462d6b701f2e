"""A node with the real RAUC at the console: updated, sent back to the factory's slot, given a bundle of strangers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.drivers.rauc_machine import missing, new_key
from tests.e2e.kit import Fleet, names_of
from tests.e2e.rauc_node import RaucNode
from wire.messages import Result

pytestmark = pytest.mark.root

CONTENT = b"root file system "


@pytest.fixture
def rauc(fleet: Fleet) -> Iterator[RaucNode]:
    """Joined, running, and confirmed in the slot that was filled at the factory."""
    if reason := missing():
        pytest.skip(f"real RAUC: {reason}")
    node = RaucNode(fleet.folder, fleet.new_name(), fleet.keys)
    fleet.nodes.append(node)
    try:
        node.power_on()
        joined = node.join(fleet.plane.join_command("--admit"))
        assert joined.returncode == 0, joined.stderr
        check = node.root / "check.d" / "required.d" / "10-app"
        check.parent.mkdir(parents=True)
        check.write_text(f"#!/bin/sh\n[ ! -e {node.root}/broken ] || {{ echo app: no licence; exit 1; }}\n")
        check.chmod(0o755)
        node.start()
        fleet.wait(node, lambda row: row["health"] == "healthy" and row["version"] == "1.0")
        yield node
    finally:
        fleet.remove(node)


def publish(fleet: Fleet, node: RaucNode, version: str, *, key: Path | None = None) -> None:
    """A bundle, signed for RAUC by the machine's key or another, and for the agent by the fleet's."""
    bundle = node.machine.bundle(version, CONTENT + version.encode(), key=key)
    names = names_of(version, node.machine.compatible, str(fleet.row(node)["arch"]))
    fleet.plane.run("image", "sign", "--key", fleet.folder / "image-key", *names, bundle)
    fleet.plane.run("image", "upload", *names, bundle)


def test_updated_and_sent_back_to_the_slot_from_the_factory(fleet: Fleet, rauc: RaucNode) -> None:
    publish(fleet, rauc, "7.1.0")
    factory = rauc.machine.slot("A").read_bytes()
    assert fleet.row(rauc)["os"] == "testbox" and "no way back" in fleet.asked(rauc, "rollback")

    update = fleet.update(rauc, "7.1.0")
    fleet.ended(rauc, update, Result.SUCCEEDED)
    row = fleet.row(rauc)
    assert (row["version"], row["booted_slot"], rauc.machine.booted) == ("7.1.0", "rootfs.1", "B")
    assert rauc.machine.slot("B").read_bytes().startswith(CONTENT + b"7.1.0")
    assert rauc.machine.tries("B") == 3, "marked good"
    assert "Roll back to 1.0" in fleet.page(rauc)

    back = fleet.do(rauc, "rollback", reason="as it left the factory")
    ended = fleet.ended(rauc, back, Result.SUCCEEDED)
    row = fleet.row(rauc)
    assert (row["version"], row["booted_slot"], rauc.machine.booted) == ("1.0", "rootfs.0", "A")
    assert (ended["target_version"], ended["target_digest"]) == ("1.0", ""), "nobody knows its digest"
    assert rauc.machine.slot("A").read_bytes() == factory
    kinds = [event["kind"] for event in fleet.ledger.events(str(row["id"]), operation_id=back)]
    assert "staged" not in kinds and "confirmed" in kinds

    forward = fleet.do(rauc, "rollback", reason="and forth")
    fleet.ended(rauc, forward, Result.SUCCEEDED)
    assert (fleet.row(rauc)["version"], rauc.machine.booted) == ("7.1.0", "B")


def test_a_slot_from_the_factory_that_is_not_healthy_any_more(fleet: Fleet, rauc: RaucNode) -> None:
    publish(fleet, rauc, "7.2.0")
    fleet.ended(rauc, fleet.update(rauc, "7.2.0"), Result.SUCCEEDED)
    back = fleet.do(rauc, "rollback")
    (rauc.root / "broken").touch()
    fleet.until(rauc, lambda: rauc.machine.booted == "A", "tries the factory's slot")
    fleet.until(rauc, lambda: rauc.machine.booted == "B", "comes back")
    (rauc.root / "broken").unlink()
    ended = fleet.ended(rauc, back, Result.FELL_BACK)
    assert "app: no licence" in ended["result_text"]
    assert (fleet.row(rauc)["version"], fleet.row(rauc)["health"]) == ("7.2.0", "healthy")
    assert "no way back" in fleet.asked(rauc, "rollback"), "that slot is marked bad"


def test_a_bundle_that_does_not_come_up(fleet: Fleet, rauc: RaucNode) -> None:
    publish(fleet, rauc, "7.3.0")
    rauc.broken = True
    ended = fleet.ended(rauc, fleet.update(rauc, "7.3.0"), Result.FELL_BACK)
    assert "did not boot" in ended["result_text"]
    assert (fleet.row(rauc)["version"], rauc.machine.booted) == ("1.0", "A")
    assert [failed["version"] for failed in fleet.ledger.failed_versions(fleet.id_of(rauc))] == ["7.3.0"]


def test_a_bundle_that_rauc_does_not_trust_leaves_both_slots_as_they_were(
    fleet: Fleet, rauc: RaucNode, tmp_path: Path
) -> None:
    new_key(tmp_path / "foreign.pem", tmp_path / "foreign.crt")
    publish(fleet, rauc, "7.4.0", key=tmp_path / "foreign.pem")
    before, slots = rauc.machine.slot_bytes(), json.dumps(rauc.slots())
    ended = fleet.ended(rauc, fleet.update(rauc, "7.4.0"), Result.STAGE_FAILED)
    assert "RAUC refuses the bundle: " in ended["result_text"] and ended["result_text"] in fleet.page(rauc)
    assert rauc.machine.slot_bytes() == before and json.dumps(rauc.slots()) == slots
    assert not fleet.ledger.leases(ended["id"])
