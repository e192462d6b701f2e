from __future__ import annotations

import pytest
from sqlalchemy import select

from app.core.actors import CONDUCTOR
from app.core.errors import Invalid, NotFound, NotPossible
from app.core.holds import HoldCode
from app.services import freezes, groups
from app.services.groups import Wish
from app.store import freezes as store
from app.store import revisions, schema
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR, count_rows

DAY_S = 86_400.0


def freeze(db: Database, group_id: str | None = None, **given: float) -> str:
    return freezes.freeze(db, OPERATOR, group_id=group_id, reason="Black Friday", now=NOW, **given)


def make_group(db: Database) -> str:
    return groups.create(db, OPERATOR, Wish("edge", "*"), "why", NOW)


def held(db: Database, group_ids: list[str], now: float = NOW) -> bool:
    with db.read() as conn:
        hold = freezes.hold_for(conn, group_ids, now)
    assert hold is None or hold.code is HoldCode.FREEZE
    return hold is not None


def test_a_freeze_of_the_fleet_holds_at_once_until_lifted(database: Database) -> None:
    freeze_id = freeze(database)
    assert held(database, []) and held(database, ["group_any"], NOW + 1000 * DAY_S)
    freezes.lift(database, OPERATOR, freeze_id, "over", NOW + 5)
    assert not held(database, [], NOW + 5)
    with database.read() as conn:
        found = store.get(conn, freeze_id)
        assert store.active(conn, NOW + 5) == store.not_over(conn, NOW + 5) == []
        assert store.all_freezes(conn) == [found]
    assert found is not None
    assert (found.lifted_at, found.lifted_by, found.lifted_reason) == (NOW + 5, "mb", "over")


def test_a_freeze_of_a_group_holds_that_group_and_ends_by_itself(database: Database) -> None:
    group_id = make_group(database)
    freeze(database, group_id, starts_at=NOW + 10, ends_at=NOW + 20)
    assert not held(database, ["group_other", ""], NOW + 15)
    assert [held(database, [group_id], NOW + each) for each in (9, 10, 19, 20)] == [False, True, True, False]
    with database.read() as conn:
        assert [each.group_name for each in store.not_over(conn, NOW)] == ["edge"]
        assert store.active(conn, NOW) == [] and len(store.active(conn, NOW + 10)) == 1


def test_overlapping_freezes_hold_until_the_last(database: Database) -> None:
    group_id = make_group(database)
    first = freeze(database, ends_at=NOW + 10)
    freeze(database, group_id, starts_at=NOW + 5, ends_at=NOW + 30)
    with database.read() as conn:
        hold = freezes.hold_for(conn, [group_id], NOW)
    assert hold is not None and hold.until == NOW + 30
    freezes.lift(database, OPERATOR, first, "over", NOW + 6)
    assert held(database, [group_id], NOW + 6) and not held(database, [], NOW + 6)


