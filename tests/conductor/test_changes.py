"""Steps that follow topics rest while nothing of that changes: no longer than their patience, and never wrongly."""

from __future__ import annotations

from collections.abc import Callable

from app.conductor import loop
from app.conductor.changes import Changes
from app.conductor.loop import Conductor
from app.store.database import Database
from tests.server_kit import NOW

FOLLOWS, PATIENCE_S = frozenset({"rollouts"}), 20.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def conductor_of(database: Database, clock: Clock, step: Callable[[Database, float], object]) -> Conductor:
    """One that has only this step."""
    made = Conductor(database, clock)
    made._loops = [loop._Loop("step", step, 1.0, FOLLOWS, PATIENCE_S)]
    made._changes = Changes(FOLLOWS)
    return made


def touched(database: Database, topic: str) -> None:
    with database.write() as change:
        change.touch(topic)


def test_a_step_rests_until_what_it_follows_changes_or_its_patience_ends(database: Database) -> None:
    clock, ran = Clock(), list[float]()
    conductor = conductor_of(database, clock, lambda db, now: ran.append(now - NOW))
    for second in range(25):
        clock.now = NOW + second
        if second == 5:
            touched(database, "rollouts")  # and nobody nudges: the rows say it
        if second == 8:
            touched(database, "nodes")
        assert conductor.round()
    assert ran == [0.0, 5.0]
    clock.now = NOW + 5 + PATIENCE_S
    conductor.round()
    assert ran == [0.0, 5.0, 25.0]


def test_what_changes_while_a_step_looks_is_looked_at_again(database: Database) -> None:
    """Its own change too, for nobody can tell it from another's."""
    clock, ran = Clock(), list[float]()

    def step(db: Database, now: float) -> None:
        ran.append(now - NOW)
        if len(ran) == 1:
            touched(db, "rollouts")

    conductor = conductor_of(database, clock, step)
    for second in range(5):
        clock.now = NOW + second
        conductor.round()
    assert ran == [0.0, 1.0]


def test_a_step_that_failed_does_not_rest(database: Database) -> None:
    clock, ran = Clock(), list[float]()

    def step(db: Database, now: float) -> None:
        ran.append(now - NOW)
        if len(ran) < 3:
            raise ValueError("not yet")

    conductor = conductor_of(database, clock, step)
    for second in range(5):
        clock.now = NOW + second
        assert conductor.round()
    assert ran == [0.0, 1.0, 2.0]


def test_a_server_clock_that_is_set_back_lets_no_step_rest(database: Database) -> None:
    clock, ran = Clock(), list[float]()
    conductor = conductor_of(database, clock, lambda db, now: ran.append(now - NOW))
    for at in (0.0, -500.0, -499.5):
        clock.now = NOW + at
        conductor.round()
    assert ran == [0.0, -500.0]
