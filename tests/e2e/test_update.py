"""A node's life from the console: updated, switched over, sent back, pinned, cancelled, rescued, retired."""

from __future__ import annotations

from agent.phases.model import Step
from sim.local import LocalNode
from tests.e2e.kit import Fleet, unconfirm
from wire.messages import Result


def test_updated_and_sent_back_without_a_download(fleet: Fleet, node: LocalNode) -> None:
    before = node.boot()
    operation = fleet.update(node, "1.1.0", reason="first update")
    ended = fleet.ended(node, operation, Result.SUCCEEDED)
    assert (fleet.row(node)["version"], fleet.row(node)["booted_slot"]) == ("1.1.0", "B")
    assert node.boot()["slot"] == "B" and ended["old_boot_id"] == before["boot_id"] != node.boot()["boot_id"]
    kinds = [event["kind"] for event in fleet.ledger.events(fleet.id_of(node), operation_id=operation)]
    assert [kind for kind in kinds if kind != "lease-returned"] == [
        *("operation-begun", "staged", "lease-granted", "armed"),
        *("boot", "confirmed", "soaked", "operation-ended"),
    ]
    # A busy server may hear of the whole soak at once; but never before the node told that it is confirmed.
    assert kinds.count("lease-returned") == 1 and kinds.index("confirmed") < kinds.index("lease-returned")
    page = fleet.page(node)
    assert "succeeded 1.1.0" in page and "Roll back to 1.0.0" in page and "“first update”" in page

    back = fleet.do(node, "rollback", reason="enough seen")
    fleet.ended(node, back, Result.SUCCEEDED)
    assert (fleet.row(node)["version"], fleet.row(node)["booted_slot"]) == ("1.0.0", "A")
    kinds = [event["kind"] for event in fleet.ledger.events(fleet.id_of(node), operation_id=back)]
    assert "staged" not in kinds and "armed" in kinds, "the passive slot was booted as it was"
    assert not fleet.ledger.failed_versions(fleet.id_of(node)), "an operator's wish says nothing against a version"


def test_an_image_whose_check_fails_sends_the_node_back(fleet: Fleet, node: LocalNode) -> None:
    operation = fleet.update(node, "1.2.0")
    ended = fleet.ended(node, operation, Result.FELL_BACK)
    fleet.wait(node, lambda row: row["health"] != "unknown")  # its checks run once it is up
    row, page = fleet.row(node), fleet.page(node)
    assert (row["version"], row["booted_slot"], row["health"]) == ("1.0.0", "A", "healthy")
    assert "required.d/10-web" in ended["result_text"] and "connection refused" in ended["result_text"]
    assert "GET /healthz: timed out" in ended["failed_checks"][0]["output"], "the first line is kept too"
    assert "GET /healthz: timed out" in page and "marked bad" in page
    assert [failed["version"] for failed in fleet.ledger.failed_versions(str(row["id"]))] == ["1.2.0"]
    assert len(fleet.ledger.events(str(row["id"]), "fell-back")) == 1

    assert "1.2.0 failed on" in fleet.refused(node, "update", image_id=fleet.ledger.image_id("1.2.0"))
    digest = fleet.ledger.failed_versions(str(row["id"]))[0]["digest"]
    fleet.operator.submit(
        f"/nodes/{row['id']}/clear-failed-version?digest={digest}", "/clear-failed-version", reason="fixed outside"
    )
    assert not fleet.ledger.failed_versions(str(row["id"]))
    node.root.joinpath("check.d/required.d/10-web").write_text("#!/bin/sh\n")
    again = fleet.update(node, "1.2.0")
    fleet.ended(node, again, Result.SUCCEEDED)
    assert fleet.row(node)["version"] == "1.2.0"


def test_an_image_that_does_not_boot_falls_back_by_the_boot_record(fleet: Fleet, node: LocalNode) -> None:
    operation = fleet.update(node, "1.3.0")
    ended = fleet.ended(node, operation, Result.FELL_BACK)
    row = fleet.row(node)
    assert (row["version"], row["booted_slot"]) == ("1.0.0", "A")
    assert "did not boot" in ended["result_text"] and "did not boot" in fleet.page(node)
    assert fleet.log(node).count("slot B: panic") == 3, "all its tries"
    boots = [event for event in fleet.ledger.events(str(row["id"]), "boot") if event["operation_id"] == operation]
    assert [event["cause"] for event in boots] == ["fallback"]

    said = fleet.refused(node, "update", image_id=fleet.ledger.image_id("1.3.0"))
    assert "1.3.0 failed on" in said and "did not boot" in said
    override = fleet.update(node, "1.3.0", override_failed="yes", reason="once more, to be sure")
    fleet.ended(node, override, Result.FELL_BACK)


