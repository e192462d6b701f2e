"""All moves of the machine in one table, and the turn that makes them.

A row is a step, a column what comes in; a cell names the handler and the steps it may lead to, None means that
the input means nothing there and changes nothing. After each input the row's SETTLE cell is asked until
nothing changes any more: facts are recorded first, decisions are made from all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.phases import asking, boot, drains, facts, gates, leases, orders, trial
from agent.phases.inputs import (
    Abandon,
    Checked,
    Command,
    Do,
    Inhibited,
    Input,
    Instructed,
    Limits,
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
from agent.phases.model import State, Step
from agent.phases.turn import Turn
from wire.messages import Ack, LeaseGrant, LeaseWait, Result


class Settle(msgspec.Struct, frozen=True):
    """Not an input from outside: asked after each one, what follows from all that is known."""


@dataclass(frozen=True)
class Move:
    """What a cell does; `to` are the steps it may lead to beside staying."""

    handler: Callable[[Turn, Any], None]
    to: frozenset[Step] = frozenset()


class UnlawfulMove(Exception):
    """A handler led to a step that its cell does not name: a mistake in this package.

    Fields: step, given (name of the input), landed.
    """

    def __init__(self, step: Step, given: str, landed: Step) -> None:
        super().__init__(f"{given} in step {step} led to {landed}, which the table does not allow")
        self.step, self.given, self.landed = step, given, landed


def _move(handler: Callable[[Turn, Any], None], *to: Step) -> Move:
    return Move(handler, frozenset(to))


def _settle(handler: Callable[[Turn], None], *to: Step) -> Move:
    return Move(lambda turn, _: handler(turn), frozenset(to))


def _idle(turn: Turn) -> None:
    orders.take_pending(turn)
    if turn.state.step is Step.IDLE:
        trial.confirm_unasked(turn)
        drains.unwind(turn)


def _held(turn: Turn) -> None:
    trial.confirm_unasked(turn)
    if not drains.unwind(turn):
        gates.weigh(turn)


def _acting(turn: Turn) -> None:
    if not turn.state.work:
        turn.end(Result.SUCCEEDED)


NOTED: dict[type[Any], Move | None] = {
    Ack: _move(facts.acknowledged),
    Welcomed: _move(facts.welcomed),
    LinkLost: _move(facts.link_lost),
    Checked: _move(facts.checked),
    SlotsSeen: _move(facts.slots_seen),
    Inhibited: _move(facts.inhibited),
    Noted: _move(facts.noted),
    Placed: _move(facts.placed),
    Ticked: _move(facts.ticked),
    Stopping: _move(facts.stopping),
    WorkDone: _move(facts.work_done),
}
"""Columns that only record; the same in every row."""

STRAY = _move(asking.return_stray)
AGAIN = _move(facts.failed(leases.try_again))

TABLE: dict[Step, dict[type[Any], Move | None]] = {
    Step.IDLE: NOTED
    | {
        Started: _move(boot.start),
        Instructed: _move(orders.take_now, Step.HELD),
        LeaseGrant: STRAY,
        LeaseWait: None,
        WorkFailed: AGAIN,
        Settle: _settle(_idle, Step.HELD),
    },
    Step.HELD: NOTED
    | {
        Started: _move(boot.start),
        Instructed: _move(orders.supersede, Step.IDLE),
        LeaseGrant: STRAY,
        LeaseWait: None,
        WorkFailed: AGAIN,
        Settle: _settle(_held, Step.IDLE, Step.STAGING, Step.READY, Step.ACTING),
    },
    Step.STAGING: NOTED
    | {
        Started: _move(boot.start, Step.HELD),
        Instructed: _move(orders.supersede, Step.IDLE, Step.HELD),
        LeaseGrant: STRAY,
        LeaseWait: None,
        WorkFailed: _move(facts.failed(facts.staging_failed), Step.RETRYING, Step.IDLE),
        Settle: _settle(gates.settle_staging, Step.READY, Step.IDLE),
    },
    Step.RETRYING: NOTED
    | {
        Started: _move(boot.start, Step.HELD),
        Instructed: _move(orders.supersede, Step.IDLE, Step.HELD),
        LeaseGrant: STRAY,
        LeaseWait: None,
        WorkFailed: AGAIN,
        Settle: _settle(facts.retry_staging, Step.STAGING, Step.IDLE),
    },
    Step.READY: NOTED
    | {
        Started: _move(boot.start, Step.HELD),
        Instructed: _move(orders.supersede, Step.IDLE, Step.HELD),
        LeaseGrant: _move(asking.take_lease, Step.DRAINING, Step.ARMING),
        LeaseWait: _move(asking.wait_for_lease),
        WorkFailed: AGAIN,
        Settle: _settle(asking.ask, Step.HELD, Step.IDLE),
    },
    Step.DRAINING: NOTED
    | {
        Started: _move(boot.start, Step.READY, Step.HELD),
        Instructed: _move(orders.supersede, Step.IDLE, Step.HELD),
        LeaseGrant: STRAY,
        LeaseWait: None,
        WorkFailed: _move(facts.failed(leases.drain_failed), Step.READY),
        Settle: _settle(leases.settle_draining, Step.READY, Step.ARMING),
    },
    Step.ARMING: NOTED
    | {
        Started: _move(boot.start, Step.READY, Step.CONFIRMING, Step.IDLE),
        Instructed: _move(orders.supersede_unless_armed, Step.IDLE, Step.HELD),
        LeaseGrant: STRAY,
        LeaseWait: None,
        WorkFailed: _move(facts.failed(leases.arm_failed), Step.READY, Step.IDLE),
        Settle: _settle(leases.arm, Step.READY, Step.REBOOTING),
    },
    Step.REBOOTING: NOTED
    | {
        Started: _move(boot.start, Step.ARMING, Step.READY, Step.CONFIRMING, Step.IDLE),
        Instructed: _move(orders.wait),
        LeaseGrant: STRAY,
        LeaseWait: None,
        WorkFailed: _move(facts.failed(leases.reboot_failed), Step.READY),
        Settle: _settle(leases.watch_reboot, Step.READY),
    },
    Step.CONFIRMING: NOTED
    | {
        Started: _move(boot.start, Step.IDLE),
        Instructed: _move(orders.wait),
        LeaseGrant: STRAY,
        LeaseWait: None,
        WorkFailed: AGAIN,
        Settle: _settle(trial.confirm, Step.SOAKING, Step.ROLLING_BACK, Step.HELD, Step.IDLE),
    },
    Step.SOAKING: NOTED
    | {
        Started: _move(boot.start, Step.IDLE),
        Instructed: _move(orders.supersede_soak, Step.HELD),
        LeaseGrant: STRAY,
        LeaseWait: None,
        WorkFailed: AGAIN,
        Settle: _settle(trial.soak, Step.HELD, Step.IDLE),
    },
    Step.ROLLING_BACK: NOTED
    | {
        Started: _move(boot.start, Step.IDLE),
        Instructed: _move(orders.wait),
        LeaseGrant: STRAY,
        LeaseWait: None,
        WorkFailed: _move(facts.failed(facts.retreat_failed)),
        Settle: _settle(trial.go_back),
    },
    Step.ACTING: NOTED
    | {
        Started: _move(boot.start, Step.HELD),
        Instructed: _move(orders.wait),
        LeaseGrant: STRAY,
        LeaseWait: None,
        WorkFailed: AGAIN,
        Settle: _settle(_acting, Step.IDLE),
    },
}

DEFAULT_LIMITS = Limits()

SETTLE_MOST = 8
"""Longest chain of steps without an input, with room: idle, held, staging, ready."""


def step(state: State, given: Input, moment: Moment, limits: Limits = DEFAULT_LIMITS) -> tuple[State, list[Command]]:
    """One input: the next state, and the commands to execute once it is on disk."""
    turn = Turn(state, moment, limits)
    given = facts.believed(state, given)
    if not isinstance(given, Started):
        facts.waked(turn)
    if not _apply(turn, given):
        return state, []
    _renew_due_work(turn)
    for _ in range(SETTLE_MOST):
        before = turn.state
        _apply(turn, Settle())
        if turn.state == before:
            break
    return turn.state, _commands(state, turn, given)


def _apply(turn: Turn, given: Input | Settle) -> bool:
    origin = turn.state.step
    move = TABLE[origin][type(given)]
    if move is None:
        return False
    move.handler(turn, given)
    landed = turn.state.step
    if landed is not origin and landed not in move.to:
        raise UnlawfulMove(origin, type(given).__name__, landed)
    return True


def _renew_due_work(turn: Turn) -> None:
    """Failed work whose pause is over is begun again, but never later than it may."""
    state, now_s = turn.state, turn.now_s
    if not state.work or state.retry_s is None or now_s < state.retry_s:
        return
    not_after_s = state.work[0].not_after_s
    if not_after_s is None or now_s < not_after_s:
        turn.renew_work()


def _commands(before: State, turn: Turn, given: Input) -> list[Command]:
    """What differs is what is to be done: the first work is under way, unless it waits for its next try."""
    commands: list[Command] = []
    after, fresh_run = turn.state, isinstance(given, Started)
    running = before.work[0].id if before.work and before.retry_s is None and not fresh_run else None
    answered = isinstance(given, WorkDone | WorkFailed) and given.id == running
    if running is not None and not answered and all(work.id != running for work in after.work):
        commands.append(Abandon(work_id=running))
    commands += turn.sends
    if after.work and after.retry_s is None and after.work[0].id != running:
        commands.append(Do(work=after.work[0]))
    return commands


def diagram() -> str:
    """The table as a Mermaid state diagram, for docs/agent.md."""
    lines = ["stateDiagram-v2", "    [*] --> idle"]
    for origin, row in TABLE.items():
        edges: dict[Step, list[str]] = {}
        for kind, move in row.items():
            for landed in move.to if move else ():
                edges.setdefault(landed, []).append(kind.__name__)
        for landed in Step:
            if landed in edges:
                label = ", ".join(sorted(edges[landed]))
                lines.append(f"    {_name(origin)} --> {_name(landed)}: {label}")
    return "\n".join(lines)


def _name(step: Step) -> str:
    return step.value.replace("-", "_")
