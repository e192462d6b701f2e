"""Rule 9: every change and its audit entry are one transaction. Where the entry cannot be written, nothing changes.

The log is taken away, and each intention is tried: it must fail and leave every table as it was.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from app.config import Settings
from app.services import (
    channels,
    deadlines,
    fleet,
    freezes,
    groups,
    images,
    joining,
    nodes,
    saved_views,
    server_keys,
    sign_in,
)
from app.services.images import Description
from app.services.server_keys import ServerKey
from app.store import schema
from app.store.database import Database
from app.store.sign_in import Session
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR, digest_of
from tests.services.image_kit import Signer, digest_of_bytes, image_bytes
from wire import identity
from wire.messages import Join, OsFacts

LATER = NOW + 1000


@dataclass
class World:
    """What the intentions below are about."""

    db: Database
    settings: Settings
    idle: str
    busy: str
    pinned: str
    pending: str
    torn: str
    image: str
    newer: str
    channel: str
    token_id: str
    token: str
    link: str
    session: Session
    view: str
    group: str
    freeze: str
    old_key: ServerKey
    signer: Signer


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    db = database
    token_id, token = joining.create_token(db, OPERATOR, expires_at=NOW + 9000, max_uses=5, reason="", now=NOW)
    secret = sign_in.use_login_link(db, sign_in.create_login_link(db, "mb", NOW), NOW)
    old_key = server_keys.current_key(db, settings, NOW)
    server_keys.rotate(db, settings, OPERATOR, reason="test", now=NOW)
    view = saved_views.save(db, OPERATOR, "mine", "q=a", NOW)
    link = sign_in.create_login_link(db, "mb", NOW, ttl_s=9000)
    group = groups.create(db, OPERATOR, groups.Wish("edge", "zone=a"), "why", NOW)
    freeze = freezes.freeze(db, OPERATOR, group_id=None, reason="why", now=NOW)
    with db.write() as change:
        conn = change.conn
        image, newer = kit.add_image(conn), kit.add_image(conn, "4.0")
        channel = kit.add_channel(conn)
        old = kit.add_node(conn, machine_id="machine-a", hardware="sha256:a")
        idle = kit.add_node(conn, slots=kit.two_slots("1.0", "0.9", passive_good=True))
        busy = kit.add_node(conn, desired_operation_id="op_busy", connected_at=NOW - 900)
        kit.add_operation(conn, busy, id="op_busy", phase="staging", heard_s=1e9, clock_at=NOW)
        silent = kit.add_node(conn, gateway_id=kit.add_gateway(conn), activity={"phase": "idle"})
        kit.add_operation(conn, silent, id="op_silent", cancel_asked_at=NOW - 900, clock_at=NOW)
        pinned = kit.add_node(conn, pin_image_id=image, pinned_at=NOW, pin_until=NOW + 1, pin_actor="ana")
        pending = kit.add_node(conn, admission="pending", admitted_at=None, replaces_id=old)
        torn = kit.add_node(conn, conflict={"since": NOW, "ends": []})
        failed = {"node_id": idle, "digest": digest_of("3.0"), "version": "3.0", "reason": "panics", "at": NOW}
        conn.execute(schema.failed_versions.insert().values(failed))
    with db.read() as conn:
        session = sign_in.session_for(conn, secret, NOW)
    assert session is not None
    return World(db, settings, idle, busy, pinned, pending, torn, image, newer, channel, token_id, token, link, session,
                 view, group, freeze, old_key, Signer())  # fmt: skip


def joins(world: World) -> object:
    join = Join(
        token=world.token,
        public_key=identity.public_key(identity.new_private_key()),
        signature="A" * 86,
        name="web-01",
        machine_id="machine-a",
        hardware="sha256:a",
        os=OsFacts(id="demo"),
    )
    return joining.admit_join(world.db, join, "192.0.2.1", world.old_key.public_key, NOW)


def uploads(world: World) -> object:
    content = io.BytesIO(image_bytes("7.0"))
    return images.store_upload(world.db, world.settings, OPERATOR, content, Description(), reason="", now=NOW)


def registers(world: World) -> object:
    return images.register(
        world.db, world.settings, OPERATOR, Description("demo", "amd64", "8.0"), digest=digest_of("8.0"), size=9,
        url="http://images.example/8", reason="", now=NOW,
    )  # fmt: skip


def signs(world: World) -> object:
    name = images.image_name("demo", "amd64", "2.0")
    signature = world.signer.sign_digest(digest_of("2.0"), 1024, name)
    return images.attach_signature(world.db, world.settings, OPERATOR, world.image, signature, "", NOW)


INTENTIONS: dict[str, Callable[[World], object]] = {
    "update": lambda w: nodes.update(w.db, OPERATOR, w.idle, w.image, "why", NOW),
    "update-supersedes": lambda w: nodes.update(w.db, OPERATOR, w.busy, w.newer, "why", NOW),
    "reboot": lambda w: nodes.reboot(w.db, OPERATOR, w.idle, "why", NOW),
    "roll-back": lambda w: nodes.roll_back(w.db, OPERATOR, w.idle, "why", NOW),
    "rescue": lambda w: nodes.rescue(w.db, OPERATOR, w.idle, "why", NOW),
    "cancel": lambda w: nodes.cancel(w.db, OPERATOR, w.busy, "why", NOW),
    "pin": lambda w: nodes.pin(w.db, OPERATOR, w.idle, channel_id=w.channel, reason="why", now=NOW),
    "unpin": lambda w: nodes.unpin(w.db, OPERATOR, w.pinned, "why", NOW),
    "follow": lambda w: nodes.follow(w.db, OPERATOR, w.idle, w.channel, "why", NOW),
    "approve": lambda w: nodes.approve(w.db, OPERATOR, w.pending, "why", NOW),
    "retire": lambda w: nodes.retire(w.db, OPERATOR, w.busy, "why", NOW),
    "relabel": lambda w: nodes.relabel(w.db, OPERATOR, w.idle, {"a": "b"}, "why", NOW),
    "rename": lambda w: nodes.rename(w.db, OPERATOR, w.idle, "other", "why", NOW),
    "settle-conflict": lambda w: nodes.settle_conflict(w.db, OPERATOR, w.torn, "why", NOW),
    "clear-failed": lambda w: nodes.clear_failed_version(w.db, OPERATOR, w.idle, digest_of("3.0"), "why", NOW),
    "policy": lambda w: fleet.set_policy(w.db, OPERATOR, {"soak_s": 5.0}, "why", NOW),
    "create-channel": lambda w: channels.create(w.db, OPERATOR, "gamma", "why", NOW),
    "promote": lambda w: channels.promote(
        w.db, OPERATOR, w.channel, w.image, seen_image_id=None, reason="why", now=NOW
    ),
    "create-group": lambda w: groups.create(w.db, OPERATOR, groups.Wish("core", "*"), "why", NOW),
    "change-group": lambda w: groups.change(w.db, OPERATOR, w.group, groups.Wish(precedence=9), "why", NOW),
    "remove-group": lambda w: groups.remove(w.db, OPERATOR, w.group, "why", NOW),
    "freeze": lambda w: freezes.freeze(w.db, OPERATOR, group_id=w.group, reason="why", now=NOW),
    "refreeze": lambda w: freezes.change_end(w.db, OPERATOR, w.freeze, NOW + 9, "why", NOW),
    "thaw": lambda w: freezes.lift(w.db, OPERATOR, w.freeze, "why", NOW),
    "upload": uploads,
    "register": registers,
    "sign": signs,
    "create-token": lambda w: joining.create_token(w.db, OPERATOR, expires_at=NOW + 9, reason="", now=NOW),
    "revoke-token": lambda w: joining.revoke_token(w.db, OPERATOR, w.token_id, "why", NOW),
    "join": joins,
    "make-link": lambda w: sign_in.create_login_link(w.db, "mb", NOW),
    "use-link": lambda w: sign_in.use_login_link(w.db, w.link, NOW),
    "sign-out": lambda w: sign_in.sign_out(w.db, w.session, NOW),
    "rotate-key": lambda w: server_keys.rotate(w.db, w.settings, OPERATOR, reason="why", now=NOW),
    "retire-key": lambda w: server_keys.retire(
        w.db, OPERATOR, w.old_key.fingerprint, force=True, reason="why", now=NOW
    ),
    "save-view": lambda w: saved_views.save(w.db, OPERATOR, "other", "q=b", NOW),
    "remove-view": lambda w: saved_views.remove(w.db, OPERATOR, w.view, NOW),
    "time-out": lambda w: deadlines.end_overdue(w.db, NOW),
    "end-unowned": lambda w: deadlines.end_unowned(w.db, NOW),
    "pin-over": lambda w: deadlines.remove_expired_pins(w.db, LATER),
}


def everything(db: Database) -> dict[str, list[Any]]:
    """Every row of every table but the log itself."""
    tables = [table for table in schema.metadata.sorted_tables if table is not schema.audit]
    with db.read() as conn:
        return {table.name: sorted(map(repr, conn.execute(select(table)))) for table in tables}


@pytest.mark.parametrize("intention", INTENTIONS)
def test_a_change_without_its_audit_entry_is_no_change(world: World, intention: str) -> None:
    with world.db.write() as change:
        change.conn.execute(text("ALTER TABLE audit RENAME TO audit_away"))
    before = everything(world.db)
    with pytest.raises(DBAPIError, match="audit"):
        INTENTIONS[intention](world)
    assert everything(world.db) == before


@pytest.mark.parametrize("intention", INTENTIONS)
def test_a_change_has_one_author_and_names_its_object(world: World, intention: str) -> None:
    """With the log in its place each of them works, or the test above would prove nothing."""
    before = kit.count_rows(world.db, schema.audit)
    INTENTIONS[intention](world)
    with world.db.read() as conn:
        new = conn.execute(select(schema.audit).order_by(schema.audit.c.id)).all()[before:]
    assert new
    for entry in new:
        assert entry.actor_name and entry.actor_kind
        assert ":" in entry.object or entry.object == "fleet"


def test_content_that_comes_under_another_name_is_told_for_every_image_that_it_serves(
    database: Database, settings: Settings
) -> None:
    content = image_bytes("7.0")
    with database.write() as change:
        digest = digest_of_bytes(content)
        twin = kit.add_image(change.conn, "6.0", digest=digest, stored=False, url="http://images.example/6")
    upload = images.store_upload(database, settings, OPERATOR, io.BytesIO(content), Description(), reason="r", now=NOW)
    with database.read() as conn:
        told = conn.execute(select(schema.audit.c.object).where(schema.audit.c.action == "image.upload")).scalars()
        assert sorted(told) == sorted([f"image:{twin}", f"image:{upload}"])
        assert conn.execute(select(schema.images.c.stored)).scalars().all() == [True, True]