def test_a_pin_refuses_what_it_does_not_lead_to_and_never_the_way_back(fleet: Fleet, node: LocalNode) -> None:
    fleet.ended(node, fleet.update(node, "1.1.0"), Result.SUCCEEDED)
    pinned = fleet.ledger.image_id("1.1.0")
    fleet.operator.act(fleet.id_of(node), "pin", to=f"image:{pinned}", reason="certified")
    assert "pinned to version 1.1.0" in fleet.page(node)
    assert fleet.row(node)["pinned_to"]
    said = fleet.refused(node, "update", image_id=fleet.ledger.image_id("1.2.0"))
    assert "pinned" in said and "“certified”" in said
    fleet.ended(node, fleet.do(node, "rollback"), Result.SUCCEEDED)
    assert fleet.row(node)["version"] == "1.0.0"
    fleet.ended(node, fleet.update(node, "1.1.0"), Result.SUCCEEDED)
    fleet.operator.act(fleet.id_of(node), "unpin")
    assert "pinned to" not in fleet.page(node)


def test_cancelled_before_it_is_armed_nothing_is_rebooted(fleet: Fleet, node: LocalNode) -> None:
    boot = node.boot()
    with fleet.inhibited(node):
        operation = fleet.update(node, "1.1.0")
        fleet.wait(node, lambda row: row["phase"] == "staged" and "inhibited" in str(row["why"]))
        cancelled = fleet.ledger.operations(fleet.id_of(node))
        fleet.operator.act(fleet.id_of(node), "cancel", reason="not today")
        fleet.ended(node, operation, Result.CANCELLED)
        assert len(fleet.ledger.operations(fleet.id_of(node))) == len(cancelled)
    node.power_cut()
    fleet.until(node, lambda: node.boot() != boot, "boots again")
    assert node.boot()["slot"] == "A", "what is staged is not what boots"
    fleet.wait(node, lambda row: row["connection"] == "online" and row["health"] == "healthy")
    assert fleet.step(node) is Step.IDLE


def test_reboot_into_the_same_slot(fleet: Fleet, node: LocalNode) -> None:
    before = node.boot()
    operation = fleet.do(node, "reboot", reason="a leak")
    fleet.ended(node, operation, Result.SUCCEEDED)
    assert node.boot()["slot"] == "A" and node.boot()["boot_id"] != before["boot_id"]
    boots = fleet.ledger.events(fleet.id_of(node), "boot", operation)
    assert [(event["cause"], event["boot_id"]) for event in boots] == [("operation", node.boot()["boot_id"])]


def test_rescue_confirms_a_slot_whose_checks_fail(fleet: Fleet) -> None:
    node = fleet.powered_off_node(check="#!/bin/sh\necho the camera is unplugged; exit 1\n")
    assert node.join(fleet.plane.join_command("--admit")).returncode == 0
    unconfirm(node)
    node.start()
    fleet.wait(node, lambda row: row["health"] == "unhealthy")
    update = fleet.update(node, "1.1.0")
    fleet.wait(node, lambda row: "not confirmed" in str(row["why"]))
    assert not fleet.ledger.leases(update) and fleet.step(node) is Step.HELD, "nothing is written over the way back"
    rescue = fleet.do(node, "rescue", reason="the camera is being repaired")
    fleet.ended(node, rescue, Result.SUCCEEDED)
    fleet.ended(node, update, Result.CANCELLED)
    slot = next(slot for slot in fleet.ledger.node(fleet.id_of(node))["slots"] if slot["booted"])
    assert slot["good"] and fleet.row(node)["health"] == "unhealthy"
    assert "the camera is unplugged" in fleet.page(node)
    node.root.joinpath("check.d/required.d/10-web").write_text("#!/bin/sh\n")
    fleet.ended(node, fleet.update(node, "1.1.0"), Result.SUCCEEDED)


def test_two_nodes_take_turns(fleet: Fleet, node: LocalNode) -> None:
    other = fleet.node()
    first = fleet.update(node, "1.1.0")
    fleet.until(node, lambda: fleet.ledger.leases(first), "the first has the lease")
    second = fleet.update(other, "1.1.0")
    fleet.ended(node, first, Result.SUCCEEDED)
    fleet.ended(other, second, Result.SUCCEEDED)
    one, two = fleet.ledger.leases(first)[-1], fleet.ledger.leases(second)[0]
    assert one["ended_at"] <= two["granted_at"], "nodes without a group share a budget of one"


def test_a_retired_node_gets_its_close_and_stays_away(fleet: Fleet, node: LocalNode) -> None:
    node_id = fleet.id_of(node)
    said = fleet.refused(node, "retire", reason="gone", confirm="another name")
    assert f"Type the node's name, {node.name}" in said
    fleet.operator.act(node_id, "retire", reason="sold", confirm=node.name)
    fleet.until(node, lambda: fleet.ledger.node(node_id)["connection"] == "offline", "its connection is closed")
    assert node.name not in fleet.operator.nodes()
    assert fleet.operator.nodes("state:retired")[node.name]["id"] == node_id
    fleet.until(node, lambda: "retired by an operator" in fleet.link_says(node), "the node knows why")
    online = len(fleet.ledger.events(node_id, "online"))
    (node.root / "agent" / "run" / "status.json").unlink()
    node.kill_agent()
    fleet.until(node, lambda: "retired by an operator" in fleet.link_says(node), "tried once more")
    assert len(fleet.ledger.events(node_id, "online")) == online
    fleet.operator.get(f"/nodes/{node_id}")
    assert "It may not connect" in fleet.operator.visible_text()
