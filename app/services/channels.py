"""Channels: the defaults, new ones, and moving one to an image."""

from __future__ import annotations

import re

from sqlalchemy.exc import IntegrityError

from app.core.actors import Actor, ActorKind
from app.core.errors import Invalid, NotFound, NotPossible
from app.ids import new_id
from app.services.following import draft_for
from app.store import audit, images
from app.store import channels as store
from app.store.channels import Channel
from app.store.database import Change, Database
from app.store.images import Image

DEFAULTS = ("alpha", "beta", "stable")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}\Z")


def ensure_defaults(db: Database, now: float) -> None:
    """Make the channels that every installation starts with; each start may call it."""
    setup = Actor(ActorKind.COMMAND, "setup", "first start")
    with db.write() as change:
        for name in DEFAULTS:
            _ensure(change, setup, name, "every installation has it", now)


def create(db: Database, actor: Actor, name: str, reason: str, now: float) -> str:
    """A new channel that points nowhere yet; returns its id. NotPossible when the name is taken."""
    name = name.strip()
    if not _NAME.match(name):
        raise Invalid("name", f"“{name}” is no channel name: lower-case letters, digits and . _ - , at most 40.")
    with db.write() as change:
        channel_id = _ensure(change, actor, name, reason, now)
        if channel_id is None:
            raise NotPossible("channel-exists", f"There is a channel {name} already; nothing was changed.")
    return channel_id


def _ensure(change: Change, actor: Actor, name: str, reason: str, now: float) -> str | None:
    channel_id = new_id("chan")
    if not store.ensure(change.conn, channel_id, name, now):
        return None
    audit.append(change.conn, actor, "channel.create", f"channel:{channel_id}", reason, None, {"name": name}, now)
    change.touch("images")
    return channel_id


def promote(
    db: Database, actor: Actor, channel_id: str, image_id: str, *, seen_image_id: str | None, reason: str, now: float
) -> None:
    """Point the channel at the image, for the image's OS and architecture.

    `seen_image_id` is what the channel pointed at when the operator decided: NotPossible when it is another by
    now, so that two operators never cross silently. Promoting to what it points at is NotPossible too.
    In each group that follows the channel a rollout is drafted; it is started where the group's policy says so.
    """
    if not reason.strip():
        raise Invalid("reason", "Say why the channel moves: it is kept in its history.")
    try:
        with db.write() as change:
            channel, image = _found(change, channel_id, image_id)
            _move(change, actor, channel, image, seen_image_id, reason.strip(), now)
            draft_for(change, actor, channel, reason.strip(), now)
    except IntegrityError as error:  # somebody pointed it between our look and our move, on PostgreSQL
        raise _moved_meanwhile(channel) from error


def _found(change: Change, channel_id: str, image_id: str) -> tuple[Channel, Image]:
    channel, image = store.get(change.conn, channel_id), images.get(change.conn, image_id, lock=True)
    if channel is None:
        raise NotFound("channel", channel_id)
    if image is None:
        raise NotFound("image", image_id)
    if image.withdrawn_at is not None:
        raise NotPossible("withdrawn", f"{image.name} is withdrawn; {channel.name} was not moved.")
    return channel, image


def _move(
    change: Change, actor: Actor, channel: Channel, image: Image, seen: str | None, reason: str, now: float
) -> None:
    conn = change.conn
    current = store.current(conn, channel.id, image.os, image.arch)
    if current == image.id:
        raise NotPossible("already-there", f"{channel.name} points at {image.name} already; nothing was changed.")
    if current != seen:
        raise _moved_meanwhile(channel)
    if seen is not None and not store.leave(conn, channel.id, image.os, image.arch, seen, now):
        raise _moved_meanwhile(channel)
    store.point(conn, channel.id, image.os, image.arch, image.id, actor.name, reason, now)
    before = images.get(conn, seen) if seen else None
    audit.append(
        conn,
        actor,
        "channel.promote",
        f"channel:{channel.id}",
        reason,
        {"image": before.id, "name": str(before.name)} if before else None,
        {"image": image.id, "name": str(image.name)},
        now,
    )
    change.touch("images", "nodes", "fleet")


def _moved_meanwhile(channel: Channel) -> NotPossible:
    text = f"{channel.name} was moved by somebody else since you looked. Nothing was changed: look again, then decide."
    return NotPossible("moved-meanwhile", text)
