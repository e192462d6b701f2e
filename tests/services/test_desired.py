"""What a node is sent."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from sqlalchemy import update

from app.config import Settings
from app.core.errors import NotFound
from app.services import image_urls, nodes
from app.services.desired import desired_for
from app.store import failed_versions, schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR, digest_of
from wire.codec import decode_from_server, encode
from wire.messages import Desired, OperationKind, Order


def sent(db: Database, settings: Settings, node_id: str) -> Desired:
    with db.read() as conn:
        found = desired_for(conn, node_id, settings, NOW)
    (frame,) = encode(found)
    assert decode_from_server(frame) == found
    return found


def test_an_update_with_its_signed_url(database: Database, settings: Settings) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn)
        image_id = kit.add_image(change.conn, "2.0", signature="sig", key_id="key")
    operation_id = nodes.update(database, OPERATOR, node_id, image_id, "fix", NOW)
    found = sent(database, settings, node_id)
    assert found.order == Order(epoch=1, generation=1)
    operation = found.operation
    assert operation is not None and (operation.id, operation.kind) == (operation_id, OperationKind.ACTIVATE)
    assert (operation.author, operation.reason, operation.soak_s) == ("mb", "fix", 600.0)
    image = operation.image
    assert image is not None and (image.digest, image.signature, image.key_id) == (digest_of("2.0"), "sig", "key")
    image_urls.check(settings, image.digest, dict(parse_qsl(urlsplit(image.url).query)), NOW + 10)


def test_an_image_that_lies_elsewhere(database: Database, settings: Settings) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn)
        image_id = kit.add_image(change.conn, "2.0", stored=False, url="https://images.example/2.0")
    nodes.update(database, OPERATOR, node_id, image_id, "", NOW)
    operation = sent(database, settings, node_id).operation
    assert operation is not None and operation.image is not None
    assert operation.image.url == "https://images.example/2.0"


def test_roll_back_names_what_the_passive_slot_must_hold(database: Database, settings: Settings) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn, slots=kit.two_slots("1.0", "0.9", passive_good=True))
    nodes.roll_back(database, OPERATOR, node_id, "", NOW)
    operation = sent(database, settings, node_id).operation
    assert operation is not None and operation.kind is OperationKind.ROLLBACK and operation.image is not None
    assert (operation.image.version, operation.image.digest, operation.image.url) == ("0.9", digest_of("0.9"), "")


def test_roll_back_into_a_factory_slot_names_no_image(database: Database, settings: Settings) -> None:
    booted, passive = kit.two_slots("1.0", "0.9", passive_good=True)
    with database.write() as change:
        node_id = kit.add_node(change.conn, slots=[booted, {**passive, "digest": None}])
    nodes.roll_back(database, OPERATOR, node_id, "", NOW)
    operation = sent(database, settings, node_id).operation
    assert operation is not None and operation.kind is OperationKind.ROLLBACK and operation.image is None


def test_a_reboot_has_no_image(database: Database, settings: Settings) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn)
    nodes.reboot(database, OPERATOR, node_id, "", NOW)
    operation = sent(database, settings, node_id).operation
    assert operation is not None and operation.kind is OperationKind.REBOOT and operation.image is None


def test_cancel_is_a_newer_order_without_an_operation(database: Database, settings: Settings) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn)
    nodes.reboot(database, OPERATOR, node_id, "", NOW)
    nodes.cancel(database, OPERATOR, node_id, "", NOW + 1)
    assert sent(database, settings, node_id) == Desired(order=Order(epoch=1, generation=2))


def test_cleared_versions_come_along(database: Database, settings: Settings) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn)
        for version in ("8.0", "9.0"):
            failed_versions.remember(change.conn, node_id, digest_of(version), version, "bad", None, NOW)
    nodes.clear_failed_version(database, OPERATOR, node_id, digest_of("9.0"), "fixed", NOW)
    assert sent(database, settings, node_id).cleared_digests == [digest_of("9.0")]


@pytest.mark.parametrize("given", [{"admission": "pending"}, {"admission": "retired"}, {"conflict": {"since": NOW}}])
def test_who_is_not_commanded(database: Database, settings: Settings, given: dict[str, Any]) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn)
    nodes.reboot(database, OPERATOR, node_id, "", NOW)
    with database.write() as change:
        change.conn.execute(update(schema.nodes).values(**given))
    assert sent(database, settings, node_id).operation is None


def test_an_unknown_node(database: Database, settings: Settings) -> None:
    with database.read() as conn, pytest.raises(NotFound):
        desired_for(conn, "node_none", settings, NOW)
