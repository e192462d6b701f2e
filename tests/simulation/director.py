"""Makes a story happen: what breaks at which moment, and what operators do, whether it is possible then or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import select

from app.core.rollouts import RolloutState
from app.services import freezes, nodes, rollout_reverse, rollout_start, rollouts, withdrawal
from app.services.rollout_spec import RolloutSpec
from app.store import schema
from sim.node import SimNode
from tests.server_kit import OPERATOR
from tests.simulation.story import BAD, OTHER, TARGET, ZONES, Deed, Event, Fault
from tests.simulation.world import World

BEGIN_S = 20.0
"""By then all nodes are connected."""
AWAY_S = 1800.0
REASON = "simulation"

T = TypeVar("T")


class Director:
    """Fields to read: rollouts and groups (ids, in the order of their start and of their names), troubled (numbers of
    nodes that had a fault of their own: only they may fail on a good version)."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rollouts: list[str] = []
        self.troubled: set[int] = set()
        self._freezes: list[str] = []
        self.groups = self._group_ids()

    def _group_ids(self) -> list[str]:
        with self._world.stage.read() as conn:
            return list(conn.execute(select(schema.groups.c.id).order_by(schema.groups.c.name)).scalars())

    def plan(self) -> None:
        """Put everything of the story into the queue."""
        world = self._world
        world.after(BEGIN_S, lambda: self.begin(self.groups[0], world.story.version))
        for event in world.story.events:
            world.after(event.at_s, self._doing(event))

    def _doing(self, event: Event) -> Callable[[], None]:
        act = _FAULTS[event.what] if isinstance(event.what, Fault) else _DEEDS[event.what]

        def run() -> None:
            if isinstance(event.what, Fault):
                self._world.say(f"fault: {event.what}")
            act(self, event.number)

        return run

    # --- rollouts -------------------------------------------------------------------------------------------

    def begin(self, group_id: str, version: str) -> None:
        """Draft a rollout of the group and start it."""
        world = self._world
        made: list[str] = []
        spec = RolloutSpec(group_id=group_id, image_ids=(f"image_{version}",), allow_downgrade=True, reason=REASON)
        world.operate(
            lambda: made.append(rollouts.draft(world.stage, OPERATOR, spec, world.clock())), f"draft {version}"
        )
        if not made:
            return
        (plan,) = [each for each in world.story.groups if each.name == self._name(group_id)]
        world.story.plans[made[0]] = plan
        started = world.operate(
            lambda: rollout_start.start(world.stage, OPERATOR, made[0], REASON, world.clock(), start_anyway=True),
            f"start {version}",
        )
        if started or self.state(made[0]) is not RolloutState.DRAFT:
            self.rollouts.append(made[0])

    def _name(self, group_id: str) -> str:
        with self._world.stage.read() as conn:
            query = select(schema.groups.c.name).where(schema.groups.c.id == group_id)
            return str(conn.execute(query).scalar_one())

    def state(self, rollout_id: str) -> RolloutState:
        with self._world.stage.read() as conn:
            query = select(schema.rollouts.c.state).where(schema.rollouts.c.id == rollout_id)
            return RolloutState(conn.execute(query).scalar_one())

    def _one(self, number: int) -> str | None:
        return _chosen(self.rollouts, number) if self.rollouts else None

    def move(self, words: str, work: Callable[..., object], rollout_id: str) -> None:
        """One of the moves that take (db, actor, id, reason, now)."""
        world = self._world
        world.operate(
            lambda: work(world.stage, OPERATOR, rollout_id, REASON, world.clock()), f"{words} {rollout_id[-4:]}"
        )

    # --- what operators do ----------------------------------------------------------------------------------

    def _mover(words: str, work: Callable[..., object]) -> Callable[[Director, int], None]:  # type: ignore[misc]
        def act(self: Director, number: int) -> None:
            if (rollout_id := self._one(number)) is not None:
                self.move(words, work, rollout_id)

        return act

    def freeze(self, number: int) -> None:
        world = self._world
        group_id = _chosen([None, *self.groups], number)
        world.operate(
            lambda: self._freezes.append(
                freezes.freeze(world.stage, OPERATOR, group_id=group_id, reason=REASON, now=world.clock())
            ),
            "freeze",
        )

    def lift(self, number: int = 0) -> None:
        """All of them."""
        world, found = self._world, self._freezes
        self._freezes = []
        for freeze_id in found:
            world.operate(
                lambda freeze_id=freeze_id: freezes.lift(world.stage, OPERATOR, freeze_id, REASON, world.clock()),  # type: ignore[misc]
                "lift",
            )

    def _node(self, number: int) -> SimNode:
        return _chosen(self._world.fleet.nodes, number)

    def _node_id(self, number: int) -> str:
        return self._world.ways[self._node(number).spec.number].node_id

    def update(self, number: int) -> None:
        self._update(self._node_id(number), _chosen([TARGET, OTHER], number // 7))

    def withdraw(self, number: int) -> None:
        world = self._world
        version = _chosen([TARGET, OTHER, BAD, world.story.version], number)
        world.operate(
            lambda: withdrawal.withdraw(world.stage, OPERATOR, f"image_{version}", REASON, world.clock()),
            f"withdraw {version}",
        )

    def pin(self, number: int) -> None:
        world, node_id, version = self._world, self._node_id(number), _chosen([TARGET, OTHER, BAD], number // 7)
        world.operate(
            lambda: nodes.pin(
                world.stage, OPERATOR, node_id, image_id=f"image_{version}", reason=REASON, now=world.clock()
            ),
            f"pin {node_id[-2:]} to {version}",
        )

    def relabel(self, number: int) -> None:
        world, node = self._world, self._node(number)
        zone, node_id = _chosen(ZONES, number // 7), self._node_id(number)
        labels = {**node.spec.labels, "zone": zone}
        world.operate(
            lambda: nodes.relabel(world.stage, OPERATOR, node_id, labels, REASON, world.clock()),
            f"relabel {node_id[-2:]} into zone {zone}",
        )
        self._note_zone(node)

    def _note_zone(self, node: SimNode) -> None:
        """What was said of it may be stored although whoever said it died over it."""
        world, number = self._world, node.spec.number
        with world.stage.read() as conn:
            query = select(schema.nodes.c.labels).where(schema.nodes.c.id == world.ways[number].node_id)
            zone = conn.execute(query).scalar_one()["zone"]
        world.zones[number] = zone
        world.story.relabelled.setdefault(number, []).append((world.now, zone))

    def _update(self, node_id: str, version: str) -> None:
        world, image = self._world, f"image_{version}"
        world.operate(
            lambda: nodes.update(world.stage, OPERATOR, node_id, image, REASON, world.clock()), f"update {node_id[-2:]}"
        )

    def cure(self, node_ids: Sequence[str]) -> None:
        """Lead these nodes to a version that is good and may still be used."""
        with self._world.stage.read() as conn:
            query = select(schema.images.c.version).where(
                schema.images.c.version.in_([TARGET, OTHER]), schema.images.c.withdrawn_at.is_(None)
            )
            version = str(conn.execute(query.order_by(schema.images.c.version)).scalars().first())
        for node_id in node_ids:
            self._update(node_id, version)

    def _verb(words: str, work: Callable[..., object]) -> Callable[[Director, int], None]:  # type: ignore[misc]
        def act(self: Director, number: int) -> None:
            world, node_id = self._world, self._node_id(number)
            world.operate(
                lambda: work(world.stage, OPERATOR, node_id, REASON, world.clock()), f"{words} {node_id[-2:]}"
            )

        return act

    def second(self, number: int) -> None:
        self.begin(_chosen(self.groups, number), _chosen([OTHER, TARGET], number // 3))

    def reverse(self, number: int) -> None:
        world, rollout_id = self._world, self._one(number)
        if rollout_id is not None:
            world.operate(
                lambda: self.rollouts.append(
                    rollout_reverse.reverse(world.stage, OPERATOR, rollout_id, REASON, world.clock())
                ),
                f"reverse {rollout_id[-4:]}",
            )

    def _back(self, words: str, work: Callable[[], str]) -> None:
        self._world.operate(lambda: self.rollouts.append(work()), words)

    def wave_back(self, number: int) -> None:
        world, rollout_id = self._world, self._one(number)
        if rollout_id is not None:
            wave = number // 7 % 3
            self._back(
                f"send wave {wave} of {rollout_id[-4:]} back",
                lambda: rollout_reverse.reverse(world.stage, OPERATOR, rollout_id, REASON, world.clock(), wave=wave),
            )

    def group_back(self, number: int) -> None:
        world, group_id = self._world, _chosen(self.groups, number)
        self._back(
            f"send group {self._name(group_id)} back",
            lambda: rollout_reverse.reverse_group(world.stage, OPERATOR, group_id, REASON, world.clock()),
        )

    # --- at the end -----------------------------------------------------------------------------------------

    def _in(self, *states: RolloutState) -> list[str]:
        with self._world.stage.read() as conn:
            query = select(schema.rollouts.c.id).where(schema.rollouts.c.state.in_([state.value for state in states]))
            return list(conn.execute(query.order_by(schema.rollouts.c.id)).scalars())

    def resume_paused(self) -> None:
        for rollout_id in self._in(RolloutState.PAUSED):
            self.move("resume", rollouts.resume, rollout_id)

    def send_back_halted(self) -> None:
        for rollout_id in self._in(RolloutState.HALTED):
            self.move("roll back", rollouts.roll_back, rollout_id)

    def end_all(self) -> None:
        """Rollouts that lead forward go back, those that lead back are aborted, single operations are cancelled."""
        world = self._world
        for rollout_id in self._in(RolloutState.RUNNING):
            self.move("roll back", rollouts.roll_back, rollout_id)
        for rollout_id in self._in(RolloutState.RUNNING):  # a reboot, or a way back
            self.move("abort", rollouts.abort, rollout_id)
        with world.stage.read() as conn:
            columns = schema.operations.c
            query = select(columns.node_id).where(columns.state == "open", columns.rollout_id.is_(None))
            found = list(conn.execute(query).scalars())
        for node_id in found:
            world.operate(
                lambda node_id=node_id: nodes.cancel(world.stage, OPERATOR, node_id, REASON, world.clock()),  # type: ignore[misc]
                f"cancel {node_id[-2:]}",
            )

    # --- what breaks ----------------------------------------------------------------------------------------

    def kill(self, number: int) -> None:
        self._world.kill_in = 1 + number % 40

    def cut(self, number: int) -> None:
        world = self._world
        world.cut(world.ways[self._node(number).spec.number])

    def stop_gateway(self, number: int) -> None:
        world = self._world
        world.end_gateway(in_order=number % 2 == 0)
        world.after(1.0 + number % 40, world.start_again, "start gateway")

    def away(self, number: int) -> None:
        world = self._world
        world.end_gateway(in_order=number % 2 == 0)
        world.conductors = [None] * len(world.conductors)
        world.after(AWAY_S, world.start_again, "start gateway")
        for place in range(len(world.conductors)):
            world.after(AWAY_S, lambda place=place: world.start_conductor(place), f"start {place}")  # type: ignore[misc]

    def clock(self, number: int) -> None:
        """Up to two hours ahead, or a quarter of an hour back."""
        ahead = number % 2 == 0
        self._world.offset += 5.0 + number // 2 % 7200 if ahead else -5.0 - number // 2 % 900

    def deafen(self, number: int) -> None:
        world = self._world
        world.deaf = True

        def hear() -> None:
            world.deaf = False

        world.after(30.0 + number % 120, hear)

    def fuse(self, number: int) -> None:
        self._node(number).fuse = 1 + number // 64 % 20

    def power(self, number: int) -> None:
        node = self._node(number)
        self.troubled.add(node.spec.number)
        self._world.fleet.cut_power(node, self._world.now, 1.0 + number // 64 % 60)
        self._world.serve([node])

    def shift(self, number: int) -> None:
        self._world.fleet.move(number % len(self._world.fleet.nodes), self._world.now)

    pause = _mover("pause", rollouts.pause)
    resume = _mover("resume", rollouts.resume)
    abort = _mover("abort", rollouts.abort)
    roll_back = _mover("roll back", rollouts.roll_back)
    reboot = _verb("reboot", nodes.reboot)
    node_back = _verb("send back", nodes.roll_back)
    cancel = _verb("cancel", nodes.cancel)


def _chosen(of: Sequence[T], number: int) -> T:
    return of[number % len(of)]


_FAULTS: dict[Fault, Callable[[Director, int], None]] = {
    Fault.KILL: Director.kill,
    Fault.CUT: Director.cut,
    Fault.GATEWAY: Director.stop_gateway,
    Fault.AWAY: Director.away,
    Fault.CLOCK: Director.clock,
    Fault.DEAF: Director.deafen,
    Fault.FUSE: Director.fuse,
    Fault.POWER: Director.power,
    Fault.MOVE: Director.shift,
}
_DEEDS: dict[Deed, Callable[[Director, int], None]] = {
    Deed.PAUSE: Director.pause,
    Deed.RESUME: Director.resume,
    Deed.ABORT: Director.abort,
    Deed.ROLL_BACK: Director.roll_back,
    Deed.FREEZE: Director.freeze,
    Deed.LIFT: Director.lift,
    Deed.UPDATE: Director.update,
    Deed.REBOOT: Director.reboot,
    Deed.NODE_BACK: Director.node_back,
    Deed.CANCEL: Director.cancel,
    Deed.SECOND: Director.second,
    Deed.REVERSE: Director.reverse,
    Deed.WITHDRAW: Director.withdraw,
    Deed.PIN: Director.pin,
    Deed.RELABEL: Director.relabel,
    Deed.WAVE_BACK: Director.wave_back,
    Deed.GROUP_BACK: Director.group_back,
}
