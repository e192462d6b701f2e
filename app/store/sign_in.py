"""One-time login links and sessions; both are kept as hashes only."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from app.store.schema import login_links, sessions


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in browser. Times are Unix seconds."""

    name: str
    time_zone: str
    secret_hash: str
    seen_at: float
    expires_at: float


def add_link(conn: Connection, secret_hash: str, name: str, now: float, expires_at: float) -> None:
    conn.execute(insert(login_links).values(secret_hash=secret_hash, name=name, created_at=now, expires_at=expires_at))


def link_is_good(conn: Connection, secret_hash: str, now: float) -> bool:
    """Whether the link exists, unused and not expired."""
    return conn.execute(select(login_links.c.name).where(*_good(secret_hash, now))).first() is not None


def _good(secret_hash: str, now: float) -> tuple[ColumnElement[bool], ...]:
    return (
        login_links.c.secret_hash == secret_hash,
        login_links.c.used_at.is_(None),
        login_links.c.expires_at > now,
    )


def claim_link(conn: Connection, secret_hash: str, now: float) -> str | None:
    """The name the link was made for, once; None when it is unknown, used or expired."""
    claimed = conn.execute(update(login_links).where(*_good(secret_hash, now)).values(used_at=now))
    if claimed.rowcount != 1:
        return None
    name: str = conn.execute(select(login_links.c.name).where(login_links.c.secret_hash == secret_hash)).scalar_one()
    return name


def add_session(conn: Connection, session: Session, now: float) -> None:
    conn.execute(
        insert(sessions).values(
            secret_hash=session.secret_hash,
            name=session.name,
            time_zone=session.time_zone,
            created_at=now,
            seen_at=session.seen_at,
            expires_at=session.expires_at,
        )
    )


def get_session(conn: Connection, secret_hash: str, now: float) -> Session | None:
    row = conn.execute(
        select(sessions).where(sessions.c.secret_hash == secret_hash, sessions.c.expires_at > now)
    ).one_or_none()
    if row is None:
        return None
    return Session(row.name, row.time_zone, row.secret_hash, row.seen_at, row.expires_at)


def extend_session(conn: Connection, secret_hash: str, now: float, expires_at: float) -> None:
    conn.execute(
        update(sessions)
        .where(sessions.c.secret_hash == secret_hash, sessions.c.expires_at > now)
        .values(seen_at=now, expires_at=expires_at)
    )


def set_time_zone(conn: Connection, secret_hash: str, time_zone: str) -> None:
    conn.execute(update(sessions).where(sessions.c.secret_hash == secret_hash).values(time_zone=time_zone))


def remove_session(conn: Connection, secret_hash: str) -> bool:
    return conn.execute(delete(sessions).where(sessions.c.secret_hash == secret_hash)).rowcount == 1