def test_a_start_in_the_past_is_now(database: Database) -> None:
    freeze_id = freeze(database, starts_at=NOW - 99)
    with database.read() as conn:
        found = store.get(conn, freeze_id)
    assert found is not None and found.starts_at == NOW


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"ends_at": NOW}, "ends_at"),
        ({"starts_at": NOW + 20, "ends_at": NOW + 20}, "ends_at"),
        ({"ends_at": NOW + 400 * DAY_S}, "ends_at"),
        ({"starts_at": NOW + 400 * DAY_S}, "starts_at"),
        ({"starts_at": float("nan")}, "starts_at"),
        ({"ends_at": float("nan")}, "ends_at"),
    ],
)
def test_a_freeze_that_cannot_be(database: Database, given: dict[str, float], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        freeze(database, **given)
    assert refused.value.field == field
    assert count_rows(database, schema.freezes) == count_rows(database, schema.audit) == 0


def test_reasons_are_needed_and_groups_must_be(database: Database) -> None:
    with pytest.raises(Invalid):
        freezes.freeze(database, OPERATOR, group_id=None, reason=" ", now=NOW)
    with pytest.raises(NotFound):
        freeze(database, "group_none")
    freeze_id = freeze(database)
    with pytest.raises(Invalid):
        freezes.lift(database, OPERATOR, freeze_id, "", NOW)
    with pytest.raises(NotFound):
        freezes.lift(database, OPERATOR, "freeze_none", "why", NOW)
    assert held(database, [])


def test_what_is_over_is_not_lifted_again(database: Database) -> None:
    lifted, ended = freeze(database), freeze(database, make_group(database), ends_at=NOW + 5)
    freezes.lift(database, OPERATOR, lifted, "over", NOW)
    for freeze_id in (lifted, ended):
        with pytest.raises(NotPossible) as refused:
            freezes.lift(database, OPERATOR, freeze_id, "again", NOW + 5)
        assert refused.value.code == "over"
    assert count_rows(database, schema.audit) == 4  # with the group


def test_the_same_scope_is_frozen_once_at_a_time(database: Database) -> None:
    group_id = make_group(database)
    first = freeze(database, starts_at=NOW + 10, ends_at=NOW + 20)
    freeze(database, group_id)  # another scope
    for given in ({}, {"starts_at": NOW + 19}, {"ends_at": NOW + 11}, {"starts_at": NOW + 12, "ends_at": NOW + 13}):
        with pytest.raises(NotPossible, match="Change the end of that freeze") as refused:
            freeze(database, **given)
        assert refused.value.code == "frozen-already"
    assert count_rows(database, schema.freezes) == 2
    freeze(database, ends_at=NOW + 10)  # before it
    freeze(database, starts_at=NOW + 20)  # after it
    freezes.lift(database, OPERATOR, first, "over", NOW + 1)
    freeze(database, starts_at=NOW + 10, ends_at=NOW + 20)


def test_the_freeze_of_a_new_epoch_hinders_no_operator(database: Database) -> None:
    freezes.freeze(database, CONDUCTOR, group_id=None, reason="restored from a backup", now=NOW)
    freeze(database)
    assert count_rows(database, schema.freezes) == 2


def test_the_end_of_a_freeze_is_changed_and_audited(database: Database) -> None:
    freeze_id = freeze(database, ends_at=NOW + 20)
    freeze(database, starts_at=NOW + 30)
    with pytest.raises(NotPossible):  # it would run into the next one
        freezes.change_end(database, OPERATOR, freeze_id, NOW + 31, "longer", NOW)
    with pytest.raises(Invalid):
        freezes.change_end(database, OPERATOR, freeze_id, NOW, "at once", NOW)
    with pytest.raises(Invalid):
        freezes.change_end(database, OPERATOR, freeze_id, NOW + 25, " ", NOW)
    with pytest.raises(NotFound):
        freezes.change_end(database, OPERATOR, "freeze_none", NOW + 25, "longer", NOW)
    assert not held(database, [], NOW + 20)
    freezes.change_end(database, OPERATOR, freeze_id, NOW + 25, "longer", NOW)
    assert held(database, [], NOW + 24) and not held(database, [], NOW + 25)
    with pytest.raises(NotPossible):
        freezes.change_end(database, OPERATOR, freeze_id, NOW + 28, "again", NOW + 25)
    with database.read() as conn:
        last = conn.execute(select(schema.audit).order_by(schema.audit.c.id.desc())).first()
    assert last is not None and last.action == "freeze.end"
    assert (last.before["ends_at"], last.after["ends_at"]) == (NOW + 20, NOW + 25)


def test_who_froze_and_thawed_is_written_down_and_shown(database: Database) -> None:
    topics = ("freezes", "groups", "fleet", "nodes")

    def revised() -> dict[str, int]:
        with database.read() as conn:
            return revisions.of_topics(conn, topics)

    seen = [revised()]
    freeze_id = freeze(database, ends_at=NOW + 5)
    seen.append(revised())
    freezes.lift(database, OPERATOR, freeze_id, "over", NOW + 1)
    seen.append(revised())
    for topic in topics:
        assert seen[0][topic] < seen[1][topic] < seen[2][topic]
    with database.read() as conn:
        entries = conn.execute(select(schema.audit).order_by(schema.audit.c.id)).all()
    assert [(each.action, each.object, each.reason) for each in entries] == [
        ("freeze.set", f"freeze:{freeze_id}", "Black Friday"),
        ("freeze.lift", f"freeze:{freeze_id}", "over"),
    ]
    assert entries[0].after == {"group": None, "starts_at": NOW, "ends_at": NOW + 5}
