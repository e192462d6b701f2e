"""Sign-in by one-time link, and the sessions it opens."""

from __future__ import annotations

import secrets
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from app.core.actors import Actor, ActorKind
from app.core.errors import Invalid, Unauthenticated
from app.core.tokens import secret_hash
from app.store import audit
from app.store import sign_in as store
from app.store.database import Database
from app.store.sign_in import Session

__all__ = [
    "LINK_TTL_S",
    "SESSION_COOKIE",
    "SESSION_TTL_S",
    "Session",
    "create_login_link",
    "keep_alive",
    "session_actor",
    "session_for",
    "set_time_zone",
    "sign_out",
    "use_login_link",
]

SESSION_COOKIE = "twinroot_session"
LINK_TTL_S = 900.0
"""A quarter of an hour: from the terminal to the browser."""
SESSION_TTL_S = 12 * 3600.0
"""A shift; counted from the last page that was looked at."""
_EXTEND_EVERY_S = 300.0
"""A session is written at most this often, so that looking at pages costs no writes."""
NAME_CHARS = 80


def create_login_link(db: Database, name: str, now: float, ttl_s: float = LINK_TTL_S) -> str:
    """A token for `/sign-in/<token>`, good once within `ttl_s`, that signs in as `name`."""
    name = name.strip()
    if not name or len(name) > NAME_CHARS or not name.isprintable():
        raise Invalid("name", f"A name for the sign-in needs 1 to {NAME_CHARS} printable characters.")
    token = secrets.token_urlsafe(32)
    with db.write() as change:
        store.add_link(change.conn, secret_hash(token), name, now, now + ttl_s)
        author = Actor(ActorKind.COMMAND, "login-link", "login-link")
        audit.append(change.conn, author, "login-link.create", f"person:{name}", "", None, {"ttl_s": ttl_s}, now)
    return token


def use_login_link(db: Database, token: str, now: float) -> str:
    """Spend the link and open a session; returns its secret for the cookie. Unauthenticated when it is no good."""
    with db.read() as conn:  # guesses wait for nobody and keep nobody waiting
        if not store.link_is_good(conn, secret_hash(token), now):
            raise _no_good()
    secret = secrets.token_urlsafe(32)
    with db.write() as change:
        name = store.claim_link(change.conn, secret_hash(token), now)
        if name is None:
            raise _no_good()
        session = Session(name, "", secret_hash(secret), now, now + SESSION_TTL_S)
        store.add_session(change.conn, session, now)
        audit.append(change.conn, session_actor(session), "session.open", f"person:{name}", "", None, None, now)
    return secret


def _no_good() -> Unauthenticated:
    return Unauthenticated("This sign-in link was used already, has expired, or was not made here.")


def session_for(conn: Connection, secret: str, now: float) -> Session | None:
    """The live session of a cookie, if any. Reads only; see `keep_alive`."""
    return store.get_session(conn, secret_hash(secret), now) if secret else None


def keep_alive(db: Database, session: Session, now: float) -> None:
    """Let the session slide: a person who looks at pages stays signed in."""
    if now - session.seen_at >= _EXTEND_EVERY_S:
        with db.write() as change:
            store.extend_session(change.conn, session.secret_hash, now, now + SESSION_TTL_S)


def set_time_zone(db: Database, session: Session, time_zone: str) -> None:
    """Show times in the IANA zone `time_zone` for the rest of this session; Invalid when there is none."""
    try:
        ZoneInfo(time_zone)
    except (KeyError, ValueError, OSError) as error:  # ZoneInfo's three ways to say "no such zone"
        raise Invalid("time_zone", f"There is no time zone “{time_zone}”.") from error
    with db.write() as change:
        store.set_time_zone(change.conn, session.secret_hash, time_zone)


def session_actor(session: Session) -> Actor:
    """The author of what is done in this session."""
    return Actor(ActorKind.PERSON, session.name, session.name)


def sign_out(db: Database, session: Session, now: float) -> None:
    """End the session; ending it twice is fine."""
    with db.write() as change:
        if store.remove_session(change.conn, session.secret_hash):
            actor = session_actor(session)
            audit.append(change.conn, actor, "session.close", f"person:{session.name}", "", None, None, now)
