"""Freezes of the fleet or of a group: set, lifted, and what they hold. They end by time without anybody's doing."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection

from app.core.actors import CONDUCTOR, Actor
from app.core.errors import Invalid, NotFound, NotPossible
from app.core.freezes import Freeze, freeze_hold
from app.core.holds import Hold
from app.core.policy_json import LONGEST_S
from app.ids import new_id
from app.services.acting import need
from app.store import audit, fleet, groups
from app.store import freezes as store
from app.store.database import Database


def freeze(
    db: Database,
    actor: Actor,
    *,
    group_id: str | None,
    reason: str,
    now: float,
    starts_at: float | None = None,
    ends_at: float | None = None,
) -> str:
    """Nothing is activated in the group (None: in the fleet) from `starts_at` (None: now) to `ends_at` (None: until
    it is lifted); returns its id. Freezes of different scopes may overlap: nodes move when none holds them. Of the same
    scope a second one at the same time is NotPossible: whoever lifts one of two thinks that it is over."""
    need(reason, "Say why: everybody who waits reads it.")
    starts_at = now if starts_at is None else max(starts_at, now)
    _possible_end(starts_at, ends_at, now)
    if not starts_at <= now + LONGEST_S:
        raise Invalid("starts_at", "A freeze starts within a year.")
    freeze_id = new_id("freeze")
    with db.write() as change:
        fleet.lock(change.conn)  # who admits now has either granted before this, or sees it
        if group_id is not None and groups.get(change.conn, group_id) is None:
            raise NotFound("group", group_id)
        _alone(change.conn, group_id, starts_at, ends_at, now)
        store.add(
            change.conn,
            freeze_id,
            group_id=group_id,
            actor=actor.name,
            reason=reason.strip(),
            starts_at=starts_at,
            ends_at=ends_at,
        )
        after = {"group": group_id, "starts_at": starts_at, "ends_at": ends_at}
        audit.append(change.conn, actor, "freeze.set", f"freeze:{freeze_id}", reason, None, after, now)
        change.touch("freezes", "groups", "fleet", "nodes")
    return freeze_id


def change_end(db: Database, actor: Actor, freeze_id: str, ends_at: float | None, reason: str, now: float) -> None:
    """The freeze ends then (None: when it is lifted) instead; NotPossible when it is over already."""
    need(reason, "Say why: everybody who waits reads it.")
    with db.write() as change:
        fleet.lock(change.conn)
        found = store.get(change.conn, freeze_id)
        if found is None:
            raise NotFound("freeze", freeze_id)
        _possible_end(max(now, found.starts_at), ends_at, now)
        _alone(change.conn, found.group_id, found.starts_at, ends_at, now, but=freeze_id)
        if not store.change_end(change.conn, freeze_id, ends_at, now):
            raise NotPossible("over", f"The freeze of {found.what} is over already; nothing was changed.")
        before, after = _logged(found), {**_logged(found), "ends_at": ends_at}
        audit.append(change.conn, actor, "freeze.end", f"freeze:{freeze_id}", reason, before, after, now)
        change.touch("freezes", "groups", "fleet", "nodes")


def lift(db: Database, actor: Actor, freeze_id: str, reason: str, now: float) -> None:
    """End a freeze now, or call one off; NotPossible when it is over already."""
    need(reason, "Say why the freeze is lifted: it is kept in the audit log.")
    with db.write() as change:
        fleet.lock(change.conn)
        found = store.get(change.conn, freeze_id)
        if found is None:
            raise NotFound("freeze", freeze_id)
        if not store.lift(change.conn, freeze_id, actor.name, reason.strip(), now):
            raise NotPossible("over", f"The freeze of {found.what} is over already; nothing was changed.")
        audit.append(change.conn, actor, "freeze.lift", f"freeze:{freeze_id}", reason, _logged(found), None, now)
        change.touch("freezes", "groups", "fleet", "nodes")


def standing(conn: Connection, group_id: str | None, now: float) -> list[Freeze]:
    """What an operator froze of exactly this scope and is not over, the first to start first. The freeze of a new
    epoch is not among them: it waits for one look, and an operator's own must outlast that."""
    found = store.not_over(conn, now)
    return [each for each in found if each.group_id == group_id and each.actor != CONDUCTOR.name]


def hold_for(conn: Connection, group_ids: Collection[str], now: float) -> Hold | None:
    """What holds nodes of these groups now: the freeze that lasts longest speaks; `until`: when none holds them."""
    return freeze_hold(store.not_over(conn, now), group_ids, now)


def _possible_end(starts_at: float, ends_at: float | None, now: float) -> None:
    if ends_at is not None and not starts_at < ends_at <= now + LONGEST_S:
        raise Invalid("ends_at", "A freeze ends after it starts, and within a year; without an end it is lifted.")


def _alone(
    conn: Connection, group_id: str | None, starts_at: float, ends_at: float | None, now: float, but: str = ""
) -> None:
    """NotPossible when another freeze of the same scope holds within that time."""
    for other in standing(conn, group_id, now):
        begins_before = ends_at is None or other.starts_at < ends_at
        if other.id != but and begins_before and (other.ends_at is None or starts_at < other.ends_at):
            when = "already" if other.holds_at(now) else "within that time already"
            raise NotPossible(
                "frozen-already",
                f"{other.what[0].upper()}{other.what[1:]} is frozen {when}, by {other.actor}: “{other.reason}”. Change"
                " the end of that freeze instead; nothing was changed.",
            )


def _logged(found: Freeze) -> dict[str, Any]:
    return {"group": found.group_id, "starts_at": found.starts_at, "ends_at": found.ends_at}
