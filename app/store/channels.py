"""Channels: named pointers to images, one per OS and architecture, with their history."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, text, update

from app.core.image_match import canonical_arch
from app.store.schema import channel_moves, channels, images, nodes


@dataclass(frozen=True, slots=True)
class Channel:
    id: str
    name: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Move:
    """A channel pointed at `image_id` from `at` until `until` (None: it does now)."""

    id: int
    channel_id: str
    channel: str
    os: str
    arch: str
    image_id: str
    version: str
    actor: str
    reason: str
    at: float
    until: float | None


def ensure(conn: Connection, channel_id: str, name: str, now: float) -> bool:
    """Create the channel unless there is one of that name; True when it was created."""
    statement = text(
        "INSERT INTO channels (id, name, created_at) VALUES (:id, :name, :now) ON CONFLICT (name) DO NOTHING"
    )
    return conn.execute(statement, {"id": channel_id, "name": name, "now": now}).rowcount == 1


def get(conn: Connection, channel_id: str) -> Channel | None:
    row = conn.execute(select(channels).where(channels.c.id == channel_id)).one_or_none()
    return None if row is None else Channel(*row)


def find(conn: Connection, name: str) -> Channel | None:
    row = conn.execute(select(channels).where(channels.c.name == name)).one_or_none()
    return None if row is None else Channel(*row)


def all_channels(conn: Connection) -> list[Channel]:
    """In the order they were made, the defaults (made at once) by name."""
    return [Channel(*row) for row in conn.execute(select(channels).order_by(channels.c.created_at, channels.c.name))]


def current(conn: Connection, channel_id: str, os: str, arch: str) -> str | None:
    """Id of the image that the channel points at for this OS name and architecture."""
    return conn.execute(
        select(channel_moves.c.image_id).where(
            channel_moves.c.channel_id == channel_id,
            channel_moves.c.os == os,
            channel_moves.c.arch == canonical_arch(arch),
            channel_moves.c.until.is_(None),
        )
    ).scalar_one_or_none()


_MOVE = (
    select(
        channel_moves.c.id,
        channel_moves.c.channel_id,
        channels.c.name,
        channel_moves.c.os,
        channel_moves.c.arch,
        channel_moves.c.image_id,
        images.c.version,
        channel_moves.c.actor,
        channel_moves.c.reason,
        channel_moves.c.at,
        channel_moves.c.until,
    )
    .join(channels, channels.c.id == channel_moves.c.channel_id)
    .join(images, images.c.id == channel_moves.c.image_id)
)


def pointers(conn: Connection) -> list[Move]:
    """What each channel points at now."""
    query = _MOVE.where(channel_moves.c.until.is_(None))
    ordered = query.order_by(channels.c.created_at, channels.c.name, channel_moves.c.os, channel_moves.c.arch)
    return [Move(*row) for row in conn.execute(ordered)]


def history(
    conn: Connection, *, channel_id: str | None = None, image_id: str | None = None, limit: int = 100
) -> list[Move]:
    """Moves, the latest first; of one channel or to one image where given."""
    query = _MOVE.order_by(channel_moves.c.id.desc()).limit(limit)
    if channel_id is not None:
        query = query.where(channel_moves.c.channel_id == channel_id)
    if image_id is not None:
        query = query.where(channel_moves.c.image_id == image_id)
    return [Move(*row) for row in conn.execute(query)]


def followers(conn: Connection, channel_id: str) -> int:
    """How many nodes that are not retired follow the channel."""
    wanted = select(func.count()).where(nodes.c.channel_id == channel_id, nodes.c.admission != "retired")
    return conn.execute(wanted).scalar_one()


def leave(conn: Connection, channel_id: str, os: str, arch: str, seen_image_id: str, now: float) -> bool:
    """End the pointer to `seen_image_id`; False when it is not what the channel points at any more."""
    left = conn.execute(
        update(channel_moves)
        .where(
            channel_moves.c.channel_id == channel_id,
            channel_moves.c.os == os,
            channel_moves.c.arch == arch,
            channel_moves.c.image_id == seen_image_id,
            channel_moves.c.until.is_(None),
        )
        .values(until=now)
    )
    return left.rowcount == 1


def point(
    conn: Connection, channel_id: str, os: str, arch: str, image_id: str, actor: str, reason: str, now: float
) -> None:
    """Point the channel at the image; IntegrityError when it already points somewhere (see `leave`)."""
    conn.execute(
        insert(channel_moves).values(
            channel_id=channel_id, os=os, arch=arch, image_id=image_id, actor=actor, reason=reason, at=now
        )
    )


def heads(conn: Connection) -> dict[tuple[str, str, str], str]:
    """(channel id, OS, architecture) → digest of the image that it points at now."""
    return {(row[0], row[1], row[2]): row[3] for row in conn.execute(_HEADS)}


_HEADS = (
    select(channel_moves.c.channel_id, channel_moves.c.os, channel_moves.c.arch, images.c.digest)
    .join(images, images.c.id == channel_moves.c.image_id)
    .where(channel_moves.c.until.is_(None))
)


def names(conn: Connection) -> dict[str, str]:
    return {row[0]: row[1] for row in conn.execute(_NAMES)}


_NAMES = select(channels.c.id, channels.c.name)
