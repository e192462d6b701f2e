"""Random inputs in random order: the rules of the node hold whatever the server says.

The invariants are in tests.agent.world, checked at each input and each command.
"""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.phases.inputs import Inhibited, Instructed, SlotsSeen, WorkFailed
from agent.phases.model import Serving, State, Step, WorkKind
from agent.phases.show import activity
from tests.agent.wanted import operation
from tests.agent.world import World
from wire.messages import Ack, BootCause, Desired, HealthState, Hold, LeaseGrant, LeaseWait, OperationKind, Order

VERSIONS = st.sampled_from(["1", "2", "3"])
SERVINGS = [
    Serving(known=True),
    Serving(known=True, replicas={"shop/web": 1}),
    Serving(known=True, replicas={"shop/web": 2, "shop/db": 1}),
    Serving(reason="the engine hangs"),
]
FAILURES = st.builds(
    WorkFailed,
    id=st.just(0),
    code=st.sampled_from(["tool", "no-connection", "lease-ended", "wrong-digest", "address-ended"]),
    text=st.just("it failed"),
    transient=st.booleans(),
)


class Node(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.start()
        self.names = 0

    @rule(
        generation=st.integers(0, 30),
        epoch=st.integers(1, 2),
        kind=st.sampled_from(OperationKind),
        version=VERSIONS,
        again=st.integers(0, 5),
        override=st.booleans(),
        drain=st.sampled_from(["", "move", "other"]),
        drain_s=st.sampled_from([0.0, 20.0, 300.0]),
    )
    def instruct(
        self,
        generation: int,
        epoch: int,
        kind: OperationKind,
        version: str,
        again: int,
        override: bool,
        drain: str,
        drain_s: float,
    ) -> None:
        self.names += 1
        name = f"op{self.names - again if again < self.names else self.names}"
        wanted = operation(name, kind, version, override_failed=override, drain=drain, drain_s=drain_s)
        self.world.desire(generation + self.names, wanted, epoch=epoch)

    @rule(
        count=st.integers(5, 40),
        kind=st.sampled_from([OperationKind.ACTIVATE, OperationKind.ROLLBACK, OperationKind.REBOOT]),
        drain=st.sampled_from(["", "move"]),
    )
    def onwards(self, count: int, kind: OperationKind, drain: str) -> None:
        """So many steps of a life without accidents: random orders are mostly refused, and lead nowhere."""
        world = self.world
        for _ in range(count):
            if world.todo:
                world.one()
            elif world.state.operation is None and world.state.pending is None:
                self._order_anew(kind, drain)
            elif not world.linked:
                world.welcome()
            elif world.state.asking is not None:
                world.grant()
            else:
                world.wait(20)
                world.check()

    def _order_anew(self, kind: OperationKind, drain: str) -> None:
        self.names += 1
        newest, other = self.world.state.newest or Order(1, 0), self.world.slots[self.world.other]
        version = other.version if kind is OperationKind.ROLLBACK else str(self.names)
        name = f"new{self.names}"
        wanted = operation(name, kind, version or "2", drain=drain, drain_s=20.0, override_failed=True)
        self.world.desire(newest.generation + 1, wanted, epoch=newest.epoch)

    @rule(generation=st.integers(0, 30))
    def cancel(self, generation: int) -> None:
        self.world.desire(generation + self.names, None)

    @rule()
    def foreign_image(self) -> None:
        self.names += 1
        desired = Desired(order=Order(2, 100 + self.names), operation=operation(f"bad{self.names}"))
        self.world.give(Instructed(desired=desired, distrust="signed by nobody"))

    @rule(count=st.integers(1, 3))
    def work(self, count: int) -> None:
        for _ in range(count):
            if self.world.todo:
                self.world.one()

    @rule()
    def all_work(self) -> None:
        self.world.run(300)

    @rule(kind=st.sampled_from([kind for kind in WorkKind if kind is not WorkKind.PROBE]), failed=FAILURES)
    def will_fail(self, kind: WorkKind, failed: WorkFailed) -> None:
        self.world.failures[kind] = [failed]

    @rule(seconds=st.sampled_from([1.0, 11.0, 61.0, 400.0, 4000.0]))
    def time(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule(seconds=st.sampled_from([2.0, 200.0, 90_000.0]))
    def suspended(self, seconds: float) -> None:
        self.world.sleep(seconds)

    @rule(ahead=st.sampled_from([0, 1, 1000]))
    def acknowledged_ahead(self, ahead: int) -> None:
        """The server knows more numbers than this node ever used."""
        self.world.items.clear()
        self.world.give(Ack(seq=self.world.state.next_seq + ahead))

    @rule()
    def answer_lost(self) -> None:
        self.world.answer_lost = True

    @rule(count=st.integers(0, 2))
    def odd_slots(self, count: int) -> None:
        """The tool shows no booted slot, the other one, or two."""
        shown = self.world.shown()
        booted = [[], [self.world.other], ["a", "b"]][count]
        self.world.give(SlotsSeen(slots=[msgspec.structs.replace(slot, booted=slot.name in booted) for slot in shown]))

    @rule(state=st.sampled_from(HealthState))
    def check(self, state: HealthState) -> None:
        self.world.check(state)

    @rule()
    def connect(self) -> None:
        self.world.welcome()

    @rule()
    def disconnect(self) -> None:
        self.world.lose_link()
        self.world.todo = type(self.world.todo)(c for c in self.world.todo if not hasattr(c, "message"))

    @precondition(lambda self: self.world.state.asking is not None)
    @rule(duration_s=st.sampled_from([5.0, 60.0, 600.0]), late=st.booleans())
    def grant(self, duration_s: float, late: bool) -> None:
        self.world.grant(duration_s, late=late)

    @rule(nonce=st.integers(1, 200), operation_number=st.integers(1, 20))
    def foreign_grant(self, nonce: int, operation_number: int) -> None:
        asking = self.world.state.asking
        if asking is None or asking.sent_with(f"n{nonce}") is None:
            grant = LeaseGrant(
                lease_id="foreign",
                operation_id=f"op{operation_number}",
                nonce=f"n{nonce}",
                duration_s=600.0,
            )
            self.world.give(grant)

    @precondition(lambda self: self.world.state.asking is not None)
    @rule()
    def lease_wait(self) -> None:
        state = self.world.state
        assert state.asking is not None and state.operation is not None
        hold = Hold(code="group-budget", text="later")
        self.world.give(LeaseWait(operation_id=state.operation.id, nonce=state.asking.nonce, hold=hold, retry_s=30.0))

    @rule(serving=st.sampled_from(SERVINGS))
    def containers(self, serving: Serving) -> None:
        self.world.place(serving)

    @rule(names=st.sampled_from([[], ["backup"]]))
    def inhibit(self, names: list[str]) -> None:
        self.world.give(Inhibited(names=names))

    @rule()
    def acknowledge(self) -> None:
        self.world.acknowledge()

    @rule(cause=st.sampled_from(BootCause))
    def power_cut(self, cause: BootCause) -> None:
        self.world.reboot(cause)

    @rule()
    def shut_down(self) -> None:
        self.world.shut_down()

    @rule()
    def crash(self) -> None:
        self.world.crash()

    @rule(version=VERSIONS, broken=st.booleans())
    def breakage(self, version: str, broken: bool) -> None:
        (self.world.broken.add if broken else self.world.broken.discard)(version)

    @rule(standing=st.booleans())
    def witnesses(self, standing: bool) -> None:
        self.world.standing = standing

    @rule()
    def look(self) -> None:
        self.world.give(SlotsSeen(slots=self.world.shown()))

    @invariant()
    def quiet(self) -> None:
        self.world.check_quiet()

    @invariant()
    def can_be_shown(self) -> None:
        activity(self.world.state, self.world.boot_s)

    @invariant()
    def waits_have_names(self) -> None:
        state: State = self.world.state
        if state.step in (Step.HELD, Step.READY) and not self.world.todo and not state.work:
            assert activity(state, self.world.boot_s).holds, f"{state.step} waits without a name"

    def teardown(self) -> None:
        for report in self.world.reports:
            self.world.result(report.operation_id)


Node.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestNode = Node.TestCase
