"""One turn of the machine: the state as it becomes, and the words that handlers change it with.

A turn is made for one input and thrown away; the state inside stays a frozen value.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.phases.inputs import Limits, Moment, Send
from agent.phases.model import (
    Ended,
    Lease,
    Returned,
    State,
    Step,
    Work,
    WorkKind,
    booted,
    passive,
)
from wire.messages import (
    BootCause,
    Check,
    Evidence,
    FailedVersion,
    Image,
    LeaseRequest,
    LeaseReturn,
    NodeEvent,
    Operation,
    OperationKind,
    OperationReport,
    Order,
    Outcome,
    Result,
)

ENDED_KEPT = 32
"""Operations whose result is remembered: the server repeats only its newest ones."""
FAILED_KEPT = 64
RETURNED_KEPT = 16
"""Leases that were given back: a node has one at a time, more come from a server that is wrong."""
OUTBOX_EVENTS = 256
OUTBOX_CHARS = 256 * 1024
"""Of all texts and outputs of these events: state.json holds them and is written at each change."""
CHECK_FAILED = "check-failed"
UNTOUCHED = frozenset({Result.REFUSED, Result.CANCELLED})
WITHOUT_OUTCOME = frozenset({OperationKind.DISARM, OperationKind.RESCUE})


class Turn:
    """Fields: state (as it becomes), moment, limits, sends (messages to say at once)."""

    __slots__ = ("limits", "moment", "sends", "state")

    def __init__(self, state: State, moment: Moment, limits: Limits) -> None:
        self.state = state
        self.moment = moment
        self.limits = limits
        self.sends: list[Send] = []

    @property
    def now_s(self) -> float:
        """The boot clock."""
        return self.moment.boot_s

    @property
    def operation(self) -> Operation:
        """The current operation, in steps that have one."""
        assert self.state.operation is not None, f"step {self.state.step} without an operation"
        return self.state.operation

    def set(self, **changes: object) -> None:
        self.state = msgspec.structs.replace(self.state, **changes)

    # --- work -----------------------------------------------------------------------------------------------

    def queue(
        self,
        kind: WorkKind,
        *,
        slot: str = "",
        image: Image | None = None,
        not_after_s: float | None = None,
        script: str = "",
        limit_s: float = 0.0,
    ) -> None:
        """Add work behind what is there; staging fetches as the operation says."""
        operation = self.state.operation if kind is WorkKind.STAGE else None
        work = Work(
            id=self.state.next_work,
            kind=kind,
            slot=slot,
            image=image,
            not_after_s=not_after_s,
            mirrors=operation.mirrors if operation else [],
            bandwidth_bytes_s=operation.bandwidth_bytes_s if operation else 0,
            script=script,
            limit_s=limit_s,
        )
        self.set(work=[*self.state.work, work], next_work=work.id + 1)

    def drop_work(self) -> None:
        self.set(work=[], retry_s=None, work_error="")

    def renew_work(self) -> None:
        """Try the first work again, under a new id."""
        if self.state.work:
            first, *rest = self.state.work
            again = msgspec.structs.replace(first, id=self.state.next_work)
            self.set(work=[again, *rest], next_work=again.id + 1)
        self.set(retry_s=None)

    # --- what is said ---------------------------------------------------------------------------------------

    def event(
        self,
        kind: str,
        text: str,
        *,
        operation_id: str | None = None,
        cause: BootCause | None = None,
        checks: Sequence[Check] = (),
    ) -> None:
        """Something that the history keeps, about the current operation unless another is named."""
        if operation_id is None and self.state.operation is not None:
            operation_id = self.state.operation.id
        self._post(
            NodeEvent(
                seq=self.state.next_seq,
                at=self.moment.wall,
                kind=kind,
                text=text,
                operation_id=operation_id,
                boot_id=self.state.boot_id or None,
                cause=cause,
                checks=list(checks),
            )
        )

    def report(self, ended: Ended, evidence: Evidence | None = None, checks: Sequence[Check] = ()) -> None:
        self._post(
            OperationReport(
                seq=self.state.next_seq,
                operation_id=ended.operation_id,
                order=ended.order,
                result=ended.result,
                at=ended.at,
                reason=ended.reason,
                evidence=evidence or Evidence(),
                failed_checks=list(checks),
            )
        )

    def _post(self, item: NodeEvent | OperationReport) -> None:
        self.set(outbox=thinned([*self.state.outbox, item]), next_seq=item.seq + 1)

    def return_lease(self, reason: str) -> None:
        """Give the lease in hand back, if there is one."""
        lease = self.state.lease
        if lease is not None:
            self.set(lease=None, relied=None)
            self.give_back(lease, reason)

    def give_back(self, lease: Lease, reason: str) -> None:
        message = LeaseReturn(lease_id=lease.id, operation_id=lease.operation_id, reason=reason)
        others = [entry for entry in self.state.returned if entry.message.lease_id != lease.id]
        self.set(returned=[*others, Returned(message=message, until_s=lease.until_s)][-RETURNED_KEPT:])
        self.say(message)

    def say(self, message: LeaseRequest | LeaseReturn) -> None:
        """Say it on the present connection, if there is one."""
        if self.state.linked:
            self.sends.append(Send(message=message))

    # --- how things end -------------------------------------------------------------------------------------

    def remember_failed(self, version: str, digest: str | None, reason: str) -> None:
        """Rule 5: no automatic retry into this version here."""
        if digest is None:
            return
        others = [failed for failed in self.state.failed if failed.digest != digest]
        entry = FailedVersion(version=version, digest=digest, reason=reason, at=self.moment.wall)
        self.set(failed=[*others, entry][-FAILED_KEPT:])

    def end(self, result: Result, reason: str = "", checks: Sequence[Check] = ()) -> None:
        """The current operation ends, once and for all."""
        operation = self.operation
        ended = Ended(
            operation_id=operation.id,
            order=self.state.order or Order(0, 0),
            result=result,
            at=self.moment.wall,
            reason=reason,
        )
        self.report(ended, self._evidence(), checks)
        if result not in UNTOUCHED and operation.kind not in WITHOUT_OUTCOME:
            self.set(outcome=self._outcome(ended, checks))
        self.set(
            step=Step.IDLE,
            ended=[*self.state.ended, ended][-ENDED_KEPT:],
            operation=None,
            order=None,
            distrust="",
            hold=None,
            stage_until_s=None,
            stage_tries=0,
            expected=None,
            armed=False,
            lease=None,
            asking=None,
            ask_s=None,
            relied=None,
            drain_tries=0,
            witnesses={},
            rebooted_s=None,
            trial=None,
            retreat=None,
        )

    def _outcome(self, ended: Ended, checks: Sequence[Check]) -> Outcome:
        return Outcome(
            result=ended.result,
            operation_id=ended.operation_id,
            at=ended.at,
            version=target(self.state),
            reason=ended.reason,
            failed_checks=list(checks),
        )

    def _evidence(self) -> Evidence:
        slot = booted(self.state)
        expected = self.state.expected
        return Evidence(
            old_boot_id=expected.old_boot_id if expected else None,
            boot_id=self.state.boot_id,
            booted_slot=slot.name if slot else None,
            booted_digest=slot.digest if slot else None,
            booted_version=slot.version if slot else None,
        )


def thinned(outbox: list[NodeEvent | OperationReport]) -> list[NodeEvent | OperationReport]:
    """Within bounds while nobody acknowledges: failed checks repeat themselves and go first, reports never go."""
    while True:
        events = [item for item in outbox if isinstance(item, NodeEvent)]
        if len(events) <= OUTBOX_EVENTS and sum(map(_chars, events)) <= OUTBOX_CHARS:
            return outbox
        victim = next((event for event in events if event.kind == CHECK_FAILED), events[0])
        outbox = [item for item in outbox if item is not victim]


def _chars(event: NodeEvent) -> int:
    return len(event.text) + sum(len(check.text) + len(check.output) for check in event.checks)


def target(state: State) -> str:
    """Version that the current operation leads to; empty where it is about no version."""
    if state.operation is None:
        return ""
    if state.operation.image is not None:
        return state.operation.image.version
    if state.expected is not None:
        return state.expected.version
    slot = passive(state) if state.operation.kind is OperationKind.ROLLBACK else None
    return (slot.version or "") if slot is not None else ""
