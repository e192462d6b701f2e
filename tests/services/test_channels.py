from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from app.core.errors import Invalid, NotFound, NotPossible
from app.services.channels import create, ensure_defaults, promote
from app.store import channels as store
from app.store import schema
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR, add_image, add_node, count_rows


def images(db: Database, *versions: str) -> list[str]:
    with db.write() as change:
        return [add_image(change.conn, version) for version in versions]


def channel(db: Database, name: str = "stable") -> str:
    ensure_defaults(db, NOW)
    with db.read() as conn:
        found = store.find(conn, name)
    assert found is not None
    return found.id


def current(db: Database, channel_id: str, arch: str = "amd64") -> str | None:
    with db.read() as conn:
        return store.current(conn, channel_id, "demo", arch)


def test_the_defaults_are_made_once(database: Database) -> None:
    ensure_defaults(database, NOW)
    ensure_defaults(database, NOW + 1)
    with database.read() as conn:
        assert [one.name for one in store.all_channels(conn)] == ["alpha", "beta", "stable"]
    assert count_rows(database, schema.audit) == 3


def test_processes_that_start_at_once_make_the_defaults_once(database: Database) -> None:
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: ensure_defaults(database, NOW), range(6)))
    assert count_rows(database, schema.channels) == 3


def test_a_channel_moves_and_remembers(database: Database) -> None:
    stable = channel(database)
    one, two = images(database, "1.0", "2.0")
    promote(database, OPERATOR, stable, one, seen_image_id=None, reason="first", now=NOW)
    promote(database, OPERATOR, stable, two, seen_image_id=one, reason="kernel fix", now=NOW + 60)
    assert current(database, stable) == two
    with database.read() as conn:
        history = store.history(conn, channel_id=stable)
    assert [(move.version, move.reason, move.at, move.until) for move in history] == [
        ("2.0", "kernel fix", NOW + 60, None),
        ("1.0", "first", NOW, NOW + 60),
    ]
    with database.read() as conn:
        actions = conn.execute(select(schema.audit).where(schema.audit.c.action == "channel.promote")).all()
    assert [(entry.actor_name, entry.reason, entry.after["image"]) for entry in actions] == [
        ("mb", "first", one),
        ("mb", "kernel fix", two),
    ]


def test_an_operator_who_saw_something_else_moves_nothing(database: Database) -> None:
    stable = channel(database)
    one, two, three = images(database, "1.0", "2.0", "3.0")
    promote(database, OPERATOR, stable, one, seen_image_id=None, reason="x", now=NOW)
    promote(database, OPERATOR, stable, two, seen_image_id=one, reason="x", now=NOW)
    for seen in (one, None):
        with pytest.raises(NotPossible) as refused:
            promote(database, OPERATOR, stable, three, seen_image_id=seen, reason="x", now=NOW)
        assert refused.value.code == "moved-meanwhile"
    assert current(database, stable) == two


def test_of_many_promotions_at_once_one_wins(database: Database) -> None:
    stable = channel(database)
    first, *others = images(database, "0", *(f"1.{number}" for number in range(8)))
    promote(database, OPERATOR, stable, first, seen_image_id=None, reason="x", now=NOW)

    def try_it(image_id: str) -> bool:
        try:
            promote(database, OPERATOR, stable, image_id, seen_image_id=first, reason="x", now=NOW)
        except NotPossible:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(try_it, others)) == 1
    assert count_rows(database, schema.channel_moves) == 2


def test_of_many_first_promotions_at_once_one_wins(database: Database) -> None:
    stable = channel(database)
    wanted = images(database, *(f"1.{number}" for number in range(8)))

    def try_it(image_id: str) -> bool:
        try:
            promote(database, OPERATOR, stable, image_id, seen_image_id=None, reason="x", now=NOW)
        except NotPossible:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(try_it, wanted)) == 1


def test_each_architecture_has_its_own_pointer(database: Database) -> None:
    stable = channel(database)
    (amd64,) = images(database, "1.0")
    with database.write() as change:
        arm64 = add_image(change.conn, "1.0", arch="arm64")
    promote(database, OPERATOR, stable, amd64, seen_image_id=None, reason="x", now=NOW)
    promote(database, OPERATOR, stable, arm64, seen_image_id=None, reason="x", now=NOW)
    assert current(database, stable, "amd64") == amd64
    assert current(database, stable, "aarch64") == arm64


def test_promoting_to_the_same_image_changes_nothing(database: Database) -> None:
    stable = channel(database)
    (one,) = images(database, "1.0")
    promote(database, OPERATOR, stable, one, seen_image_id=None, reason="x", now=NOW)
    with pytest.raises(NotPossible) as refused:
        promote(database, OPERATOR, stable, one, seen_image_id=one, reason="x", now=NOW)
    assert refused.value.code == "already-there"
    assert count_rows(database, schema.channel_moves) == 1


def test_a_withdrawn_image_is_not_promoted(database: Database) -> None:
    stable = channel(database)
    with database.write() as change:
        image_id = add_image(change.conn, "1.0", withdrawn_at=NOW)
    with pytest.raises(NotPossible) as refused:
        promote(database, OPERATOR, stable, image_id, seen_image_id=None, reason="x", now=NOW)
    assert refused.value.code == "withdrawn"


def test_a_promotion_needs_a_reason_an_image_and_a_channel(database: Database) -> None:
    stable = channel(database)
    (one,) = images(database, "1.0")
    with pytest.raises(Invalid) as refused:
        promote(database, OPERATOR, stable, one, seen_image_id=None, reason="  ", now=NOW)
    assert refused.value.field == "reason"
    with pytest.raises(NotFound):
        promote(database, OPERATOR, stable, "img_none", seen_image_id=None, reason="x", now=NOW)
    with pytest.raises(NotFound):
        promote(database, OPERATOR, "chan_none", one, seen_image_id=None, reason="x", now=NOW)
    assert count_rows(database, schema.channel_moves) == 0


def test_a_new_channel_has_a_name_of_its_own(database: Database) -> None:
    create(database, OPERATOR, "edge", "for the edge", NOW)
    with pytest.raises(NotPossible):
        create(database, OPERATOR, "edge", "again", NOW)
    for name in ("", "Edge", "a b", "x" * 41, "-edge"):
        with pytest.raises(Invalid):
            create(database, OPERATOR, name, "", NOW)
    assert count_rows(database, schema.channels) == 1


def test_followers_are_nodes_that_are_not_retired(database: Database) -> None:
    stable = channel(database)
    with database.write() as change:
        add_node(change.conn, channel_id=stable)
        add_node(change.conn, channel_id=stable, admission="retired")
        add_node(change.conn)
    with database.read() as conn:
        assert store.followers(conn, stable) == 1
