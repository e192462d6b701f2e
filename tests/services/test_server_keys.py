from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from app.config import Settings
from app.core.errors import Invalid, Misconfigured, NotFound, NotPossible
from app.services import joining
from app.services.server_keys import ServerKey, current_key, live_keys, named, retire, rotate
from app.store import schema
from app.store import server_keys as store
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR, add_node, count_rows
from tests.services.test_joining import join_with
from wire import identity


def test_the_key_is_made_once_and_stays(database: Database, settings: Settings) -> None:
    first = current_key(database, settings, NOW)
    assert current_key(database, settings, NOW + 1) == first
    assert identity.verify(first.public_key, identity.sign(first.private_key, b"text"), b"text")
    assert first.fingerprint == identity.fingerprint(first.public_key)


def test_processes_that_start_at_once_end_with_one_key(database: Database, settings: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: current_key(database, settings, NOW).public_key, range(8)))
    assert len(keys) == 1
    assert count_rows(database, schema.server_keys) == 1


def test_the_private_key_is_sealed(database: Database, settings: Settings) -> None:
    key = current_key(database, settings, NOW)
    with database.read() as conn:
        stored = repr(conn.execute(select(schema.server_keys)).all()) + repr(conn.execute(select(schema.audit)).all())
    assert key.private_key not in stored
    assert key.private_key not in repr(key)


def test_another_secret_stops_with_the_name_of_the_setting(database: Database, settings: Settings) -> None:
    current_key(database, settings, NOW)
    with pytest.raises(Misconfigured) as wrong:
        current_key(database, replace(settings, secret_key="another"), NOW)
    assert wrong.value.variable == "TWINROOT_SECRET_KEY"
    assert count_rows(database, schema.server_keys) == 1


def rotated(database: Database, settings: Settings, now: float = NOW + 60) -> ServerKey:
    return rotate(database, settings, OPERATOR, reason="yearly", now=now)


def entries(database: Database) -> list[Any]:
    with database.read() as conn:
        return list(conn.execute(select(schema.audit).order_by(schema.audit.c.id)))


def pinning(database: Database, key: ServerKey, name: str, **given: Any) -> str:
    with database.write() as change:
        return add_node(change.conn, name, server_key=key.public_key, **given)


def test_a_rotation_adds_the_newest_and_keeps_the_old_one(database: Database, settings: Settings) -> None:
    old = current_key(database, settings, NOW)
    new = rotated(database, settings)
    keys = live_keys(database, settings, NOW + 61)
    assert keys.keys == (old, new)
    assert current_key(database, settings, NOW + 61) == keys.newest == new
    assert keys.pinned(None) == keys.pinned(old.fingerprint) == keys.of(old.public_key) == old
    assert keys.pinned("sha256:" + "0" * 64) is None
    entry = entries(database)[-1]
    assert (entry.action, entry.actor_name, entry.reason) == ("server-key.rotate", "mb", "yearly")
    assert (entry.before, entry.after) == ({"fingerprint": old.fingerprint}, {"fingerprint": new.fingerprint})


def test_the_newest_is_the_newest_although_the_clock_was_set_back(database: Database, settings: Settings) -> None:
    current_key(database, settings, NOW)
    made = [rotated(database, settings, NOW - 10_000) for _ in range(3)]
    assert list(live_keys(database, settings, NOW).keys[1:]) == made


def test_a_rotation_with_another_secret_changes_nothing(database: Database, settings: Settings) -> None:
    current_key(database, settings, NOW)
    with pytest.raises(Misconfigured):
        rotated(database, replace(settings, secret_key="another"))
    assert count_rows(database, schema.server_keys) == 1


