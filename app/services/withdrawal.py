"""Withdrawing an image: nobody gets it any more, copies of it are made unbootable, and who still runs it is listed.

What follows (rollouts halt, orders are called back, copies are disarmed) is done by the conductor's steps, which find
it in the rows; this only says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from app.core.actors import Actor
from app.core.errors import NotFound, NotPossible
from app.core.slots import WayBackChoice, way_back_of
from app.core.versions import version_key
from app.services.acting import need
from app.services.rollout_observe import judge
from app.services.rollout_orders import take_back
from app.store import audit, bad_versions, channels, images, nodes
from app.store.bad_versions import BadVersion, Cause
from app.store.database import Change, Database
from app.store.images import Image

_HISTORY = 1_000
"""Moves of a channel that are looked through for the image before; beyond, it points at nothing."""


@dataclass(frozen=True, slots=True)
class StillOn:
    """A node that runs a withdrawn image, and where it could go back to."""

    node_id: str
    name: str
    way_back: WayBackChoice | None


@dataclass(frozen=True, slots=True)
class StepBack:
    """A channel that points at the image; `version`: what it would point at, None: nothing."""

    channel: str
    version: str | None


def withdraw(db: Database, actor: Actor, image_id: str, reason: str, now: float) -> None:
    """Channels step back to what led to it, rollouts to it halt. NotPossible when it is withdrawn already."""
    need(reason, "Say why the image is withdrawn: everybody who used it will ask.")
    with db.write() as change:
        image = _found(change, image_id)
        if not images.withdraw(change.conn, image.id, actor.name, reason, now):
            raise NotPossible("withdrawn", f"{image.name} is withdrawn already.")
        bad = BadVersion(image.digest, image.version, f"withdrawn: {reason}", Cause.WITHDRAWN, actor.name, now)
        bad_versions.remember(change.conn, bad)
        stepped = _step_back(change, actor, image, reason, now)
        after = {"withdrawn": True, "channels": stepped}
        audit.append(
            change.conn, actor, "image.withdraw", f"image:{image.id}", reason, {"withdrawn": False}, after, now
        )
        change.touch("images", "rollouts", "operations", "nodes", "fleet")
    judge(db, now)
    take_back(db, now)


def restore(db: Database, actor: Actor, image_id: str, reason: str, now: float) -> None:
    """It is not withdrawn any more; one that failed too often besides stays bad until somebody clears that (rule 5).
    Channels stay where they are, and nothing is started."""
    need(reason, "Say why the image may be used again.")
    with db.write() as change:
        image = _found(change, image_id)
        if not images.restore(change.conn, image.id):
            raise NotPossible("not-withdrawn", f"{image.name} is not withdrawn.")
        bad_versions.clear(change.conn, image.digest, actor.name, reason, now, Cause.WITHDRAWN)
        audit.append(
            change.conn,
            actor,
            "image.restore",
            f"image:{image.id}",
            reason,
            {"withdrawn": True},
            {"withdrawn": False},
            now,
        )
        change.touch("images", "rollouts", "operations", "nodes", "fleet")


def nodes_still_on(conn: Connection, image_id: str, limit: int = 200) -> list[StillOn]:
    """Admitted nodes that are booted into the image, by name, with their way back."""
    image = images.get(conn, image_id)
    if image is None:
        raise NotFound("image", image_id)
    found = []
    for node_id in bad_versions.running(conn, image.digest, limit):
        node = nodes.get(conn, node_id)
        if node is not None:
            found.append(StillOn(node.id, node.name, way_back_of(node)))
    return found


def steps_back(conn: Connection, image_id: str) -> list[StepBack]:
    """Where the channels that point at the image would point after it was withdrawn, in the order of the channels."""
    return [
        StepBack(pointer.channel, before.version if (before := _before(conn, pointer)) is not None else None)
        for pointer in channels.pointers(conn)
        if pointer.image_id == image_id
    ]


def _found(change: Change, image_id: str) -> Image:
    image = images.get(change.conn, image_id, lock=True)
    if image is None:
        raise NotFound("image", image_id)
    return image


def _step_back(change: Change, actor: Actor, image: Image, reason: str, now: float) -> list[dict[str, str | None]]:
    """What each channel that pointed at the image points at now."""
    conn = change.conn
    stepped: list[dict[str, str | None]] = []
    for pointer in channels.pointers(conn):
        if pointer.image_id != image.id:
            continue
        if not channels.leave(conn, pointer.channel_id, pointer.os, pointer.arch, image.id, now):
            continue
        before = _before(conn, pointer)
        if before is not None:
            why = f"{image.version} was withdrawn: {reason}"
            channels.point(conn, pointer.channel_id, pointer.os, pointer.arch, before.id, actor.name, why, now)
        stepped.append({"channel": pointer.channel, "image": before.id if before is not None else None})
        audit.append(
            conn,
            actor,
            "channel.step-back",
            f"channel:{pointer.channel_id}",
            reason,
            {"image": image.id, "name": str(image.name)},
            {"image": before.id, "name": str(before.name)} if before is not None else None,
            now,
        )
    return stepped


def _before(conn: Connection, pointer: channels.Move) -> Image | None:
    """The image that the channel pointed at before it was led to this one, that may still be used and is not newer:
    back is never forth."""
    bad, withdrawn = bad_versions.not_cleared(conn), version_key(pointer.version)
    for image_id in reversed(_led_by(conn, pointer)):
        image = images.get(conn, image_id)
        if image is None or image.withdrawn_at is not None or image.digest in bad:
            continue
        if version_key(image.version) <= withdrawn:
            return image
    return None


def _led_by(conn: Connection, pointer: channels.Move) -> list[str]:
    """The images through which the channel was led to what it points at, the oldest first. What it had gone on to from
    an image to which it then returned is none of them: that was left, and nobody promoted it since."""
    led: list[str] = []
    for move in reversed(channels.history(conn, channel_id=pointer.channel_id, limit=_HISTORY)):
        if (move.os, move.arch) != (pointer.os, pointer.arch):
            continue
        if move.image_id in led:
            del led[led.index(move.image_id) :]
        led.append(move.image_id)
    return led[:-1]
