"""Rollouts by the console's own forms, and how far they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from app.core.rollouts import TERMINAL, RolloutNodeState, RolloutState
from sim.fleet import DemoImage
from sim.local import LocalError, LocalNode, wait_until
from tests.e2e.kit import Fleet
from tests.e2e.ledger import Row

POLICY = (
    "canaries=1",
    "canary_soak_s=1s",
    "max_unavailable=3",
    "soak_s=1s",
    "confirm_s=20s",
    "stage_jitter_s=0s",
)
"""Of groups: what is left to hold nodes are the floors."""

LONG_S = 150.0
"""Five reboots one after another on a machine that is busy with other things."""


def make_group(fleet: Fleet, name: str, selector: str, *fields: str) -> None:
    fleet.plane.run("group", "add", name, *POLICY, *fields, "--selector", selector, "--reason", "tests")


def join_all(fleet: Fleet, nodes: Sequence[LocalNode], labels: Sequence[Sequence[str]]) -> None:
    """All join with their labels, start and are healthy."""
    command = fleet.plane.join_command("--admit", "--uses", str(len(nodes)))
    for node, words in zip(nodes, labels, strict=True):
        joined = node.join(command, *(part for word in words for part in ("--label", word)))
        assert joined.returncode == 0, joined.stderr
        node.start()
    for node in nodes:
        fleet.wait(node, lambda row: row["connection"] == "online" and row["health"] == "healthy")


def new_version(fleet: Fleet) -> str:
    """A good image that is newer than all others."""
    version = f"3.{len(fleet.ledger.images())}.0"
    fleet.upload(DemoImage(version, "good"), key=fleet.folder / "image-key")
    return version


def compose(fleet: Fleet, group: str, version: str, **policy: str) -> int:
    """Draft it, with fields of the policy for this rollout alone; its number."""
    operator = fleet.operator
    words = {"target": f"version:{version}", "reason": f"{group} to {version}", **policy}
    operator.submit(f"/rollouts/new?group={group}", "/rollouts/new", **words)
    assert operator.status == 200 and "drafted by" in operator.visible_text(), operator.visible_text()
    return int(operator.visible_text().partition("Draft ")[2].partition(":")[0])


def act(fleet: Fleet, number: int, action: str, **values: str) -> None:
    fleet.operator.submit(f"/rollouts/{number}/{action}", f"/{action}", reason=f"test: {action}", **values)
    assert fleet.operator.status == 200, fleet.operator.visible_text()


def start(fleet: Fleet, group: str, version: str, **policy: str) -> int:
    """Compose and start it; its number."""
    number = compose(fleet, group, version, **policy)
    fleet.operator.get(f"/rollouts/{number}/start")
    confirm = {"confirm": group} if 'name="confirm"' in fleet.operator.text else {}
    act(fleet, number, "start", **confirm)
    assert fleet.ledger.rollout(number)["state"] == RolloutState.RUNNING
    return number


def until(fleet: Fleet, number: int, condition: Callable[[], object], what: str, timeout_s: float = LONG_S) -> None:
    """Wait; when that was in vain, with what every node of the rollout waits for."""
    try:
        wait_until(condition, f"rollout {number}: {what}", timeout_s, every_s=0.05)
    except LocalError as error:
        rows = fleet.ledger.rollout_nodes(number)
        said = [f"{name}: {row['state']} {row['text']} {row['hold']}" for name, row in rows.items()]
        error.add_note("\n".join([str(fleet.ledger.rollout(number)["state_text"]), *said, fleet.plane.process.tail(5)]))
        raise


def until_ended(fleet: Fleet, number: int, timeout_s: float = LONG_S) -> Row:
    until(fleet, number, lambda: fleet.ledger.rollout(number)["state"] in TERMINAL, "ends", timeout_s)
    return fleet.ledger.rollout(number)


def in_state(fleet: Fleet, number: int, *states: RolloutNodeState) -> set[str]:
    """Names of its nodes."""
    return {name for name, row in fleet.ledger.rollout_nodes(number).items() if row["state"] in states}


def holds(fleet: Fleet, number: int, names: Collection[str]) -> set[str]:
    """Codes of what these nodes of it wait for; empty for those that do not."""
    rows = fleet.ledger.rollout_nodes(number)
    return {str((rows[name]["hold"] or {}).get("code", "")) for name in names}
