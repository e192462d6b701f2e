from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from app.core.errors import Invalid, Unauthenticated
from app.services.sign_in import (
    LINK_TTL_S,
    SESSION_TTL_S,
    create_login_link,
    keep_alive,
    session_actor,
    session_for,
    set_time_zone,
    sign_out,
    use_login_link,
)
from app.store import schema
from app.store.database import Database
from app.store.sign_in import Session
from tests.server_kit import NOW, count_rows


def signed_in(db: Database, name: str = "mb") -> str:
    return use_login_link(db, create_login_link(db, name, NOW), NOW)


def session(db: Database, secret: str, now: float = NOW) -> Session | None:
    with db.read() as conn:
        return session_for(conn, secret, now)


def test_a_link_opens_a_session_in_its_name(database: Database) -> None:
    found = session(database, signed_in(database, "mb"))
    assert found is not None
    assert found.name == "mb"
    assert session_actor(found).name == "mb"


def test_a_link_works_once(database: Database) -> None:
    token = create_login_link(database, "mb", NOW)
    use_login_link(database, token, NOW)
    with pytest.raises(Unauthenticated):
        use_login_link(database, token, NOW)
    assert count_rows(database, schema.sessions) == 1


def test_a_link_used_by_many_at_once_opens_one_session(database: Database) -> None:
    token = create_login_link(database, "mb", NOW)

    def use(_: int) -> bool:
        try:
            use_login_link(database, token, NOW)
        except Unauthenticated:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(use, range(8))) == 1


def test_a_link_expires(database: Database) -> None:
    token = create_login_link(database, "mb", NOW)
    with pytest.raises(Unauthenticated):
        use_login_link(database, token, NOW + LINK_TTL_S)


def test_an_invented_link_is_none(database: Database) -> None:
    with pytest.raises(Unauthenticated):
        use_login_link(database, "invented", NOW)


def test_a_session_ends_after_its_time_and_slides_while_it_is_used(database: Database) -> None:
    secret = signed_in(database)
    assert session(database, secret, NOW + SESSION_TTL_S) is None
    later = NOW + SESSION_TTL_S - 60
    found = session(database, secret, later)
    assert found is not None
    keep_alive(database, found, later)
    assert session(database, secret, NOW + SESSION_TTL_S + 60) is not None


def test_looking_at_pages_writes_seldom(database: Database) -> None:
    secret = signed_in(database)
    found = session(database, secret)
    assert found is not None
    keep_alive(database, found, NOW + 10)
    again = session(database, secret)
    assert again is not None
    assert again.expires_at == found.expires_at


def test_an_expired_session_cannot_be_revived(database: Database) -> None:
    secret = signed_in(database)
    found = session(database, secret)
    assert found is not None
    keep_alive(database, found, NOW + SESSION_TTL_S + 1)
    assert session(database, secret, NOW + SESSION_TTL_S + 2) is None


def test_signing_out_ends_the_session_and_only_this_one(database: Database) -> None:
    first, second = signed_in(database), signed_in(database)
    found = session(database, first)
    assert found is not None
    sign_out(database, found, NOW)
    sign_out(database, found, NOW)
    assert session(database, first) is None
    assert session(database, second) is not None


def test_neither_links_nor_sessions_are_readable_from_the_database(database: Database) -> None:
    token = create_login_link(database, "mb", NOW)
    secret = use_login_link(database, token, NOW)
    with database.read() as conn:
        rows = [*conn.execute(select(schema.login_links)), *conn.execute(select(schema.sessions))]
        rows += [*conn.execute(select(schema.audit))]
    assert token not in repr(rows)
    assert secret not in repr(rows)


def test_no_secret_is_no_session(database: Database) -> None:
    assert session(database, "") is None


@pytest.mark.parametrize("name", ["", "  ", "x" * 81, "a\nb"])
def test_a_link_needs_a_name_that_can_be_shown(database: Database, name: str) -> None:
    with pytest.raises(Invalid):
        create_login_link(database, name, NOW)
    assert count_rows(database, schema.login_links) == 0


def test_a_time_zone_must_exist(database: Database) -> None:
    secret = signed_in(database)
    found = session(database, secret)
    assert found is not None
    set_time_zone(database, found, "Europe/Berlin")
    with pytest.raises(Invalid):
        set_time_zone(database, found, "../../etc/passwd")
    after = session(database, secret)
    assert after is not None
    assert after.time_zone == "Europe/Berlin"
