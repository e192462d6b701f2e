"""The server's own keys: sealed at rest, pinned by nodes since their join or since the last rotation."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, text, update

from app.store.schema import nodes, server_keys


@dataclass(frozen=True, slots=True)
class SealedKey:
    public_key: str
    sealed_private_key: str
    created_at: float


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key as lists show it; `nodes` counts those that last proved it and are not retired."""

    public_key: str
    created_at: float
    retired_at: float | None
    nodes: int


_ORDER = (server_keys.c.created_at, server_keys.c.public_key.desc())
"""The oldest first."""


def live(conn: Connection) -> list[SealedKey]:
    """The keys that are not retired, the oldest first."""
    query = (
        select(server_keys.c.public_key, server_keys.c.sealed_private_key, server_keys.c.created_at)
        .where(server_keys.c.retired_at.is_(None))
        .order_by(*_ORDER)
    )
    return [SealedKey(*row) for row in conn.execute(query)]


def listed(conn: Connection) -> list[ListedKey]:
    """All keys that there ever were, the oldest first."""
    pinning = (
        select(nodes.c.server_key, func.count().label("nodes"))
        .where(nodes.c.admission != "retired")
        .group_by(nodes.c.server_key)
        .subquery()
    )
    query = (
        select(
            server_keys.c.public_key,
            server_keys.c.created_at,
            server_keys.c.retired_at,
            func.coalesce(pinning.c.nodes, 0),
        )
        .outerjoin(pinning, pinning.c.server_key == server_keys.c.public_key)
        .order_by(*_ORDER)
    )
    return [ListedKey(*row) for row in conn.execute(query)]


def nodes_pinning(conn: Connection, public_key: str) -> list[str]:
    """Names of the nodes that last proved this key and are not retired."""
    query = (
        select(nodes.c.name)
        .where(nodes.c.server_key == public_key, nodes.c.admission != "retired")
        .order_by(nodes.c.name, nodes.c.id)
    )
    return list(conn.execute(query).scalars())


def lock(conn: Connection) -> None:
    """Let one transaction at a time make a key: two processes at their first start must end with one."""
    if conn.dialect.name == "postgresql":
        conn.execute(text("LOCK TABLE server_keys IN SHARE ROW EXCLUSIVE MODE"))


def add(conn: Connection, key: SealedKey) -> None:
    conn.execute(
        insert(server_keys).values(
            public_key=key.public_key, sealed_private_key=key.sealed_private_key, created_at=key.created_at
        )
    )


def keep_live(conn: Connection, public_key: str) -> bool:
    """Whether the key is not retired; then nobody retires it before this transaction ends."""
    query = (
        select(server_keys.c.public_key)
        .where(server_keys.c.public_key == public_key, server_keys.c.retired_at.is_(None))
        .with_for_update(read=True)
    )
    return conn.execute(query).first() is not None


def retire(conn: Connection, public_key: str, now: float) -> bool:
    """End the key and forget its private half; False when it had ended. Whoever joins under it waits, or was first."""
    ended = conn.execute(
        update(server_keys)
        .where(server_keys.c.public_key == public_key, server_keys.c.retired_at.is_(None))
        .values(retired_at=now, sealed_private_key="")
    )
    return ended.rowcount == 1
