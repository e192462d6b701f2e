"""Every pair of step and input, the diagram, and what a handler may not do."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent.evidence import Expected, Verdict
from agent.phases import table
from agent.phases.inputs import (
    Checked,
    Inhibited,
    Input,
    Instructed,
    LinkLost,
    Moment,
    Noted,
    Placed,
    SlotsSeen,
    Started,
    Stopping,
    Ticked,
    Welcomed,
    WorkDone,
    WorkFailed,
)
from agent.phases.model import Asking, Booted, Drained, Lease, Retreat, Serving, State, Step, Trial, Work, WorkKind
from agent.phases.table import TABLE, Settle, UnlawfulMove, diagram, step
from tests.agent.wanted import digest, health, operation
from wire.messages import (
    Ack,
    Desired,
    HealthState,
    Hold,
    LeaseGrant,
    LeaseWait,
    OperationKind,
    Order,
    Result,
    Slot,
)

MOMENT = Moment(boot_s=100.0, wall=1.0, nonce="fresh", chance=0.5)
DOCS = Path(__file__).parents[2] / "docs" / "agent.md"

OLD = Slot(name="a", booted=True, next_boot=True, version="1", digest=digest("1"), good=True)
NEW = Slot(name="b", booted=False, next_boot=False, version="2", digest=digest("2"), tries_left=0)
SWITCHED = [
    msgspec.structs.replace(OLD, booted=False, next_boot=False),
    msgspec.structs.replace(NEW, booted=True, next_boot=True, tries_left=2),
]
AFTER = frozenset({Step.CONFIRMING, Step.SOAKING, Step.ROLLING_BACK})
WORK = {
    Step.STAGING: Work(id=7, kind=WorkKind.STAGE, image=operation("x").image),
    Step.DRAINING: Work(id=7, kind=WorkKind.DRAIN, script="move", limit_s=50.0, not_after_s=185.0),
    Step.ARMING: Work(id=7, kind=WorkKind.ARM, slot="b", not_after_s=200.0),
    Step.REBOOTING: Work(id=7, kind=WorkKind.REBOOT, not_after_s=200.0),
    Step.CONFIRMING: Work(id=7, kind=WorkKind.MARK_GOOD),
    Step.ROLLING_BACK: Work(id=7, kind=WorkKind.REBOOT),
    Step.ACTING: Work(id=7, kind=WorkKind.DISARM),
}


def sample(at: Step) -> State:
    """A state that stands in this step for good reasons."""
    after = at in AFTER
    work = WORK.get(at)
    kind = OperationKind.DISARM if at is Step.ACTING else OperationKind.ACTIVATE
    expected = Expected(slot="b", digest=digest("2"), version="2", old_boot_id="boot-0", operation_id="x", kind=kind)
    armed = after or at in (Step.ARMING, Step.REBOOTING)
    return State(
        step=at,
        boot_id="boot-1",
        os="demo",
        arch="amd64",
        newest=Order(1, 5),
        operation=None if at is Step.IDLE else operation("x", kind),
        order=None if at is Step.IDLE else Order(1, 5),
        slots=SWITCHED if after else [OLD, NEW],
        booted=Booted(
            slot="b" if after else "a", digest=digest("2" if after else "1"), confirmed=at is not Step.CONFIRMING
        ),
        work=[work] if work else [],
        next_work=8,
        retry_s=150.0 if at is Step.RETRYING else None,
        expected=expected if armed else None,
        lease=Lease(id="l", operation_id="x", until_s=200.0, boot_id="boot-1")
        if at is Step.DRAINING or (at in WORK and armed)
        else None,
        drained=Drained(script="move", limit_s=50.0, operation_id="x") if at is Step.DRAINING else None,
        relied=Serving(known=True) if at in (Step.READY, Step.DRAINING, Step.ARMING, Step.REBOOTING) else None,
        serving=Serving(known=True),
        asking=Asking(nonce="asked", sent_s=99.0) if at is Step.READY else None,
        trial=Trial(until_s=500.0) if after else None,
        retreat=Retreat(
            result=Result.FELL_BACK,
            reason="bad",
            to_slot="a",
            from_slot="b",
            from_version="2",
            origin_confirmed=True,
        )
        if at is Step.ROLLING_BACK
        else None,
        linked=True,
        welcomed=at is not Step.CONFIRMING,
        hold=Hold(code="keeping-way-back", text="…") if at is Step.HELD else None,
    )


def inputs(state: State) -> list[Input]:
    desired = Desired(order=Order(1, 6), operation=operation("y"))
    return [
        Started(boot_id="boot-1", slots=state.slots, os="demo", arch="amd64"),
        *[
            Started(boot_id="boot-2", slots=slots, os="demo", arch="amd64", verdict=verdict)
            for verdict in Verdict
            for slots in ([OLD, NEW], SWITCHED)
        ],
        Instructed(desired=desired),
        Instructed(desired=Desired(order=Order(1, 6))),
        Instructed(desired=Desired(order=Order(1, 6), operation=operation("y", OperationKind.ROLLBACK))),
        LeaseGrant(lease_id="n", operation_id="x", nonce="asked", duration_s=60.0),
        LeaseWait(operation_id="x", nonce="asked", hold=Hold(code="h", text="t"), retry_s=5.0),
        Ack(seq=3),
        Welcomed(),
        LinkLost(),
        WorkDone(id=7, slots=state.slots),
        WorkFailed(id=7, code="tool", text="no", transient=False),
        WorkFailed(id=7, code="lease-ended", text="no", transient=True),
        Checked(health=health()),
        Checked(health=health(HealthState.UNHEALTHY)),
        SlotsSeen(slots=state.slots),
        Inhibited(names=["me"]),
        Placed(serving=Serving(known=True, replicas={"shop/web": 1})),
        Placed(serving=Serving(reason="the engine hangs")),
        Noted(kind="server-key-changed", text="…"),
        Ticked(),
        Stopping(orderly=True),
    ]


def test_the_table_is_whole() -> None:
    kinds = {type(given) for given in inputs(sample(Step.IDLE))} | {Settle}
    assert set(TABLE) == set(Step)
    for row in TABLE.values():
        assert set(row) == kinds


@pytest.mark.parametrize("at", list(Step))
def test_every_pair_does_what_its_cell_says(at: Step) -> None:
    state = sample(at)
    for given in inputs(state):
        after, commands = step(state, given, MOMENT)
        move = TABLE[at][type(given)]
        if move is None:
            assert (after, commands) == (state, [])
        assert after.operation is not None or after.step is Step.IDLE


@pytest.mark.parametrize("at", list(Step))
def test_answers_to_older_work_are_no_answers(at: Step) -> None:
    state = sample(at)
    for given in (WorkDone(id=6, slots=[]), WorkFailed(id=6, code="tool", text="")):
        after, _ = step(state, given, MOMENT)
        assert after.work[:1] == state.work[:1] and after.slots == state.slots


@pytest.mark.parametrize("at", [at for at in Step if TABLE[at][LeaseWait] is None])
def test_a_wait_for_a_lease_means_nothing_elsewhere(at: Step) -> None:
    state = sample(at)
    given = LeaseWait(operation_id="x", nonce="asked", hold=Hold(code="h", text="t"), retry_s=5.0)
    assert step(state, given, MOMENT) == (state, [])


def test_a_move_that_the_table_does_not_name_is_an_error() -> None:
    state = sample(Step.IDLE)

    def lawless(turn: table.Turn, _: object) -> None:
        turn.set(step=Step.REBOOTING)

    row = TABLE[Step.IDLE]
    kept = row[Ticked]
    row[Ticked] = table.Move(lawless)
    try:
        with pytest.raises(UnlawfulMove, match="Ticked in step idle led to rebooting"):
            step(state, Ticked(), MOMENT)
    finally:
        row[Ticked] = kept


def test_the_same_input_gives_the_same_answer() -> None:
    for at in Step:
        state = sample(at)
        for given in inputs(state):
            assert step(state, given, MOMENT) == step(state, given, MOMENT)


def test_the_diagram_in_the_docs_is_the_table() -> None:
    assert f"```mermaid\n{diagram()}\n```" in DOCS.read_text()