def test_a_key_that_no_node_pins_is_retired_and_its_private_half_gone(database: Database, settings: Settings) -> None:
    old = current_key(database, settings, NOW)
    new = rotated(database, settings)
    pinning(database, new, "web-01")
    pinning(database, old, "gone", admission="retired")
    assert retire(database, OPERATOR, old.fingerprint, reason="done", now=NOW + 70) == []
    assert live_keys(database, settings, NOW + 71).keys == (new,)
    with database.read() as conn:
        first, second = store.listed(conn)
        sealed = select(schema.server_keys.c.sealed_private_key).where(schema.server_keys.c.retired_at.is_not(None))
        assert conn.execute(sealed).scalars().all() == [""]
    assert (first.public_key, first.retired_at, first.nodes) == (old.public_key, NOW + 70, 0)
    assert (second.public_key, second.retired_at, second.nodes) == (new.public_key, None, 1)
    assert entries(database)[-1].action == "server-key.retire"
    with pytest.raises(NotPossible, match="retired already"):
        retire(database, OPERATOR, old.fingerprint, reason="again", now=NOW + 80)


def test_a_key_that_nodes_pin_is_retired_by_force_alone(database: Database, settings: Settings) -> None:
    old = current_key(database, settings, NOW)
    rotated(database, settings)
    for name in ("web-02", "web-01"):
        pinning(database, old, name)
    pinning(database, old, "new-01", admission="pending")
    before = len(entries(database))
    with pytest.raises(NotPossible, match=r"3 nodes still pin this key.*new-01, web-01, web-02") as refused:
        retire(database, OPERATOR, old.fingerprint, reason="done", now=NOW + 70)
    assert refused.value.code == "pinned"
    assert len(entries(database)) == before
    assert live_keys(database, settings, NOW + 71).pinned(old.fingerprint) == old
    cut_off = retire(database, OPERATOR, old.fingerprint, force=True, reason="stolen", now=NOW + 72)
    assert cut_off == ["new-01", "web-01", "web-02"]
    entry = entries(database)[-1]
    assert (entry.reason, entry.after["nodes_that_must_join_again"]) == ("stolen", cut_off)


def test_the_newest_key_cannot_be_retired(database: Database, settings: Settings) -> None:
    new = current_key(database, settings, NOW)
    for _ in range(2):
        with pytest.raises(NotPossible, match="make a new one first"):
            retire(database, OPERATOR, new.fingerprint, force=True, reason="oops", now=NOW + 70)
        new = rotated(database, settings)


def test_a_key_is_named_by_the_beginning_of_its_fingerprint(database: Database, settings: Settings) -> None:
    old = current_key(database, settings, NOW)
    rotated(database, settings)
    with pytest.raises(Invalid, match="at least 8"):
        retire(database, OPERATOR, "sha256:1234", reason="x", now=NOW)
    with pytest.raises(NotFound):
        retire(database, OPERATOR, "0" * 64, reason="x", now=NOW)
    retire(database, OPERATOR, old.fingerprint[:20], reason="x", now=NOW)
    assert len(live_keys(database, settings, NOW).keys) == 1


def test_two_keys_that_begin_alike_are_not_confused() -> None:
    keys = [store.ListedKey(identity.public_key(identity.encode(bytes([n]) * 32)), NOW, None, 0) for n in range(4)]
    for key in keys:
        assert named(keys, identity.fingerprint(key.public_key)) is key
    with pytest.raises(Invalid, match="names 2 keys"):
        named([keys[0], keys[0]], identity.fingerprint(keys[0].public_key))


def test_whoever_joins_while_its_key_is_retired_is_seen_or_refused(database: Database, settings: Settings) -> None:
    """Never a node that pins a key which is gone, and of which nobody was told."""
    for _ in range(5):
        old = current_key(database, settings, NOW)
        rotated(database, settings)
        _, token = joining.create_token(database, OPERATOR, max_uses=3, expires_at=NOW + 60, now=NOW)
        joins = [join_with(token, machine_id="") for _ in range(3)]
        with ThreadPoolExecutor(4) as pool:
            attempts = [
                pool.submit(joining.admit_join, database, join, "192.0.2.1", old.public_key, NOW) for join in joins
            ]
            retired = pool.submit(retire, database, OPERATOR, old.fingerprint, force=True, reason="x", now=NOW)
        refused = [each.exception() for each in attempts if each.exception()]
        assert all(isinstance(error, joining.JoinRefused) and error.code == "server-key" for error in refused)
        assert len(retired.result()) == 3 - len(refused)
