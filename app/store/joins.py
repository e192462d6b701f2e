"""The join itself: attempts, the new node's row, and which node it replaces."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from app.store.schema import join_attempts, nodes
from wire.messages import Join

JOINED = "joined"
KEPT_ATTEMPTS = 2_000
"""Anybody who reaches the gateway can make attempts: the list is bounded."""


@dataclass(frozen=True, slots=True)
class Attempt:
    id: int
    at: float
    remote: str
    name: str
    token_id: str | None
    node_id: str | None
    code: str
    text: str

    @property
    def refused(self) -> bool:
        return self.code != JOINED


@dataclass(frozen=True, slots=True)
class KnownNode:
    """What a join needs to know of a node that exists."""

    id: str
    name: str
    admission: str
    join_token_id: str | None
    replaces_id: str | None


@dataclass(frozen=True, slots=True)
class WaitingNode:
    id: str
    name: str
    os: str
    version: str
    arch: str
    joined_at: float


@dataclass(frozen=True, slots=True)
class NewNode:
    id: str
    name: str
    admission: str
    labels: dict[str, str]
    join_token_id: str
    replaces_id: str | None
    channel_id: str | None
    server_key: str


_KNOWN = (nodes.c.id, nodes.c.name, nodes.c.admission, nodes.c.join_token_id, nodes.c.replaces_id)


def node_with_key(conn: Connection, public_key: str) -> KnownNode | None:
    row = conn.execute(select(*_KNOWN).where(nodes.c.public_key == public_key)).one_or_none()
    return None if row is None else KnownNode(*row)


def node_of_machine(conn: Connection, machine_id: str, hardware: str) -> KnownNode | None:
    """The node that this machine is now, if it joined before: the youngest that nobody replaced or retired."""
    row = conn.execute(
        select(*_KNOWN)
        .where(
            nodes.c.machine_id == machine_id,
            nodes.c.hardware == hardware,
            nodes.c.admission != "retired",
            nodes.c.replaced_by_id.is_(None),
        )
        .order_by(nodes.c.joined_at.desc(), nodes.c.id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else KnownNode(*row)


def add_node(conn: Connection, node: NewNode, join: Join, now: float) -> None:
    conn.execute(
        insert(nodes).values(
            id=node.id,
            name=node.name,
            public_key=join.public_key,
            machine_id=join.machine_id,
            hardware=join.hardware,
            admission=node.admission,
            labels=node.labels,
            join_token_id=node.join_token_id,
            replaces_id=node.replaces_id,
            joined_at=now,
            admitted_at=now if node.admission == "admitted" else None,
            channel_id=node.channel_id,
            server_key=node.server_key,
            os_id=join.os.id,
            os_name=join.os.name,
            os_version=join.os.version,
            kernel=join.os.kernel,
            arch=join.os.arch,
            driver=join.os.driver,
            slots=[],
            health={},
            activity={},
        )
    )


def add_attempt(conn: Connection, attempt: Attempt, kept: int = KEPT_ATTEMPTS) -> None:
    """Record an attempt (its `id` is ignored) and forget the oldest beyond `kept`."""
    conn.execute(
        insert(join_attempts).values(
            at=attempt.at,
            remote=attempt.remote,
            name=attempt.name,
            token_id=attempt.token_id,
            node_id=attempt.node_id,
            code=attempt.code,
            text=attempt.text,
        )
    )
    newest = select(func.max(join_attempts.c.id) - kept).scalar_subquery()
    conn.execute(delete(join_attempts).where(join_attempts.c.id <= newest))


def attempts(conn: Connection, limit: int = 50) -> list[Attempt]:
    """The latest joins first, refused or not."""
    query = select(join_attempts).order_by(join_attempts.c.id.desc()).limit(limit)
    return [Attempt(*row) for row in conn.execute(query)]


def waiting(conn: Connection) -> list[WaitingNode]:
    """Nodes that wait for an operator's approval, the longest first."""
    query = (
        select(nodes.c.id, nodes.c.name, nodes.c.os_id, nodes.c.os_version, nodes.c.arch, nodes.c.joined_at)
        .where(nodes.c.admission == "pending")
        .order_by(nodes.c.joined_at, nodes.c.id)
        .limit(200)
    )
    return [WaitingNode(*row) for row in conn.execute(query)]


def any_node(conn: Connection) -> bool:
    return conn.execute(select(nodes.c.id).limit(1)).first() is not None


def mark_replaced(conn: Connection, old_id: str, new_id: str) -> bool:
    """Link the old node to its successor; False when another join was faster."""
    marked = conn.execute(
        update(nodes).where(nodes.c.id == old_id, nodes.c.replaced_by_id.is_(None)).values(replaced_by_id=new_id)
    )
    return marked.rowcount == 1
