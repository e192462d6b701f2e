"""What people do about what needs them: who took it, until when it is put aside."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from app.store.schema import attention_marks as marks


@dataclass(frozen=True, slots=True)
class Mark:
    kind: str
    subject: str
    owner: str | None
    taken_at: float | None
    snoozed_until: float | None
    actor: str
    note: str

    def snoozed(self, now: float) -> bool:
        return self.snoozed_until is not None and now < self.snoozed_until


def all_marks(conn: Connection) -> dict[tuple[str, str], Mark]:
    """By kind and subject."""
    rows = conn.execute(select(marks))
    return {
        (row.kind, row.subject): Mark(
            row.kind, row.subject, row.owner, row.taken_at, row.snoozed_until, row.actor, row.note
        )
        for row in rows
    }


def get(conn: Connection, kind: str, subject: str) -> Mark | None:
    return all_marks(conn).get((kind, subject))


def put(conn: Connection, mark: Mark) -> None:
    """As it is now, whatever it was."""
    values = {
        "owner": mark.owner,
        "taken_at": mark.taken_at,
        "snoozed_until": mark.snoozed_until,
        "actor": mark.actor,
        "note": mark.note,
    }
    known = conn.execute(
        update(marks)
        .where(marks.c.kind == mark.kind, marks.c.subject == mark.subject)
        .values(**values, version=marks.c.version + 1)
    )
    if known.rowcount == 0:
        conn.execute(insert(marks).values(kind=mark.kind, subject=mark.subject, **values))


def remove(conn: Connection, kind: str, subject: str) -> bool:
    removed = conn.execute(delete(marks).where(marks.c.kind == kind, marks.c.subject == subject))
    return removed.rowcount == 1
