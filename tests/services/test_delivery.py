"""What the policy says of downloads and draining reaches the node, by single orders and by rollouts, and only where the
order downloads or reboots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from app.config import Settings
from app.core.group_policy import GroupPolicy
from app.core.policy_json import policy_to_builtins
from app.services import groups, nodes
from app.services.desired import desired_for
from app.services.orders import Wish, begin, locked_node
from app.services.rollout_orders import give_orders
from app.services.rollout_spec import RolloutSpec
from app.services.rollout_start import start
from app.services.rollouts import draft
from app.store.database import Database
from tests import server_kit as kit
from tests.rollout_kit import add_group
from tests.server_kit import NOW, OPERATOR, digest_of
from wire.codec import decode_from_server, encode
from wire.messages import Desired, Operation, OperationKind

POLICY = GroupPolicy(
    stage_jitter_s=0.0,
    drain="web",
    drain_s=77.0,
    mirrors=("https://near.example/images", "https://far.example/images"),
    bandwidth_bytes_s=1_500_000,
)
DOWNLOADS = (list(POLICY.mirrors), POLICY.bandwidth_bytes_s)
DRAINS = (POLICY.drain, POLICY.drain_s)


def sent(db: Database, settings: Settings, node_id: str) -> Operation:
    """What the node reads from the frame that it is sent."""
    with db.read() as conn:
        (frame,) = encode(desired_for(conn, node_id, settings, NOW))
    found = decode_from_server(frame)
    assert isinstance(found, Desired) and found.operation is not None
    return found.operation


def downloads(told: Operation) -> tuple[list[str], int]:
    return told.mirrors, told.bandwidth_bytes_s


def drains(told: Operation) -> tuple[str, float]:
    return told.drain, told.drain_s


class Fleet:
    """A node of a group with this policy, that has a way back, and an image that it could be updated to."""

    def __init__(self, db: Database) -> None:
        self.db = db
        with db.write() as change:
            self.group_id = add_group(change.conn, policy=policy_to_builtins(POLICY))
            slots = kit.two_slots("1.0", "0.9", passive_good=True)
            self.node_id = kit.add_node(change.conn, labels={"role": "web"}, slots=slots)
            self.image_id = kit.add_image(change.conn, "2.0")
            change.touch("groups", "nodes")

    def wish(self, kind: OperationKind) -> None:
        """An order that no operator gives."""
        with self.db.write() as change:
            wish = Wish(kind, self.image_id, "2.0", digest_of("2.0"))
            begin(change, OPERATOR, locked_node(change, self.node_id), wish, "", NOW)

    def roll_out(self) -> str:
        spec = RolloutSpec(group_id=self.group_id, version="2.0", reason="monthly")
        made = draft(self.db, OPERATOR, spec, NOW)
        start(self.db, OPERATOR, made, "go", NOW, start_anyway=True)
        return made


@pytest.mark.parametrize(
    ("order", "kind", "told"),
    [
        (lambda f: nodes.update(f.db, OPERATOR, f.node_id, f.image_id, "", NOW), "activate", (DOWNLOADS, DRAINS)),
        (lambda f: nodes.roll_back(f.db, OPERATOR, f.node_id, "", NOW), "rollback", (([], 0), DRAINS)),
        (lambda f: nodes.reboot(f.db, OPERATOR, f.node_id, "", NOW), "reboot", (([], 0), DRAINS)),
        (lambda f: f.wish(OperationKind.STAGE), "stage", (DOWNLOADS, ("", 0.0))),
        (lambda f: f.wish(OperationKind.DISARM), "disarm", (([], 0), ("", 0.0))),
    ],
)
def test_each_order_says_what_it_needs(
    database: Database, settings: Settings, order: Callable[[Fleet], object], kind: str, told: tuple[object, object]
) -> None:
    fleet = Fleet(database)
    order(fleet)
    found = sent(database, settings, fleet.node_id)
    assert (found.kind.value, (downloads(found), drains(found))) == (kind, told)


def test_a_node_without_a_group_is_told_nothing_of_it(database: Database, settings: Settings) -> None:
    with database.write() as change:
        node_id, image_id = kit.add_node(change.conn), kit.add_image(change.conn, "2.0")
    nodes.update(database, OPERATOR, node_id, image_id, "", NOW)
    found = sent(database, settings, node_id)
    assert (downloads(found), found.drain) == (([], 0), "")


def test_a_rollout_tells_what_it_froze(database: Database, settings: Settings) -> None:
    """What its group says later is for the next one."""
    fleet = Fleet(database)
    fleet.roll_out()
    later = groups.Wish(policy={"drain": "other", "mirrors": [], "bandwidth_bytes_s": 9})
    groups.change(database, OPERATOR, fleet.group_id, later, "from now on", NOW)
    assert give_orders(database, NOW) == 1
    found = sent(database, settings, fleet.node_id)
    assert (found.kind, downloads(found), drains(found)) == (OperationKind.ACTIVATE, DOWNLOADS, DRAINS)


def test_what_is_set_for_one_rollout_is_what_its_nodes_are_told(database: Database, settings: Settings) -> None:
    fleet = Fleet(database)
    policy = replace(POLICY, mirrors=("https://other.example/images",), bandwidth_bytes_s=250_000, drain="gently")
    spec = RolloutSpec(group_id=fleet.group_id, version="2.0", reason="monthly", policy=policy)
    start(database, OPERATOR, draft(database, OPERATOR, spec, NOW), "go", NOW, start_anyway=True)
    assert give_orders(database, NOW) == 1
    found = sent(database, settings, fleet.node_id)
    assert downloads(found) == (["https://other.example/images"], 250_000) and drains(found) == ("gently", 77.0)
